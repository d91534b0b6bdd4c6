/* Steps that change many sites of a binary chain at once, for one type REAL of number; included by kernels.c once for
 * each. A proposal lists the sites that turn, `turned` and their `count`; what a model makes of the list is followed; then
 * the step is decided, and what was accepted is written over the state. The mathematics is in langevin.py and
 * path_auxiliary.py of the folder above.
 */

/* sigmoid of the logits of a flip, sign * (scale * grad + reference) - curvature, and the log probability of none. */
static double CHANCES(int64_t num_sites, const REAL *sign, const REAL *grad, const REAL *reference,
                      const REAL *curvature, REAL scale, REAL *restrict logits, REAL *restrict chance) {
    for (int64_t j = 0; j < num_sites; j++)
        logits[j] = sign[j] * (scale * grad[j] + reference[j]) - curvature[j];
    return -SIGMOIDS(num_sites, logits, chance);
}

struct LANGEVIN_WEIGH {
    int64_t chains, sites;
    const REAL *signs, *grads, *reference, *curvature, *scale;
    REAL *chance;
    double *log_stay;
    REAL *logits;
};

KERNEL(LANGEVIN_WEIGH) {
    const struct LANGEVIN_WEIGH *a = arguments;
    int64_t num = a->sites;
    for (int64_t b = from; b < to; b++)
        a->log_stay[b] = CHANCES(num, a->signs + b * num, a->grads + b * num, a->reference, a->curvature, a->scale[b],
                                 a->logits + thread * num, a->chance + b * num);
}

/* noise: (B, 1 + D), the decision, then a number for each site. */
struct LANGEVIN_PROPOSE {
    int64_t chains, sites;
    const double *noise;
    const REAL *chance;
    int32_t *turned;
    int64_t *count;
};

KERNEL(LANGEVIN_PROPOSE) {
    const struct LANGEVIN_PROPOSE *a = arguments;
    int64_t num = a->sites;
    (void)thread;
    for (int64_t b = from; b < to; b++) {
        const double *uniform = a->noise + b * (1 + num) + 1;
        const REAL *chance = a->chance + b * num;
        int32_t *turned = a->turned + b * num;
        int64_t count = 0;
        for (int64_t j = 0; j < num; j++) {
            turned[count] = (int32_t)j;
            count += uniform[j] < chance[j];
        }
        a->count[b] = count;
    }
}

/* balance times log p's slope is scale * grad + reference; curvatures of the way there and back cancel. */
struct LANGEVIN_DECIDE {
    int64_t chains, sites;
    const REAL *grads_new;
    const double *change;
    const REAL *reference, *curvature, *scale;
    double balance;
    const double *noise;
    const int32_t *turned;
    const int64_t *count;
    REAL *signs, *grads, *chance;
    double *log_stay, *f;
    REAL *logits, *fresh;
    double *decision;
};

KERNEL(LANGEVIN_DECIDE) {
    const struct LANGEVIN_DECIDE *a = arguments;
    int64_t num = a->sites;
    REAL *fresh = a->fresh + thread * num;
    for (int64_t b = from; b < to; b++) {
        REAL *sign = a->signs + b * num, *grad = a->grads + b * num, scale = a->scale[b];
        const REAL *grad_new = a->grads_new + b * num;
        const int32_t *turned = a->turned + b * num;
        double log_ratio = scale * a->change[b], slopes = 0;
        for (int64_t k = 0; k < a->count[b]; k++) {
            int64_t i = turned[k];
            double reference = a->reference[i];
            log_ratio += sign[i] * reference;
            slopes += sign[i] * (scale * ((double)grad[i] + (double)grad_new[i]) + 2 * reference);
            sign[i] = -sign[i];
        }
        double log_stay = CHANCES(num, sign, grad_new, a->reference, a->curvature, scale, a->logits + thread * num, fresh);
        int made = decide(log_ratio / a->balance - slopes + log_stay - a->log_stay[b], 1, 1, 0, 0,
                          a->noise[b * (1 + num)], a->decision, a->chains, b);
        a->decision[a->chains + b] = made * a->count[b];
        if (!made) {
            for (int64_t k = 0; k < a->count[b]; k++) sign[turned[k]] = -sign[turned[k]];
            continue;
        }
        memcpy(grad, grad_new, num * sizeof(REAL));
        memcpy(a->chance + b * num, fresh, num * sizeof(REAL));
        a->log_stay[b] = log_stay;
        a->f[b] += a->change[b];
    }
}

/* Weights from which sites are taken one after the other. */
struct REST {
    int64_t num_sites, size;
    const REAL *sign, *grad, *reference;
    REAL scale, *weights;
    double *sums, shift;
};

/* The sum of the weights that are left, sites[0..taken-1] gone; no sum is a difference. Where all that is left is small
 * beside what was taken, weights are made anew relative to the largest of them. */
