/* Sweeps of dense pairs, site after site: included once for each type REAL. The mathematics is in conditionals.py.
 *
 * fields (B, N) hold slope + x^T R for N = D (binary, width 1) or D K numbers, moved by rows of R where a site changes.
 * TILE chains go together, so that the rows of a site, read by all of them, stay in the nearest cache; what a site
 * becomes is worked out for the tile at once, with chains innermost.
 */

/* Probabilities of the next category of one site, up to a factor, in place of its logits: (K, TILE), chains innermost.
 * Gibbs: the conditional. Metropolised (Liu, 1996): p_k / max(1 - p_now, 1 - p_k), and what is left for p_now. */
static inline void SITE_WEIGHTS(int64_t num_categories, int metropolised, const int32_t *now,
                                REAL (*restrict p)[TILE]) {
    REAL highest[TILE], total[TILE];
    for (int c = 0; c < TILE; c++) highest[c] = p[0][c], total[c] = 0;
    for (int64_t k = 1; k < num_categories; k++)
        for (int c = 0; c < TILE; c++) highest[c] = p[k][c] > highest[c] ? p[k][c] : highest[c];
    for (int64_t k = 0; k < num_categories; k++)
        for (int c = 0; c < TILE; c++) {
            p[k][c] = EXP(p[k][c] - highest[c]);
            total[c] += p[k][c];
        }
    if (!metropolised) return;
    REAL other_now[TILE], stay[TILE];
    for (int c = 0; c < TILE; c++) other_now[c] = 0;
    for (int64_t k = 0; k < num_categories; k++)
        for (int c = 0; c < TILE; c++) other_now[c] += now[c] == k ? 0 : p[k][c];
    for (int c = 0; c < TILE; c++) stay[c] = 1;
    for (int64_t k = 0; k < num_categories; k++)
        for (int c = 0; c < TILE; c++) {
            REAL other = total[c] - p[k][c];
            REAL moved = now[c] == k ? 0 : p[k][c] / (other > other_now[c] ? other : other_now[c]);
            p[k][c] = moved;
            stay[c] -= moved;
        }
    for (int64_t k = 0; k < num_categories; k++)
        for (int c = 0; c < TILE; c++) p[k][c] = now[c] == k ? (stay[c] > 0 ? stay[c] : 0) : p[k][c];
}

/* The first category whose cumulative sum exceeds uniform * total, summed in double; never one of weight zero. */
static inline void SITE_DRAWS(int64_t num_categories, REAL (*restrict p)[TILE], const double *uniform,
                              int32_t *restrict drawn) {
    double total[TILE], sum[TILE];
    int32_t last[TILE];
    for (int c = 0; c < TILE; c++) total[c] = sum[c] = 0, drawn[c] = -1, last[c] = 0;
    for (int64_t k = 0; k < num_categories; k++)
        for (int c = 0; c < TILE; c++) total[c] += p[k][c];
    for (int c = 0; c < TILE; c++) total[c] *= uniform[c];
    for (int64_t k = 0; k < num_categories; k++)
        for (int c = 0; c < TILE; c++) {
            int possible = p[k][c] > 0;
            sum[c] += p[k][c];
            last[c] = possible ? (int32_t)k : last[c];
            drawn[c] = drawn[c] < 0 && possible && sum[c] > total[c] ? (int32_t)k : drawn[c];
        }
    for (int c = 0; c < TILE; c++) drawn[c] = drawn[c] < 0 ? last[c] : drawn[c];
}

/* noise (sites, chains) uniform in [0, 1); codes, fields and hops are written over. */
struct PAIR_SWEEP {
    int64_t chains, sites, width;
    double metropolised;
    const REAL *rows, *reference, *scale;
    const double *noise;
    int32_t *codes;
    REAL *fields, *hops;
};

/* One sweep of TILE chains or fewer, from..to-1. */
static void SWEEP_TILE(const struct PAIR_SWEEP *a, int64_t from, int64_t to) {
    int binary = a->width == 1, metropolised = a->metropolised != 0;
    int64_t num_sites = a->sites, width = a->width, num = num_sites * width, num_categories = binary ? 2 : width;
    int64_t chains = to - from;
    const REAL *restrict rows = a->rows, *scale = a->scale + from;
    REAL *restrict fields = a->fields + from * num, *hops = a->hops + from;
    int32_t *codes = a->codes + from * num_sites, now[TILE] = {0}, next[TILE];
    REAL p[num_categories][TILE];
    double uniform[TILE] = {0};
    memset(p, 0, sizeof p);
    for (int64_t c = 0; c < chains; c++) hops[c] = 0;
    for (int64_t i = 0; i < num_sites; i++) {
        const REAL *reference = a->reference + i * width;
        for (int64_t c = 0; c < chains; c++) {
            const REAL *field = fields + c * num + i * width;
            for (int64_t k = 0; k < width; k++) p[k][c] = scale[c] * field[k] + reference[k];
            if (binary) p[1][c] = 0; /* 1 comes first, and the logit of 0 is 0 */
            now[c] = binary ? 1 - codes[c * num_sites + i] : codes[c * num_sites + i];
            uniform[c] = a->noise[i * a->chains + from + c];
        }
        SITE_WEIGHTS(num_categories, metropolised, now, p);
        SITE_DRAWS(num_categories, p, uniform, next);
        for (int64_t c = 0; c < chains; c++) {
            if (next[c] == now[c]) continue;
            REAL *field = fields + c * num;
            codes[c * num_sites + i] = binary ? 1 - next[c] : next[c];
            hops[c] += 1;
            if (binary) {
                const REAL *row = rows + i * num;
                REAL turn = (REAL)(now[c] - next[c]);
                for (int64_t j = 0; j < num; j++) field[j] += turn * row[j];
            } else {
                const REAL *old = rows + (i * width + now[c]) * num, *new = rows + (i * width + next[c]) * num;
                for (int64_t j = 0; j < num; j++) field[j] += new[j] - old[j];
            }
        }
    }
}

KERNEL(PAIR_SWEEP) {
    const struct PAIR_SWEEP *a = arguments;
    (void)thread;
    for (int64_t b = from; b < to; b += TILE) SWEEP_TILE(a, b, b + TILE < to ? b + TILE : to);
}
