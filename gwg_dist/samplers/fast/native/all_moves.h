/* Steps on all moves of a chain, for one type REAL of number; included by kernels.c once for each. */
/* Binary: weights exp(sign * slope - shift), in blocks of `size` sites, the last one perhaps shorter. */
void DENSE_BINARY(int64_t num_chains, int64_t num_sites, int64_t size, const REAL *rows, const REAL *scale,
                       double temperature, const double *noise, REAL *signs, REAL *slopes, REAL *all_weights,
                       double *all_sums, double *shifts, REAL *scratch, double *decision) {
    int64_t blocks = (num_sites + size - 1) / size;
    REAL *fresh = scratch, *sums_new = scratch + num_sites;
    for (int64_t b = 0; b < num_chains; b++) {
        REAL *sign = signs + b * num_sites, *slope = slopes + b * num_sites, *weights = all_weights + b * num_sites;
        double *sums = all_sums + b * blocks;
        double total = total_double(sums, blocks);
        int64_t start = first_double(sums, blocks, noise[b] * total) * size;
        int64_t length = num_sites - start < size ? num_sites - start : size;
        const REAL *inside = weights + start;
        int64_t site = start + FIRST_REAL(inside, length, noise[num_chains + b] * TOTAL_REAL(inside, length));
        REAL turn = sign[site], pull = turn * scale[b];
        const REAL *row = rows + site * num_sites;
        double log_weight = turn * slope[site];

        sign[site] = -turn;
        REAL highest = -INFINITY;
        for (int64_t j = 0; j < num_sites; j++) {
            REAL logit = sign[j] * (slope[j] + pull * row[j]);
            fresh[j] = logit;
            highest = logit > highest ? logit : highest;
        }
        double total_new = 0;
        for (int64_t k = 0; k < blocks; k++) {
            int64_t end = (k + 1) * size < num_sites ? (k + 1) * size : num_sites;
            REAL sum = 0;
            for (int64_t j = k * size; j < end; j++) {
                fresh[j] = EXP(fresh[j] - highest);
                sum += fresh[j];
            }
            sums_new[k] = sum;
            total_new += sum;
        }
        int made = decide(log_weight * (temperature - 2), total, total_new, shifts[b], highest, noise[2 * num_chains + b],
                          decision, num_chains, b);
        if (!made) {
            sign[site] = turn;
            continue;
        }
        for (int64_t j = 0; j < num_sites; j++) slope[j] += pull * row[j];
        memcpy(weights, fresh, num_sites * sizeof(REAL));
        for (int64_t k = 0; k < blocks; k++) sums[k] = sums_new[k];
        shifts[b] = highest;
    }
}

/* Categorical: weights exp(slope_ik - slope_i,current - shift), 0 for the current category; a block is a site. */
void DENSE_CATEGORICAL(int64_t num_chains, int64_t num_sites, int64_t num_categories, const REAL *rows,
                            const REAL *scale, double temperature, const double *noise, int64_t *all_codes,
                            REAL *slopes, REAL *all_weights, double *all_sums, double *shifts, REAL *scratch,
                            double *decision) {
    int64_t num = num_sites * num_categories;
    REAL *moved = scratch, *fresh = scratch + num, *sums_new = scratch + 2 * num;
    for (int64_t b = 0; b < num_chains; b++) {
        int64_t *codes = all_codes + b * num_sites;
        REAL *slope = slopes + b * num, *weights = all_weights + b * num;
        double *sums = all_sums + b * num_sites;
        double total = total_double(sums, num_sites);
        int64_t site = first_double(sums, num_sites, noise[b] * total), start = site * num_categories;
        const REAL *inside = weights + start;
        double threshold = noise[num_chains + b] * TOTAL_REAL(inside, num_categories);
        int64_t old = codes[site], new = FIRST_REAL(inside, num_categories, threshold);
        const REAL *row_old = rows + (start + old) * num, *row_new = rows + (start + new) * num;
        double log_weight = slope[start + new] - slope[start + old];

        codes[site] = new;
        for (int64_t j = 0; j < num; j++) moved[j] = slope[j] + scale[b] * (row_new[j] - row_old[j]);
        REAL highest = -INFINITY;
        for (int64_t i = 0; i < num_sites; i++) {
            const REAL *here = moved + i * num_categories;
            REAL *there = fresh + i * num_categories, current = here[codes[i]];
            for (int64_t k = 0; k < num_categories; k++) there[k] = here[k] - current;
            there[codes[i]] = -INFINITY;
            for (int64_t k = 0; k < num_categories; k++) highest = there[k] > highest ? there[k] : highest;
        }
        for (int64_t j = 0; j < num; j++) fresh[j] = EXP(fresh[j] - highest);
        double total_new = 0;
        for (int64_t i = 0; i < num_sites; i++) {
            REAL sum = 0;
            for (int64_t k = 0; k < num_categories; k++) sum += fresh[i * num_categories + k];
            sums_new[i] = sum;
            total_new += sum;
        }
        int made = decide(log_weight * (temperature - 2), total, total_new, shifts[b], highest, noise[2 * num_chains + b],
                          decision, num_chains, b);
        if (!made) {
            codes[site] = old;
            continue;
        }
        memcpy(slope, moved, num * sizeof(REAL));
        memcpy(weights, fresh, num * sizeof(REAL));
        for (int64_t i = 0; i < num_sites; i++) sums[i] = sums_new[i];
        shifts[b] = highest;
    }
}

