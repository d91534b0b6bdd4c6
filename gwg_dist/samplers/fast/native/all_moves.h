/* Steps on all moves of a chain, for one type REAL of number; included by kernels.c once for each. */
/* Binary: weights exp(sign * slope - shift), in blocks of `size` sites, the last one perhaps shorter. */
struct DENSE_BINARY {
    int64_t chains, sites, block;
    const REAL *rows, *scale;
    double temperature;
    const double *noise;
    REAL *signs, *slopes, *weights;
    double *sums, *shifts;
    REAL *fresh, *fresh_sums;
    double *decision;
};

KERNEL(DENSE_BINARY) {
    const struct DENSE_BINARY *a = arguments;
    int64_t num_chains = a->chains, num_sites = a->sites, size = a->block, blocks = (num_sites + size - 1) / size;
    const double *noise = a->noise;
    REAL *fresh = a->fresh + thread * num_sites, *sums_new = a->fresh_sums + thread * blocks;
    for (int64_t b = from; b < to; b++) {
        REAL *sign = a->signs + b * num_sites, *slope = a->slopes + b * num_sites, *weights = a->weights + b * num_sites;
        double *sums = a->sums + b * blocks;
        double total = total_double(sums, blocks);
        int64_t start = first_double(sums, blocks, noise[b] * total) * size;
        int64_t length = num_sites - start < size ? num_sites - start : size;
        const REAL *inside = weights + start;
        int64_t site = start + FIRST_REAL(inside, length, noise[num_chains + b] * TOTAL_REAL(inside, length));
        REAL turn = sign[site], pull = turn * a->scale[b];
        const REAL *row = a->rows + site * num_sites;
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
        int made = decide(log_weight * (a->temperature - 2), total, total_new, a->shifts[b], highest,
                          noise[2 * num_chains + b], a->decision, num_chains, b);
        if (!made) {
            sign[site] = turn;
            continue;
        }
        for (int64_t j = 0; j < num_sites; j++) slope[j] += pull * row[j];
        memcpy(weights, fresh, num_sites * sizeof(REAL));
        for (int64_t k = 0; k < blocks; k++) sums[k] = sums_new[k];
        a->shifts[b] = highest;
    }
}

/* Categorical: weights exp(slope_ik - slope_i,current - shift), 0 for the current category; a block is a site. */
struct DENSE_CATEGORICAL {
    int64_t chains, sites, categories;
    const REAL *rows, *scale;
    double temperature;
    const double *noise;
    int64_t *codes;
    REAL *slopes, *weights;
    double *sums, *shifts;
    REAL *moved, *fresh, *fresh_sums;
    double *decision;
};

KERNEL(DENSE_CATEGORICAL) {
    const struct DENSE_CATEGORICAL *a = arguments;
    int64_t num_chains = a->chains, num_sites = a->sites, num_categories = a->categories;
    int64_t num = num_sites * num_categories;
    const double *noise = a->noise;
    REAL *moved = a->moved + thread * num, *fresh = a->fresh + thread * num, *sums_new = a->fresh_sums + thread * num_sites;
    for (int64_t b = from; b < to; b++) {
        int64_t *codes = a->codes + b * num_sites;
        REAL *slope = a->slopes + b * num, *weights = a->weights + b * num, scale = a->scale[b];
        double *sums = a->sums + b * num_sites;
        double total = total_double(sums, num_sites);
        int64_t site = first_double(sums, num_sites, noise[b] * total), start = site * num_categories;
        const REAL *inside = weights + start;
        double threshold = noise[num_chains + b] * TOTAL_REAL(inside, num_categories);
        int64_t old = codes[site], new = FIRST_REAL(inside, num_categories, threshold);
        const REAL *row_old = a->rows + (start + old) * num, *row_new = a->rows + (start + new) * num;
        double log_weight = slope[start + new] - slope[start + old];

        codes[site] = new;
        for (int64_t j = 0; j < num; j++) moved[j] = slope[j] + scale * (row_new[j] - row_old[j]);
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
        int made = decide(log_weight * (a->temperature - 2), total, total_new, a->shifts[b], highest,
                          noise[2 * num_chains + b], a->decision, num_chains, b);
        if (!made) {
            codes[site] = old;
            continue;
        }
        memcpy(slope, moved, num * sizeof(REAL));
        memcpy(weights, fresh, num * sizeof(REAL));
        for (int64_t i = 0; i < num_sites; i++) sums[i] = sums_new[i];
        a->shifts[b] = highest;
    }
}

/* Any binary target, weights exp(sign * slope - shift) with slope = scale * grad + reference. */

