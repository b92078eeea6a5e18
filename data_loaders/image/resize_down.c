/* Pillow's pass down the columns by AVX2 (resize_down.h). */
#include "data_loaders/image/resize_down.h"

#include "data_loaders/image/lanes.h"

#ifdef __AVX2__
enum { LOW_BITS = 11, NUMBERS = 32, QUARTERS = 4 /* vectors of int32 sums */ };

/* The weights of two rows for each pair of int16: the high parts, the low ones. */
struct pair {
    __m256i high, low;
};

static inline struct pair pair_of(const int32_t *weight, size_t left)
{
    const int32_t mask = (1 << LOW_BITS) - 1, second = left > 1 ? weight[1] : 0;
    uint32_t high = (uint32_t)(second >> LOW_BITS) << 16 | (uint16_t)(weight[0] >> LOW_BITS);
    uint32_t low = (uint32_t)(second & mask) << 16 | (uint32_t)(weight[0] & mask);
    return (struct pair){_mm256_set1_epi32((int32_t)high), _mm256_set1_epi32((int32_t)low)};
}

static inline __m256i load(const uint8_t *from)
{
    return _mm256_loadu_si256((const __m256i *)from);
}

/* The sums of one vector of numbers. Unpacking mixes the order of the quarters, packing restores it. */
static inline __attribute__((always_inline)) __m256i vector_of(const uint8_t *row, size_t stride,
                                                               const struct pair *pairs, size_t taps, int bits)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i high[QUARTERS], low[QUARTERS];
    for (size_t q = 0; q < QUARTERS; q++) {
        high[q] = zero;
        low[q] = _mm256_set1_epi32(1 << (bits - 1));
    }
    for (size_t t = 0; t < taps; t += 2, row += 2 * stride, pairs++) {
        __m256i one = load(row), other = t + 1 < taps ? load(row + stride) : one;
        __m256i first = _mm256_unpacklo_epi8(one, other), last = _mm256_unpackhi_epi8(one, other);
        __m256i quarter[QUARTERS] = {_mm256_unpacklo_epi8(first, zero), _mm256_unpackhi_epi8(first, zero),
                                     _mm256_unpacklo_epi8(last, zero), _mm256_unpackhi_epi8(last, zero)};
        for (size_t q = 0; q < QUARTERS; q++) {
            high[q] = add_products(high[q], quarter[q], pairs->high);
            low[q] = add_products(low[q], quarter[q], pairs->low);
        }
    }
    for (size_t q = 0; q < QUARTERS; q++)
        low[q] = _mm256_srai_epi32(_mm256_add_epi32(_mm256_slli_epi32(high[q], LOW_BITS), low[q]), bits);
    return _mm256_packus_epi16(_mm256_packs_epi32(low[0], low[1]), _mm256_packs_epi32(low[2], low[3]));
}

static inline __attribute__((always_inline)) size_t whole_vectors(uint8_t *out, const uint8_t *row, size_t stride,
                                                                  const struct pair *pairs, size_t taps, size_t count,
                                                                  int bits)
{
    size_t i = 0;
    for (; i + NUMBERS <= count; i += NUMBERS)
        _mm256_storeu_si256((__m256i *)(out + i), vector_of(row + i, stride, pairs, taps, bits));
    return i;
}

/* The number of taps is a constant at the calls that matter, so that the sums unroll. */
size_t resize_down(uint8_t *out, const uint8_t *first_row, size_t stride, const int32_t *weight, size_t taps,
                   size_t count, int bits)
{
    struct pair pairs[(taps + 1) / 2];
    for (size_t t = 0; t < taps; t += 2)
        pairs[t / 2] = pair_of(weight + t, taps - t);
    switch (taps) {
    case 4: /* enlarging */
        return whole_vectors(out, first_row, stride, pairs, 4, count, bits);
    case 5:
        return whole_vectors(out, first_row, stride, pairs, 5, count, bits);
    case 6:
        return whole_vectors(out, first_row, stride, pairs, 6, count, bits);
    default:
        return whole_vectors(out, first_row, stride, pairs, taps, count, bits);
    }
}

#else

size_t resize_down(uint8_t *out, const uint8_t *first_row, size_t stride, const int32_t *weight, size_t taps,
                   size_t count, int bits)
{
    (void)out, (void)first_row, (void)stride, (void)weight, (void)taps, (void)count, (void)bits;
    return 0;
}

#endif
