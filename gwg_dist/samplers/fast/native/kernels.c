/* Steps of Gibbs-With-Gradients and block Gibbs for classical energies; the mathematics is in sparse.py, binary.py and
 * block_gibbs.py.
 *
 * A chain's arrays fit the nearest caches, so a step goes chain by chain: draw a block by its sum of weights, then a
 * move inside it, look at what the move changes, and write only what was accepted. Arrays are contiguous, chains first.
 *
 * A kernel moves the chains from..to-1 and takes one struct, whose fields are the lines of the table in signatures.py.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "parallel.h"

#define KERNEL(NAME) void NAME(int64_t thread, int64_t from, int64_t to, const void *arguments)

/* exp(x) for x <= 0 to within 4 units in the last place of float, without a call, so that loops over it vectorise. */
static inline float exp_of_negative(float x) {
    x = x > -87.0f ? x : -87.0f;
    float n = __builtin_floorf(x * 1.44269504f + 0.5f);
    float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    float p = 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    union { int32_t i; float f; } scale = {((int32_t)n + 127) << 23};
    return x > -86.9f ? p * scale.f : 0.0f;
}

/* The first index whose cumulative sum exceeds the threshold; never one of weight zero. */
#define FIRST_ABOVE(NAME, TYPE)                                                      \
    static int64_t NAME(const TYPE *weights, int64_t num, double threshold) {        \
        double sum = 0;                                                              \
        int64_t last = 0;                                                            \
        for (int64_t i = 0; i < num; i++) {                                          \
            sum += weights[i];                                                       \
            if (weights[i] > 0) {                                                    \
                last = i;                                                            \
                if (sum > threshold) return i;                                       \
            }                                                                        \
        }                                                                            \
        return last;                                                                 \
    }
FIRST_ABOVE(first_double, double)
FIRST_ABOVE(first_float, float)

#define TOTAL(NAME, TYPE)                                               \
    static double NAME(const TYPE *weights, int64_t num) {              \
        double sum = 0;                                                 \
        for (int64_t i = 0; i < num; i++) sum += weights[i];            \
        return sum;                                                     \
    }
TOTAL(total_double, double)
TOTAL(total_float, float)

/* Accepts with p(x') q(x|x') / (p(x) q(x'|x)) = exp(log_ratio) (total / total_new) exp(shift - shift_new), never where
 * that is not a number; writes the probability and whether the move is made. */
static int decide(double log_ratio, double total, double total_new, double shift, double shift_new, double uniform,
                  double *decision, int64_t num_chains, int64_t b) {
    double log_accept = log_ratio + log(total / total_new) + shift - shift_new;
    double accept_prob = log_accept >= 0 ? 1 : log_accept < 0 ? exp(log_accept) : 0;
    int made = uniform < accept_prob;
    decision[b] = accept_prob;
    decision[num_chains + b] = made;
    return made;
}

/* noise: (3, B), the block, the move inside it, the decision. decision: (2, B), accept_prob and whether. */
struct sparse_step {
    int64_t chains, blocks, block, sites, num_touched;
    const int64_t *touched;
    const double *coupling, *scale;
    double temperature;
    const double *noise;
    double *signs, *slopes, *weights, *sums, *decision;
};

KERNEL(sparse_step) {
    const struct sparse_step *a = arguments;
    int64_t blocks = a->blocks, size = a->block, num_touched = a->num_touched, num_chains = a->chains;
    double fresh[64];
    (void)thread;
    for (int64_t b = from; b < to; b++) {
        double *sign = a->signs + b * blocks * size, *slope = a->slopes + b * blocks * size;
        double *weights = a->weights + b * blocks * size, *sums = a->sums + b * blocks;
        double total = total_double(sums, blocks);
        int64_t block = first_double(sums, blocks, a->noise[b] * total);
        const double *inside = weights + block * size;
        double threshold = a->noise[num_chains + b] * total_double(inside, size);
        int64_t site = block * size + first_double(inside, size, threshold);
        const int64_t *at = a->touched + site * num_touched;
        const double *pull = a->coupling + site * num_touched;
        double turn = sign[site], step = turn * a->scale[b], growth = 0;
        for (int64_t k = 0; k < num_touched; k++) {
            double s = k ? sign[at[k]] : -turn;
            fresh[k] = exp(s * (slope[at[k]] + pull[k] * step));
            growth += fresh[k] - weights[at[k]];
        }
        if (!decide(turn * slope[site] * (a->temperature - 2), total, total + growth, 0, 0,
                    a->noise[2 * num_chains + b], a->decision, num_chains, b))
            continue;
        sign[site] = -turn;
        for (int64_t k = 0; k < num_touched; k++) {
            slope[at[k]] += pull[k] * step;
            sums[at[k] / size] += fresh[k] - weights[at[k]];
            weights[at[k]] = fresh[k];
        }
    }
}