/* Logits of the moves of one chain; returns the highest. */
static inline REAL LOGITS(int64_t num_sites, const REAL *sign, const REAL *grad, const REAL *reference, REAL scale,
                          REAL *restrict logits) {
    REAL highest = -INFINITY;
    for (int64_t j = 0; j < num_sites; j++) {
        REAL logit = sign[j] * (scale * grad[j] + reference[j]);
        logits[j] = logit;
        highest = logit > highest ? logit : highest;
    }
    return highest;
}

/* Weights in place of logits, and their sums by block; returns the sum of all. */
static inline double EXPONENTIALS(int64_t num_sites, int64_t size, REAL highest, REAL *restrict weights, double *sums) {
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
    return total;
}

/* Weights, their sums by block and their shift, of one chain; returns the sum of all. */
static double WEIGH(int64_t num_sites, int64_t size, const REAL *sign, const REAL *grad, const REAL *reference,
                    REAL scale, REAL *restrict weights, double *sums, double *shift) {
    REAL highest = LOGITS(num_sites, sign, grad, reference, scale, weights);
    *shift = highest;
    return EXPONENTIALS(num_sites, size, highest, weights, sums);
}

struct BINARY_WEIGH {
    int64_t chains, sites, block;
    const REAL *signs, *grads, *reference, *scale;
    REAL *weights;
    double *sums, *shifts;
};

KERNEL(BINARY_WEIGH) {
    const struct BINARY_WEIGH *a = arguments;
    int64_t num_sites = a->sites, size = a->block, blocks = (num_sites + size - 1) / size;
    (void)thread;
    for (int64_t b = from; b < to; b++)
        WEIGH(num_sites, size, a->signs + b * num_sites, a->grads + b * num_sites, a->reference, a->scale[b],
              a->weights + b * num_sites, a->sums + b * blocks, a->shifts + b);
}

static int64_t DRAW(int64_t num_sites, int64_t size, const REAL *weights, const double *sums, double block,
                    double inside) {
    int64_t blocks = (num_sites + size - 1) / size;
    int64_t start = first_double(sums, blocks, block * total_double(sums, blocks)) * size;
    int64_t length = num_sites - start < size ? num_sites - start : size;
    return start + FIRST_REAL(weights + start, length, inside * TOTAL_REAL(weights + start, length));
}

/* Draws a site for each chain and writes x with that site turned. */
struct BINARY_PROPOSE {
    int64_t chains, sites, block;
    const double *noise;
    const REAL *signs, *weights;
    const double *sums;
    int64_t *moved;
    REAL *proposals;
};

KERNEL(BINARY_PROPOSE) {
    const struct BINARY_PROPOSE *a = arguments;
    int64_t num_sites = a->sites, size = a->block, blocks = (num_sites + size - 1) / size;
    (void)thread;
    for (int64_t b = from; b < to; b++) {
        const REAL *sign = a->signs + b * num_sites;
        REAL *restrict proposal = a->proposals + b * num_sites;
        int64_t site = DRAW(num_sites, size, a->weights + b * num_sites, a->sums + b * blocks, a->noise[b],
                            a->noise[a->chains + b]);
        for (int64_t j = 0; j < num_sites; j++) proposal[j] = (1 - sign[j]) / 2;
        proposal[site] = (1 + sign[site]) / 2;
        a->moved[b] = site;
    }
}

/* Sigmoids, and the sum of softplus, max(a, 0) + log(1 + exp(-|a|)); one logarithm serves the product of many factors. */
static inline double SIGMOIDS(int64_t num, const REAL *fields, REAL *restrict sigmoid) {
    double sum = 0;
    for (int64_t begin = 0; begin < num; begin += 8 * 64) {
        int64_t end = num < begin + 8 * 64 ? num : begin + 8 * 64, h;
        REAL product[8] = {1, 1, 1, 1, 1, 1, 1, 1}, positive = 0;
        for (h = begin; h < end; h++) {
            REAL field = fields[h], tail = EXP(field > 0 ? -field : field);
            positive += field > 0 ? field : 0;
            sigmoid[h] = (field > 0 ? 1 : tail) / (1 + tail);
        }
        for (h = begin; h + 8 <= end; h += 8)
            for (int64_t i = 0; i < 8; i++) {
                REAL s = sigmoid[h + i];
                product[i] *= s > (REAL)0.5 ? s : 1 - s; /* 1 / (1 + exp(-|a|)) >= 1/2 */
            }
        for (; h < end; h++) product[0] *= sigmoid[h] > (REAL)0.5 ? sigmoid[h] : 1 - sigmoid[h];
        sum += positive;
        for (int64_t i = 0; i < 8; i++) sum -= log((double)product[i]);
    }
    return sum;
}

