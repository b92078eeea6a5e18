/* Bytes to vectors of wider numbers and back. gcc 12 makes scalar code of __builtin_convertvector where the narrow side
 * has fewer than 16 bytes, so these are written out for AVX2; elsewhere the compiler does what it can. */
#ifndef QUEST_DATA_LOADERS_IMAGE_LANES_H
#define QUEST_DATA_LOADERS_IMAGE_LANES_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX2__
#include <immintrin.h>
#endif

typedef double doubles4 __attribute__((vector_size(32)));
typedef int64_t longs4 __attribute__((vector_size(32)));
typedef int32_t integers4 __attribute__((vector_size(16)));
typedef uint32_t words8 __attribute__((vector_size(32)));
typedef int32_t integers8 __attribute__((vector_size(32)));

static inline __attribute__((always_inline)) doubles4 floor4(doubles4 value)
{
#ifdef __AVX2__
    return (doubles4)_mm256_floor_pd((__m256d)value);
#else
    return (doubles4){floor(value[0]), floor(value[1]), floor(value[2]), floor(value[3])};
#endif
}

/* Of whole numbers. */
static inline __attribute__((always_inline)) integers4 integers_of(doubles4 value)
{
#ifdef __AVX2__
    return (integers4)_mm256_cvttpd_epi32((__m256d)value);
#else
    return (integers4){(int32_t)value[0], (int32_t)value[1], (int32_t)value[2], (int32_t)value[3]};
#endif
}

/* from[0 .. 4). */
static inline __attribute__((always_inline)) doubles4 load_doubles4(const uint8_t *from)
{
#ifdef __AVX2__
    return (doubles4)_mm256_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_loadu_si32(from)));
#else
    return (doubles4){from[0], from[1], from[2], from[3]};
#endif
}

/* to[0 .. 4) = value, truncated and clamped. */
static inline __attribute__((always_inline)) void store_doubles4(uint8_t *to, doubles4 value)
{
#ifdef __AVX2__
    __m128i whole = _mm256_cvttpd_epi32((__m256d)value);
    whole = _mm_packs_epi32(whole, whole);
    int32_t bytes = _mm_cvtsi128_si32(_mm_packus_epi16(whole, whole));
    memcpy(to, &bytes, sizeof bytes);
#else
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value[i] <= 0 ? 0 : value[i] >= 255 ? 255 : value[i]);
#endif
}

/* Four of eight int32: those of half 0 or of half 1. */
static inline __attribute__((always_inline)) doubles4 half_of(integers8 value, size_t half)
{
#ifdef __AVX2__
    return (doubles4)_mm256_cvtepi32_pd(half == 0 ? _mm256_castsi256_si128((__m256i)value)
                                                  : _mm256_extracti128_si256((__m256i)value, 1));
#else
    return (doubles4){value[4 * half], value[4 * half + 1], value[4 * half + 2], value[4 * half + 3]};
#endif
}

/* from[0 .. 8). */
static inline __attribute__((always_inline)) words8 load_words8(const uint8_t *from)
{
#ifdef __AVX2__
    return (words8)_mm256_cvtepu8_epi32(_mm_loadu_si64(from));
#else
    return (words8){from[0], from[1], from[2], from[3], from[4], from[5], from[6], from[7]};
#endif
}

/* to[0 .. 8) = value, which is below 256. */
static inline __attribute__((always_inline)) void store_words8(uint8_t *to, words8 value)
{
#ifdef __AVX2__
    __m256i all = (__m256i)value;
    __m128i halves = _mm_packus_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    _mm_storel_epi64((__m128i *)to, _mm_packus_epi16(halves, halves));
#else
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)value[i];
#endif
}

#ifdef __AVX2__
/* sums[i] + a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1] of int16 numbers, in int32. */
static inline __attribute__((always_inline)) __m256i add_products(__m256i sums, __m256i a, __m256i b)
{
#if defined __AVX512VNNI__ && defined __AVX512VL__
    return _mm256_dpwssd_epi32(sums, a, b);
#else
    return _mm256_add_epi32(sums, _mm256_madd_epi16(a, b));
#endif
}
#endif

#ifdef __AVX512VBMI__
/* bytes[i] = table[bytes[i]] for `count` numbers: tables of 256 beat arithmetic where 128 of them are one instruction.
 */
static inline void look_up_bytes(uint8_t *bytes, size_t count, const uint8_t table[256])
{
    const __m512i a = _mm512_loadu_si512(table), b = _mm512_loadu_si512(table + 64),
                  c = _mm512_loadu_si512(table + 128), d = _mm512_loadu_si512(table + 192);
    size_t i = 0;
    for (; i + 64 <= count; i += 64) {
        __m512i at = _mm512_loadu_si512(bytes + i);
        __m512i low = _mm512_permutex2var_epi8(a, at, b), high = _mm512_permutex2var_epi8(c, at, d);
        _mm512_storeu_si512(bytes + i, _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(at), high));
    }
    for (; i < count; i++)
        bytes[i] = table[bytes[i]];
}
#endif

#endif