/* Any binary target, weights exp(sign * slope - shift) with slope = scale * grad + reference. */

/* Weights, their sums by block and their shift, of one chain; returns the sum of all. */
static double WEIGH(int64_t num_sites, int64_t size, const REAL *sign, const REAL *grad, const REAL *reference,
                    REAL scale, REAL *restrict weights, double *sums, double *shift) {
    REAL highest = -INFINITY;
    for (int64_t j = 0; j < num_sites; j++) {
        REAL logit = sign[j] * (scale * grad[j] + reference[j]);
        weights[j] = logit;
        highest = logit > highest ? logit : highest;
    }
    double total = 0;
    for (int64_t k = 0; k * size < num_sites; k++) {
        int64_t end = (k + 1) * size < num_sites ? (k + 1) * size : num_sites;
        REAL sum = 0;
        for (int64_t j = k * size; j < end; j++) {
            weights[j] = EXP(weights[j] - highest);
            sum += weights[j];
        }
        sums[k] = sum;
        total += sum;
    }
    *shift = highest;
    return total;
}

void BINARY_WEIGH(int64_t num_chains, int64_t num_sites, int64_t size, const REAL *signs, const REAL *grads,
                  const REAL *reference, const REAL *scale, REAL *weights, double *sums, double *shifts) {
    int64_t blocks = (num_sites + size - 1) / size;
    for (int64_t b = 0; b < num_chains; b++)
        WEIGH(num_sites, size, signs + b * num_sites, grads + b * num_sites, reference, scale[b],
              weights + b * num_sites, sums + b * blocks, shifts + b);
}

static int64_t DRAW(int64_t num_sites, int64_t size, const REAL *weights, const double *sums, double block,
                    double inside) {
    int64_t blocks = (num_sites + size - 1) / size;
    int64_t start = first_double(sums, blocks, block * total_double(sums, blocks)) * size;
    int64_t length = num_sites - start < size ? num_sites - start : size;
    return start + FIRST_REAL(weights + start, length, inside * TOTAL_REAL(weights + start, length));
}

/* Draws a site for each chain and writes x with that site turned. */
void BINARY_PROPOSE(int64_t num_chains, int64_t num_sites, int64_t size, const double *noise, const REAL *signs,
                    const REAL *weights, const double *sums, int64_t *sites, REAL *proposals) {
    int64_t blocks = (num_sites + size - 1) / size;
    for (int64_t b = 0; b < num_chains; b++) {
        const REAL *sign = signs + b * num_sites;
        REAL *restrict proposal = proposals + b * num_sites;
        sites[b] = DRAW(num_sites, size, weights + b * num_sites, sums + b * blocks, noise[b], noise[num_chains + b]);
        for (int64_t j = 0; j < num_sites; j++) proposal[j] = (1 - sign[j]) / 2;
        proposal[sites[b]] = (1 + sign[sites[b]]) / 2;
    }
}

/* Hidden units: draws a site, adds its column to the pre-activations, and takes their sigmoid and the sum of their
 * softplus, max(a, 0) + log(1 + exp(-|a|)); one logarithm serves the product of many factors. change: f(x') - f(x). */
