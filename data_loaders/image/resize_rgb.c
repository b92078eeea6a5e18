/* Pillow's pass along RGB rows by AVX2 (resize_rgb.h). */
#include "data_loaders/image/resize_rgb.h"

#include <stdlib.h>
#include <string.h>

#include "data_loaders/image/lanes.h"

#ifdef __AVX2__
enum { LANES = 16, LOW_BITS = 11, GROUP = 4 /* taps of one load: 12 of 16 bytes */ };

/* Both halves of a vector are one pixel: its channels three times two taps, then nothing. */
static void fill(int16_t *weights, const int32_t *pixel, size_t taps, size_t tap, size_t half)
{
    for (size_t t = 0; t < 2; t++) {
        int32_t weight = tap + t < taps ? pixel[tap + t] : 0;
        int16_t high = (int16_t)(weight >> LOW_BITS), low = (int16_t)(weight & ((1 << LOW_BITS) - 1));
        for (size_t c = 0; c < 3; c++) {
            weights[8 * half + 2 * c + t] = high;
            weights[LANES + 8 * half + 2 * c + t] = low;
        }
    }
}

bool resize_rgb_plan(struct resize_rgb *plan, const int32_t *first, const int32_t *weight, size_t taps, size_t size)
{
    size_t groups = (taps + GROUP - 1) / GROUP, pixel_pairs = (size + 1) / 2;
    size_t bytes = pixel_pairs * groups * 4 * LANES * sizeof *plan->weights;
    if (bytes > plan->capacity) {
        free(plan->weights);
        plan->weights = aligned_alloc(32, bytes);
        plan->capacity = plan->weights ? bytes : 0;
    }
    if (!plan->weights)
        return false;
    memset(plan->weights, 0, bytes);
    plan->size = size;
    plan->groups = groups;
    plan->first = first;
    for (size_t x = 0; x < size; x++)
        for (size_t tap = 0; tap < GROUP * groups; tap += 2)
            fill(plan->weights + ((x / 2 * groups + tap / GROUP) * 2 + tap / 2 % 2) * 2 * LANES, weight + x * taps,
                 taps, tap, x % 2);
    return true;
}

void resize_rgb_release(struct resize_rgb *plan)
{
    free(plan->weights);
}

/* Sums of two pixels: numbers 0 to 2 of each half. */
static inline __attribute__((always_inline)) __m256i pixel_pair(const uint8_t *left, const uint8_t *right,
                                                                const int16_t *weights, size_t groups, int bits)
{
    const __m256i first_taps =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
    const __m256i last_taps =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
    __m256i high = _mm256_setzero_si256(), low = _mm256_set1_epi32(1 << (bits - 1));
    for (size_t group = 0; group < groups; group++, weights += 4 * LANES) {
        __m256i bytes = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(left + 3 * GROUP * group))),
            _mm_loadu_si128((const __m128i *)(right + 3 * GROUP * group)), 1);
        __m256i taps = _mm256_shuffle_epi8(bytes, first_taps);
        high = add_products(high, taps, _mm256_load_si256((const __m256i *)weights));
        low = add_products(low, taps, _mm256_load_si256((const __m256i *)(weights + LANES)));
        taps = _mm256_shuffle_epi8(bytes, last_taps);
        high = add_products(high, taps, _mm256_load_si256((const __m256i *)(weights + 2 * LANES)));
        low = add_products(low, taps, _mm256_load_si256((const __m256i *)(weights + 3 * LANES)));
    }
    __m256i sum = _mm256_srai_epi32(_mm256_add_epi32(_mm256_slli_epi32(high, LOW_BITS), low), bits);
    sum = _mm256_packs_epi32(sum, sum);
    return _mm256_packus_epi16(sum, sum);
}

static inline void store(uint8_t *out, __m128i pixel)
{
    int32_t bytes = _mm_cvtsi128_si32(pixel);
    memcpy(out, &bytes, sizeof bytes); /* the fourth is overwritten by the next pixel */
}

static inline __attribute__((always_inline)) void whole_row(const struct resize_rgb *plan, uint8_t *out,
                                                            const uint8_t *row, size_t groups, int bits)
{
    const int16_t *weights = plan->weights;
    for (size_t x = 0; x < plan->size; x += 2, weights += groups * 4 * LANES) {
        const uint8_t *left = row + 3 * (size_t)plan->first[x];
        const uint8_t *right = x + 1 < plan->size ? row + 3 * (size_t)plan->first[x + 1] : left;
        __m256i pixels = pixel_pair(left, right, weights, groups, bits);
        store(out + 3 * x, _mm256_castsi256_si128(pixels));
        store(out + 3 * x + 3, _mm256_extracti128_si256(pixels, 1));
    }
}

/* The number of groups is a constant at the calls that matter, so that the sums unroll. */
void resize_rgb_row(const struct resize_rgb *plan, uint8_t *out, const uint8_t *row, int bits)
{
    switch (plan->groups) {
    case 1:
        whole_row(plan, out, row, 1, bits);
        break;
    case 2:
        whole_row(plan, out, row, 2, bits);
        break;
    default:
        whole_row(plan, out, row, plan->groups, bits);
    }
}

#else

bool resize_rgb_plan(struct resize_rgb *plan, const int32_t *first, const int32_t *weight, size_t taps, size_t size)
{
    (void)plan, (void)first, (void)weight, (void)taps, (void)size;
    return false;
}

void resize_rgb_row(const struct resize_rgb *plan, uint8_t *out, const uint8_t *row, int bits)
{
    (void)plan, (void)out, (void)row, (void)bits;
}

void resize_rgb_release(struct resize_rgb *plan)
{
    (void)plan;
}

#endif
