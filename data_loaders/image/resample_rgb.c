/* The horizontal pass for RGB by AVX-512's shuffles; without them no plan is made and resample.c goes its own way. */
#include "data_loaders/image/resample_rgb.h"

#include <stdlib.h>
#include <string.h>

#ifdef __AVX512BW__
#include <immintrin.h>

/* A group is 5 pixels of 3 channels: 15 of a vector's 16 sums. A sum adds up pairs of taps, each in two neighbouring
 * lanes of 16 bits, as vpmaddwd wants them. */
enum { GROUP = 5, LANES = 32, WINDOW = 64 /* numbers that one shuffle reaches */, TAPS_MOST = 8 };

static size_t pairs_of(size_t taps)
{
    return (taps + 1) / 2;
}

static bool grow(struct resample_rgb *plan, size_t bytes)
{
    if (bytes <= plan->capacity)
        return true;
    free(plan->tables);
    plan->tables = aligned_alloc(64, bytes);
    plan->capacity = plan->tables ? bytes : 0;
    return plan->tables != NULL;
}

/* Taps 2 * pair and 2 * pair + 1 of one group; lanes without a tap take any number with weight 0. */
static bool fill_tables(int16_t *index, int16_t *weight, const struct resample_rgb *plan, const int16_t *weights,
                        size_t group, size_t pair)
{
    const int32_t base = plan->first[group * GROUP];
    memset(index, 0, LANES * sizeof *index);
    memset(weight, 0, LANES * sizeof *weight);
    for (size_t p = 0; p < GROUP && group * GROUP + p < plan->size; p++) {
        size_t x = group * GROUP + p;
        int32_t at = 3 * (plan->first[x] - base + (int32_t)(2 * pair));
        if (at + 5 >= WINDOW)
            return false;
        for (int32_t c = 0; c < 3; c++) {
            size_t lane = 6 * p + 2 * (size_t)c;
            index[lane] = (int16_t)(at + c);
            weight[lane] = weights[x * plan->taps + 2 * pair];
            if (2 * pair + 1 < plan->taps) {
                index[lane + 1] = (int16_t)(at + 3 + c);
                weight[lane + 1] = weights[x * plan->taps + 2 * pair + 1];
            }
        }
    }
    return true;
}

bool resample_rgb_plan(struct resample_rgb *plan, const int32_t *first, const int16_t *weight, size_t taps, size_t size)
{
    const size_t groups = (size + GROUP - 1) / GROUP, pairs = pairs_of(taps);
    if (taps > TAPS_MOST || !grow(plan, groups * pairs * 2 * LANES * sizeof *plan->tables))
        return false;
    plan->size = size;
    plan->taps = taps;
    plan->first = first;
    int16_t *table = plan->tables;
    for (size_t group = 0; group < groups; group++)
        for (size_t pair = 0; pair < pairs; pair++, table += 2 * LANES)
            if (!fill_tables(table, table + LANES, plan, weight, group, pair))
                return false;
    return true;
}

static inline __attribute__((always_inline)) __m128i group_of(const int16_t *row, const int16_t *table, size_t pairs,
                                                              int bits)
{
    const __m512i low = _mm512_loadu_si512(row), high = _mm512_loadu_si512(row + LANES);
    __m512i sum = _mm512_set1_epi32(1 << (bits - 1));
    for (size_t pair = 0; pair < pairs; pair++, table += 2 * LANES) {
        __m512i taps = _mm512_permutex2var_epi16(low, _mm512_load_si512(table), high);
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(taps, _mm512_load_si512(table + LANES)));
    }
    return _mm512_cvtepi32_epi8(_mm512_srli_epi32(sum, (unsigned)bits));
}

static inline __attribute__((always_inline)) void whole_row(const struct resample_rgb *plan, uint8_t *out,
                                                            const int16_t *row, size_t pairs, int bits)
{
    const int16_t *table = plan->tables;
    size_t x = 0;
    for (; x + GROUP < plan->size; x += GROUP, table += pairs * 2 * LANES) {
        __m128i pixels = group_of(row + 3 * (size_t)plan->first[x], table, pairs, bits);
        memcpy(out + 3 * x, &pixels, sizeof pixels); /* the 16th byte is overwritten by the next group */
    }
    __m128i pixels = group_of(row + 3 * (size_t)plan->first[x], table, pairs, bits);
    memcpy(out + 3 * x, &pixels, 3 * (plan->size - x));
}

/* The number of pairs is a constant at the calls that matter, so that the sums unroll. */
void resample_rgb_row(const struct resample_rgb *plan, uint8_t *out, const int16_t *row, int bits)
{
    switch (pairs_of(plan->taps)) {
    case 1:
        whole_row(plan, out, row, 1, bits);
        break;
    case 2:
        whole_row(plan, out, row, 2, bits);
        break;
    default:
        whole_row(plan, out, row, pairs_of(plan->taps), bits);
    }
}

#else

bool resample_rgb_plan(struct resample_rgb *plan, const int32_t *first, const int16_t *weight, size_t taps, size_t size)
{
    (void)plan, (void)first, (void)weight, (void)taps, (void)size;
    return false;
}

void resample_rgb_row(const struct resample_rgb *plan, uint8_t *out, const int16_t *row, int bits)
{
    (void)plan, (void)out, (void)row, (void)bits;
}

#endif