static double LEFT(struct REST *rest, const int32_t *sites, int64_t taken) {
    int64_t num = rest->num_sites, size = rest->size;
    if (taken) {
        int64_t block = sites[taken - 1] / size, end = (block + 1) * size < num ? (block + 1) * size : num;
        rest->weights[sites[taken - 1]] = 0;
        rest->sums[block] = TOTAL_REAL(rest->weights + block * size, end - block * size);
    }
    double total = total_double(rest->sums, (num + size - 1) / size);
    if (!taken || total > 1e-15) return total;
    LOGITS(num, rest->sign, rest->grad, rest->reference, rest->scale, rest->weights);
    for (int64_t k = 0; k < taken; k++) rest->weights[sites[k]] = -INFINITY;
    REAL highest = -INFINITY;
    for (int64_t j = 0; j < num; j++) highest = rest->weights[j] > highest ? rest->weights[j] : highest;
    rest->shift = highest;
    return EXPONENTIALS(num, size, highest, rest->weights, rest->sums);
}

/* log of the weight of a site beside that of all that are left. */
static double LOG_SHARE(const struct REST *rest, int64_t i, double total) {
    return (double)rest->sign[i] * ((double)rest->scale * rest->grad[i] + rest->reference[i]) - rest->shift - log(total);
}

/* Draws count different sites in order. noise: (B, 2 + 2 R), the length, the decision, then for each site its block and
 * its place there. */
struct PATH_PROPOSE {
    int64_t chains, sites, block, room;
    const double *noise;
    const REAL *signs, *grads, *reference, *scale, *weights;
    const double *sums, *shifts;
    int32_t *turned;
    int64_t *count;
    double *log_q;
    REAL *left;
    double *left_sums;
};

KERNEL(PATH_PROPOSE) {
    const struct PATH_PROPOSE *a = arguments;
    int64_t num = a->sites, size = a->block, blocks = (num + size - 1) / size;
    for (int64_t b = from; b < to; b++) {
        const double *noise = a->noise + b * (2 + 2 * a->room);
        int32_t *turned = a->turned + b * a->room;
        struct REST rest = {num, size, a->signs + b * num, a->grads + b * num, a->reference, a->scale[b],
                            a->left + thread * num, a->left_sums + thread * blocks, a->shifts[b]};
        memcpy(rest.weights, a->weights + b * num, num * sizeof(REAL));
        memcpy(rest.sums, a->sums + b * blocks, blocks * sizeof(double));
        int64_t count = 1 + (int64_t)(noise[0] * a->room);
        double log_q = 0;
        for (int64_t k = 0; k < count; k++) {
            double total = LEFT(&rest, turned, k);
            turned[k] = (int32_t)DRAW(num, size, rest.weights, rest.sums, noise[2 + 2 * k], noise[3 + 2 * k]);
            log_q += LOG_SHARE(&rest, turned[k], total);
        }
        a->count[b] = count;
        a->log_q[b] = log_q;
    }
}

/* The decision; the way back takes the sites from the last to the first. */
struct PATH_DECIDE {
    int64_t chains, sites, block, room;
    const REAL *grads_new;
    const double *change;
    const REAL *reference, *scale;
    double temperature;
    const double *noise;
    int32_t *turned;
    const int64_t *count;
    const double *log_q;
    REAL *signs, *grads, *weights;
    double *sums, *shifts, *f;
    REAL *fresh;
    double *fresh_sums;
    REAL *left;
    double *left_sums, *decision;
};

KERNEL(PATH_DECIDE) {
    const struct PATH_DECIDE *a = arguments;
    int64_t num = a->sites, size = a->block, blocks = (num + size - 1) / size;
    REAL *fresh = a->fresh + thread * num;
    double *sums_new = a->fresh_sums + thread * blocks, shift_new;
    for (int64_t b = from; b < to; b++) {
        REAL *sign = a->signs + b * num, scale = a->scale[b];
        const REAL *grad_new = a->grads_new + b * num;
        int32_t *turned = a->turned + b * a->room;
        int64_t count = a->count[b];
        double log_ratio = scale * a->change[b], log_q = 0;
        for (int64_t k = 0; k < count; k++) {
            log_ratio += sign[turned[k]] * (double)a->reference[turned[k]];
            sign[turned[k]] = -sign[turned[k]];
        }
        for (int64_t k = 0; 2 * k < count - 1; k++) {
            int32_t first = turned[k];
            turned[k] = turned[count - 1 - k];
            turned[count - 1 - k] = first;
        }
        WEIGH(num, size, sign, grad_new, a->reference, scale, fresh, sums_new, &shift_new);
        struct REST rest = {num, size, sign, grad_new, a->reference, scale,
                            a->left + thread * num, a->left_sums + thread * blocks, shift_new};
        memcpy(rest.weights, fresh, num * sizeof(REAL));
        memcpy(rest.sums, sums_new, blocks * sizeof(double));
        for (int64_t k = 0; k < count; k++) {
            double total = LEFT(&rest, turned, k);
            log_q += LOG_SHARE(&rest, turned[k], total);
        }
        int made = decide(a->temperature * log_ratio + log_q - a->log_q[b], 1, 1, 0, 0, a->noise[b * (2 + 2 * a->room) + 1],
                          a->decision, a->chains, b);
        a->decision[a->chains + b] = made * count;
        if (!made) {
            for (int64_t k = 0; k < count; k++) sign[turned[k]] = -sign[turned[k]];
            continue;
        }
        memcpy(a->grads + b * num, grad_new, num * sizeof(REAL));
        memcpy(a->weights + b * num, fresh, num * sizeof(REAL));
        memcpy(a->sums + b * blocks, sums_new, blocks * sizeof(double));
        a->shifts[b] = shift_new;
        a->f[b] += a->change[b];
    }
}