#define LANES 16

/* LANES generators xoshiro128+ (Blackman and Vigna, 2021) for each of LANES chains, chains innermost. */
typedef struct {
    uint32_t s[4][LANES][LANES];
} Generators;

/* Every chain's generators are filled from its 64-bit seed by splitmix64. */
static void seed_generators(Generators *restrict all, const int64_t *restrict seeds) {
    for (uint64_t i = 0; i < 4 * LANES; i++)
        for (int c = 0; c < LANES; c++) {
            uint64_t z = (uint64_t)seeds[c] + (i + 1) * 0x9E3779B97F4A7C15u;
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
            z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
            all->s[i / LANES][i % LANES][c] = (uint32_t)((z ^ (z >> 31)) >> 32);
        }
}

/* The next number of a generator, in 0..2^24-1. */
static inline int32_t number_of(const Generators *all, int64_t lane, int c) {
    return (int32_t)((all->s[0][lane][c] + all->s[3][lane][c]) >> 8);
}

static inline void go_on(Generators *all, int64_t lane, int c) {
    uint32_t s0 = all->s[0][lane][c], s1 = all->s[1][lane][c], s2 = all->s[2][lane][c], s3 = all->s[3][lane][c];
    uint32_t t = s1 << 9;
    s2 ^= s0;
    s3 ^= s1;
    s1 ^= s2;
    s0 ^= s3;
    all->s[0][lane][c] = s0;
    all->s[1][lane][c] = s1;
    all->s[2][lane][c] = s2 ^ t;
    all->s[3][lane][c] = (s3 << 11) | (s3 >> 21);
}

/* Draws one site of LANES chains, given the logits of being 1, with the numbers of one lane. The less probable of 0 and
 * 1 is drawn where the number lies below its probability times 2^24; a number that falls into the same unit is continued
 * by the generator's next one, so that no probability is rounded. Whose was is marked in `again`; returns whether any. */
static inline int draw_site(Generators *restrict all, int64_t lane, const float *restrict logits, float *restrict site,
                            float *restrict hops, int32_t *restrict again) {
    int32_t numbers[LANES], whole[LANES], any = 0;
    float rare[LANES];
    for (int c = 0; c < LANES; c++) {
        float tail = exp_of_negative(-fabsf(logits[c]));
        rare[c] = tail / (1.0f + tail) * 0x1p24f;
        whole[c] = (int32_t)rare[c];
        int32_t number = number_of(all, lane, c);
        numbers[c] = logits[c] >= 0 ? 0xFFFFFF - number : number;
        any |= numbers[c] == whole[c];
    }
    for (int c = 0; c < LANES; c++) go_on(all, lane, c);
    if (any)
        for (int c = 0; c < LANES; c++)
            if (numbers[c] == whole[c]) {
                numbers[c] -= (float)number_of(all, lane, c) * 0x1p-24f < rare[c] - (float)whole[c];
                again[c] = 1;
            }
    for (int c = 0; c < LANES; c++) {
        float drawn = (numbers[c] < whole[c]) != (logits[c] >= 0);
        hops[c] += fabsf(drawn - site[c]);
        site[c] = drawn;
    }
    return any;
}

/* Draws every site of 0/1 arrays x from its conditional, colour after colour. LANES chains go side by side, so "chains"
 * counts bundles of them; sites are in the order of their colours, and ends[c] is where colour c ends. neighbours and
 * rows are (degree, sites), bias and reference (sites,). */
struct colour_sweep {
    int64_t chains, sites, degree, colours, lanes;
    const int64_t *ends;
    const int32_t *neighbours;
    const float *rows, *bias, *reference, *scale;
    const int64_t *seeds;
    float *hops, *x;
};