/* Hidden units: draws a site and adds its column to the pre-activations. change: f(x') - f(x). */
struct HIDDEN_PROPOSE {
    int64_t chains, sites, units, block;
    const REAL *columns, *bias;
    const double *noise;
    const REAL *signs, *weights;
    const double *sums;
    const REAL *hidden;
    const double *softplus;
    int64_t *moved;
    REAL *hidden_new, *sigmoid;
    double *softplus_new, *change;
};

KERNEL(HIDDEN_PROPOSE) {
    const struct HIDDEN_PROPOSE *a = arguments;
    int64_t num_sites = a->sites, num_hidden = a->units, size = a->block, blocks = (num_sites + size - 1) / size;
    (void)thread;
    for (int64_t b = from; b < to; b++) {
        int64_t site = DRAW(num_sites, size, a->weights + b * num_sites, a->sums + b * blocks, a->noise[b],
                            a->noise[a->chains + b]);
        REAL turn = a->signs[b * num_sites + site];
        const REAL *hidden = a->hidden + b * num_hidden, *column = a->columns + site * num_hidden;
        REAL *restrict hidden_new = a->hidden_new + b * num_hidden;
        for (int64_t h = 0; h < num_hidden; h++) hidden_new[h] = hidden[h] + turn * column[h];
        double sum = SIGMOIDS(num_hidden, hidden_new, a->sigmoid + b * num_hidden);
        a->moved[b] = site;
        a->softplus_new[b] = sum;
        a->change[b] = turn * (double)a->bias[site] + sum - a->softplus[b];
    }
}

/* The decision, given the gradient at the proposals and the change of f; what was accepted is written over the state. */
struct BINARY_DECIDE {
    int64_t chains, sites, block;
    const REAL *grads_new;
    const double *change;
    const REAL *reference, *scale;
    double temperature;
    const double *noise;
    const int64_t *moved;
    REAL *signs, *grads, *weights;
    double *sums, *shifts, *f;
    REAL *fresh;
    double *fresh_sums, *decision;
};

KERNEL(BINARY_DECIDE) {
    const struct BINARY_DECIDE *a = arguments;
    int64_t num_sites = a->sites, size = a->block, blocks = (num_sites + size - 1) / size;
    const REAL *reference = a->reference;
    REAL *fresh = a->fresh + thread * num_sites;
    double *sums_new = a->fresh_sums + thread * blocks;
    for (int64_t b = from; b < to; b++) {
        REAL *sign = a->signs + b * num_sites, *grad = a->grads + b * num_sites, *weights = a->weights + b * num_sites;
        const REAL *grad_new = a->grads_new + b * num_sites;
        double *sums = a->sums + b * blocks, shift_new;
        int64_t site = a->moved[b];
        REAL turn = sign[site], scale = a->scale[b];
        sign[site] = -turn;
        double total_new = WEIGH(num_sites, size, sign, grad_new, reference, scale, fresh, sums_new, &shift_new);
        double log_ratio = a->temperature * (scale * a->change[b] + turn * (double)reference[site]);
        double slopes = scale * ((double)grad[site] + (double)grad_new[site]) + 2 * (double)reference[site];
        if (!decide(log_ratio - turn * slopes, total_double(sums, blocks), total_new, a->shifts[b], shift_new,
                    a->noise[2 * a->chains + b], a->decision, a->chains, b)) {
            sign[site] = turn;
            continue;
        }
        memcpy(grad, grad_new, num_sites * sizeof(REAL));
        memcpy(weights, fresh, num_sites * sizeof(REAL));
        memcpy(sums, sums_new, blocks * sizeof(double));
        a->shifts[b] = shift_new;
        a->f[b] += a->change[b];
    }
}

struct HIDDEN_COMMIT {
    int64_t chains, units;
    const double *decision;
    const REAL *hidden_new;
    const double *softplus_new;
    REAL *hidden;
    double *softplus;
};

KERNEL(HIDDEN_COMMIT) {
    const struct HIDDEN_COMMIT *a = arguments;
    int64_t num_hidden = a->units;
    (void)thread;
    for (int64_t b = from; b < to; b++)
        if (a->decision[a->chains + b]) {
            memcpy(a->hidden + b * num_hidden, a->hidden_new + b * num_hidden, num_hidden * sizeof(REAL));
            a->softplus[b] = a->softplus_new[b];
        }
}