void HIDDEN_PROPOSE(int64_t num_chains, int64_t num_sites, int64_t num_hidden, int64_t size, const REAL *columns,
                    const REAL *bias, const double *noise, const REAL *signs, const REAL *weights, const double *sums,
                    const REAL *all_hidden, const double *softplus, int64_t *sites, REAL *all_hidden_new,
                    REAL *all_sigmoid, double *softplus_new, double *change) {
    int64_t blocks = (num_sites + size - 1) / size;
    for (int64_t b = 0; b < num_chains; b++) {
        int64_t site =
            DRAW(num_sites, size, weights + b * num_sites, sums + b * blocks, noise[b], noise[num_chains + b]);
        REAL turn = signs[b * num_sites + site];
        const REAL *hidden = all_hidden + b * num_hidden, *column = columns + site * num_hidden;
        REAL *restrict hidden_new = all_hidden_new + b * num_hidden, *restrict sigmoid = all_sigmoid + b * num_hidden;
        double sum = 0;
        for (int64_t from = 0; from < num_hidden; from += 8 * 64) {
            int64_t to = num_hidden < from + 8 * 64 ? num_hidden : from + 8 * 64, h;
            REAL product[8] = {1, 1, 1, 1, 1, 1, 1, 1}, positive = 0;
            for (h = from; h < to; h++) {
                REAL a = hidden[h] + turn * column[h];
                REAL tail = EXP(a > 0 ? -a : a);
                hidden_new[h] = a;
                positive += a > 0 ? a : 0;
                sigmoid[h] = (a > 0 ? 1 : tail) / (1 + tail);
            }
            for (h = from; h + 8 <= to; h += 8)
                for (int64_t i = 0; i < 8; i++) {
                    REAL s = sigmoid[h + i];
                    product[i] *= s > (REAL)0.5 ? s : 1 - s; /* 1 / (1 + exp(-|a|)) >= 1/2 */
                }
            for (; h < to; h++) product[0] *= sigmoid[h] > (REAL)0.5 ? sigmoid[h] : 1 - sigmoid[h];
            sum += positive;
            for (int64_t i = 0; i < 8; i++) sum -= log((double)product[i]);
        }
        sites[b] = site;
        softplus_new[b] = sum;
        change[b] = turn * (double)bias[site] + sum - softplus[b];
    }
}

/* The decision, given the gradient at the proposals and the change of f; what was accepted is written over the state. */
void BINARY_DECIDE(int64_t num_chains, int64_t num_sites, int64_t size, const REAL *grads_new, const double *change,
                   const REAL *reference, const REAL *scale, double temperature, const double *noise,
                   const int64_t *sites, REAL *signs, REAL *grads, REAL *all_weights, double *all_sums, double *shifts,
                   double *f, REAL *scratch, double *decision) {
    int64_t blocks = (num_sites + size - 1) / size;
    double *sums_new = (double *)scratch;
    REAL *fresh = (REAL *)(sums_new + blocks);
    for (int64_t b = 0; b < num_chains; b++) {
        REAL *sign = signs + b * num_sites, *grad = grads + b * num_sites, *weights = all_weights + b * num_sites;
        const REAL *grad_new = grads_new + b * num_sites;
        double *sums = all_sums + b * blocks, shift_new;
        int64_t site = sites[b];
        REAL turn = sign[site];
        sign[site] = -turn;
        double total_new = WEIGH(num_sites, size, sign, grad_new, reference, scale[b], fresh, sums_new, &shift_new);
        double log_ratio = temperature * (scale[b] * change[b] + turn * (double)reference[site]);
        double slopes = scale[b] * ((double)grad[site] + (double)grad_new[site]) + 2 * (double)reference[site];
        if (!decide(log_ratio - turn * slopes, total_double(sums, blocks), total_new, shifts[b], shift_new,
                    noise[2 * num_chains + b], decision, num_chains, b)) {
            sign[site] = turn;
            continue;
        }
        memcpy(grad, grad_new, num_sites * sizeof(REAL));
        memcpy(weights, fresh, num_sites * sizeof(REAL));
        memcpy(sums, sums_new, blocks * sizeof(double));
        shifts[b] = shift_new;
        f[b] += change[b];
    }
}

void HIDDEN_COMMIT(int64_t num_chains, int64_t num_hidden, const double *decision, const REAL *hidden_new,
                   const double *softplus_new, REAL *hidden, double *softplus) {
    for (int64_t b = 0; b < num_chains; b++)
        if (decision[num_chains + b]) {
            memcpy(hidden + b * num_hidden, hidden_new + b * num_hidden, num_hidden * sizeof(REAL));
            softplus[b] = softplus_new[b];
        }
}