/* Models. f is quadratic in pairs of sites: its change is that of x times the mean of the gradients at both ends. */
static double HALF_WAY(const REAL *sign, const REAL *grad, const REAL *grad_new, const int32_t *turned, int64_t count) {
    double change = 0;
    for (int64_t k = 0; k < count; k++)
        change += sign[turned[k]] * ((double)grad[turned[k]] + (double)grad_new[turned[k]]) / 2;
    return change;
}

struct DENSE_FOLLOW {
    int64_t chains, sites, room;
    const REAL *rows, *signs, *grads;
    const int32_t *turned;
    const int64_t *count;
    REAL *grads_new;
    double *change;
};

KERNEL(DENSE_FOLLOW) {
    const struct DENSE_FOLLOW *a = arguments;
    int64_t num = a->sites;
    (void)thread;
    for (int64_t b = from; b < to; b++) {
        const REAL *sign = a->signs + b * num, *grad = a->grads + b * num;
        const int32_t *turned = a->turned + b * a->room;
        REAL *restrict grad_new = a->grads_new + b * num;
        memcpy(grad_new, grad, num * sizeof(REAL));
        for (int64_t k = 0; k < a->count[b]; k++) {
            const REAL *row = a->rows + turned[k] * num;
            REAL turn = sign[turned[k]];
            for (int64_t j = 0; j < num; j++) grad_new[j] += turn * row[j];
        }
        a->change[b] = HALF_WAY(sign, grad, grad_new, turned, a->count[b]);
    }
}

struct SPARSE_FOLLOW {
    int64_t chains, sites, degree, room;
    const int64_t *neighbours;
    const REAL *rows, *signs, *grads;
    const int32_t *turned;
    const int64_t *count;
    REAL *grads_new;
    double *change;
};

KERNEL(SPARSE_FOLLOW) {
    const struct SPARSE_FOLLOW *a = arguments;
    int64_t num = a->sites, degree = a->degree;
    (void)thread;
    for (int64_t b = from; b < to; b++) {
        const REAL *sign = a->signs + b * num, *grad = a->grads + b * num;
        const int32_t *turned = a->turned + b * a->room;
        REAL *grad_new = a->grads_new + b * num;
        memcpy(grad_new, grad, num * sizeof(REAL));
        for (int64_t k = 0; k < a->count[b]; k++) {
            const int64_t *at = a->neighbours + turned[k] * degree;
            const REAL *row = a->rows + turned[k] * degree;
            REAL turn = sign[turned[k]];
            for (int64_t n = 0; n < degree; n++) grad_new[at[n]] += turn * row[n];
        }
        a->change[b] = HALF_WAY(sign, grad, grad_new, turned, a->count[b]);
    }
}

/* Hidden units: the columns of what turned are added to the pre-activations. */
struct HIDDEN_FOLLOW {
    int64_t chains, sites, units, room;
    const REAL *columns, *bias, *signs, *hidden;
    const double *softplus;
    const int32_t *turned;
    const int64_t *count;
    REAL *hidden_new, *sigmoid;
    double *softplus_new, *change;
};

KERNEL(HIDDEN_FOLLOW) {
    const struct HIDDEN_FOLLOW *a = arguments;
    int64_t num_hidden = a->units;
    (void)thread;
    for (int64_t b = from; b < to; b++) {
        const REAL *sign = a->signs + b * a->sites;
        const int32_t *turned = a->turned + b * a->room;
        REAL *restrict hidden_new = a->hidden_new + b * num_hidden;
        double change = -a->softplus[b];
        memcpy(hidden_new, a->hidden + b * num_hidden, num_hidden * sizeof(REAL));
        for (int64_t k = 0; k < a->count[b]; k++) {
            const REAL *column = a->columns + turned[k] * num_hidden;
            REAL turn = sign[turned[k]];
            for (int64_t h = 0; h < num_hidden; h++) hidden_new[h] += turn * column[h];
            change += turn * (double)a->bias[turned[k]];
        }
        a->softplus_new[b] = SIGMOIDS(num_hidden, hidden_new, a->sigmoid + b * num_hidden);
        a->change[b] = change + a->softplus_new[b];
    }
}
