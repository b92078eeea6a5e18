/* Pillow's pass along RGB rows by AVX-512 (resize_rgb_wide.h). */
#include "data_loaders/image/resize_rgb_wide.h"

#include <stdlib.h>
#include <string.h>

#if defined __AVX512VBMI__ && defined __AVX512VNNI__
#include <immintrin.h>

enum { GROUP = 5, TAPS = 4, BYTES = 64, DIGITS = 3, TABLES = 1 + DIGITS };

/* A sum of four products a number: which bytes, and the digits of their weights. Numbers without a tap have weight 0.
 */
static bool fill(uint8_t *tables, const struct resize_rgb_wide *plan, const int32_t *weight, size_t taps, size_t group,
                 size_t tap)
{
    const int32_t base = plan->first[group * GROUP];
    for (size_t p = 0; p < GROUP && group * GROUP + p < plan->size; p++) {
        const size_t x = group * GROUP + p;
        for (size_t t = 0; t < TAPS && tap + t < taps; t++) {
            size_t from = 3 * ((size_t)(plan->first[x] - base) + t);
            if (from + 2 >= BYTES)
                return false;
            int32_t rest = weight[x * taps + tap + t];
            for (size_t digit = 0; digit < DIGITS; digit++) {
                int8_t low = (int8_t)(uint8_t)(rest & 255);
                for (size_t c = 0; c < 3; c++) {
                    tables[TAPS * (3 * p + c) + t] = (uint8_t)(from + c);
                    tables[(1 + digit) * BYTES + TAPS * (3 * p + c) + t] = (uint8_t)low;
                }
                rest = (rest - low) / 256;
            }
        }
    }
    return true;
}

static bool grow(struct resize_rgb_wide *plan, size_t bytes)
{
    if (bytes <= plan->capacity)
        return true;
    free(plan->tables);
    plan->tables = aligned_alloc(BYTES, bytes);
    plan->capacity = plan->tables ? bytes : 0;
    return plan->tables != NULL;
}

bool resize_rgb_wide_plan(struct resize_rgb_wide *plan, const int32_t *first, const int32_t *weight, size_t taps,
                          size_t size)
{
    const size_t groups = (size + GROUP - 1) / GROUP;
    plan->tap_groups = (taps + TAPS - 1) / TAPS;
    plan->size = size;
    plan->first = first;
    if (!grow(plan, groups * plan->tap_groups * TABLES * BYTES))
        return false;
    memset(plan->tables, 0, groups * plan->tap_groups * TABLES * BYTES);
    uint8_t *tables = plan->tables;
    for (size_t group = 0; group < groups; group++)
        for (size_t tap = 0; tap < taps; tap += TAPS, tables += TABLES * BYTES)
            if (!fill(tables, plan, weight, taps, group, tap))
                return false;
    return true;
}

void resize_rgb_wide_release(struct resize_rgb_wide *plan)
{
    free(plan->tables);
}

/* Five pixels, and one byte of nothing. */
static inline __attribute__((always_inline)) __m128i group_of(const uint8_t *row, const uint8_t *tables,
                                                              size_t tap_groups, int bits)
{
    __m512i sum[DIGITS] = {_mm512_set1_epi32(1 << (bits - 1)), _mm512_setzero_si512(), _mm512_setzero_si512()};
    for (size_t group = 0; group < tap_groups; group++, tables += TABLES * BYTES, row += 3 * TAPS) {
        __m512i taps = _mm512_permutexvar_epi8(_mm512_load_si512(tables), _mm512_loadu_si512(row));
        for (size_t digit = 0; digit < DIGITS; digit++)
            sum[digit] = _mm512_dpbusd_epi32(sum[digit], taps, _mm512_load_si512(tables + (1 + digit) * BYTES));
    }
    __m512i high = _mm512_add_epi32(_mm512_slli_epi32(sum[2], 16), _mm512_slli_epi32(sum[1], 8));
    __m512i value = _mm512_srai_epi32(_mm512_add_epi32(high, sum[0]), (unsigned)bits);
    return _mm512_cvtusepi32_epi8(_mm512_max_epi32(value, _mm512_setzero_si512()));
}

static inline __attribute__((always_inline)) void whole_row(const struct resize_rgb_wide *plan, uint8_t *out,
                                                            const uint8_t *row, size_t tap_groups, int bits)
{
    const uint8_t *tables = plan->tables;
    for (size_t x = 0; x < plan->size; x += GROUP, tables += tap_groups * TABLES * BYTES)
        _mm_storeu_si128((__m128i *)(out + 3 * x),
                         group_of(row + 3 * (size_t)plan->first[x], tables, tap_groups, bits));
}

/* The number of groups is a constant at the calls that matter, so that the sums unroll. */
void resize_rgb_wide_row(const struct resize_rgb_wide *plan, uint8_t *out, const uint8_t *row, int bits)
{
    switch (plan->tap_groups) {
    case 1:
        whole_row(plan, out, row, 1, bits);
        break;
    case 2:
        whole_row(plan, out, row, 2, bits);
        break;
    default:
        whole_row(plan, out, row, plan->tap_groups, bits);
    }
}

#else

bool resize_rgb_wide_plan(struct resize_rgb_wide *plan, const int32_t *first, const int32_t *weight, size_t taps,
                          size_t size)
{
    (void)plan, (void)first, (void)weight, (void)taps, (void)size;
    return false;
}

void resize_rgb_wide_row(const struct resize_rgb_wide *plan, uint8_t *out, const uint8_t *row, int bits)
{
    (void)plan, (void)out, (void)row, (void)bits;
}

void resize_rgb_wide_release(struct resize_rgb_wide *plan)
{
    (void)plan;
}

#endif