/* Up to LANES sites of one colour, j..end-1: each by a lane of its own. */
static void draw_some(const struct colour_sweep *a, Generators *all, int64_t j, int64_t end, const float *scale,
                      float *x, float *hops) {
    int32_t again[LANES] = {0}, any = 0;
    int64_t lane = 0;
    for (; j < end; j++, lane++) {
        float logits[LANES];
        for (int c = 0; c < LANES; c++) logits[c] = a->bias[j];
        for (int64_t k = 0; k < a->degree; k++) {
            const float *other = x + (int64_t)a->neighbours[k * a->sites + j] * LANES, row = a->rows[k * a->sites + j];
            for (int c = 0; c < LANES; c++) logits[c] += row * other[c];
        }
        for (int c = 0; c < LANES; c++) logits[c] = scale[c] * logits[c] + a->reference[j];
        any |= draw_site(all, lane, logits, x + j * LANES, hops, again);
    }
    for (; lane < LANES; lane++)
        for (int c = 0; c < LANES; c++) go_on(all, lane, c);
    if (any)
        for (lane = 0; lane < LANES; lane++)
            for (int c = 0; c < LANES; c++)
                if (again[c]) go_on(all, lane, c);
}

KERNEL(colour_sweep) {
    const struct colour_sweep *a = arguments;
    (void)thread;
    for (int64_t b = from; b < to; b++) {
        float *x = a->x + b * a->sites * LANES, *hops = a->hops + b * LANES;
        Generators all;
        seed_generators(&all, a->seeds + b * LANES);
        for (int c = 0; c < LANES; c++) hops[c] = 0;
        for (int64_t colour = 0, begin = 0; colour < a->colours; begin = a->ends[colour++])
            for (int64_t j = begin, end = a->ends[colour]; j < end; j += LANES)
                draw_some(a, &all, j, j + LANES < end ? j + LANES : end, a->scale + b * LANES, x, hops);
    }
}

#define JOINED(name, real) name##_##real
#define NAMED(name, real) JOINED(name, real)
#define DENSE_BINARY NAMED(dense_binary_step, REAL)
#define DENSE_CATEGORICAL NAMED(dense_categorical_step, REAL)
#define WEIGH NAMED(weigh, REAL)
#define DRAW NAMED(draw, REAL)
#define BINARY_WEIGH NAMED(binary_weigh, REAL)
#define BINARY_PROPOSE NAMED(binary_propose, REAL)
#define BINARY_DECIDE NAMED(binary_decide, REAL)
#define HIDDEN_PROPOSE NAMED(hidden_propose, REAL)
#define HIDDEN_COMMIT NAMED(hidden_commit, REAL)
#define SITE_WEIGHTS NAMED(site_weights, REAL)
#define SITE_DRAWS NAMED(site_draws, REAL)
#define SWEEP_TILE NAMED(sweep_tile, REAL)
#define PAIR_SWEEP NAMED(pair_sweep, REAL)
#define LOGITS NAMED(logits, REAL)
#define EXPONENTIALS NAMED(exponentials, REAL)
#define SIGMOIDS NAMED(sigmoids, REAL)
#define CHANCES NAMED(chances, REAL)
#define LANGEVIN_WEIGH NAMED(langevin_weigh, REAL)
#define LANGEVIN_PROPOSE NAMED(langevin_propose, REAL)
#define LANGEVIN_DECIDE NAMED(langevin_decide, REAL)
#define REST NAMED(rest, REAL)
#define LEFT NAMED(left, REAL)
#define LOG_SHARE NAMED(log_share, REAL)
#define PATH_PROPOSE NAMED(path_propose, REAL)
#define PATH_DECIDE NAMED(path_decide, REAL)
#define HALF_WAY NAMED(half_way, REAL)
#define DENSE_FOLLOW NAMED(dense_follow, REAL)
#define SPARSE_FOLLOW NAMED(sparse_follow, REAL)
#define HIDDEN_FOLLOW NAMED(hidden_follow, REAL)
#define TOTAL_REAL NAMED(total, REAL)
#define FIRST_REAL NAMED(first, REAL)

#define TILE 16 /* chains of a sweep of dense pairs that go together */
#define REAL float
#define EXP exp_of_negative
#include "all_moves.h"
#include "pair_sweep.h"
#include "many_sites.h"
#undef REAL
#undef EXP
#define REAL double
#define EXP exp
#include "all_moves.h"
#include "pair_sweep.h"
#include "many_sites.h"
