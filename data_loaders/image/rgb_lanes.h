/* Eight RGB pixels side by side: their luminance, and their 24 numbers as three vectors of eight. */
#ifndef QUEST_DATA_LOADERS_IMAGE_RGB_LANES_H
#define QUEST_DATA_LOADERS_IMAGE_RGB_LANES_H

#include <stddef.h>
#include <stdint.h>

#include "data_loaders/image/lanes.h"

typedef float floats8 __attribute__((vector_size(32)));

enum { RGB_LANES = 8, RGB_LANES_READ = 10 /* pixels that must be readable for eight */ };

/* Luminance of 8 pixels (blend.h). Weights are int16 for the products of pairs, so that of green is halved and green
 * taken twice. */
static inline __attribute__((always_inline)) words8 luminance8(const uint8_t *pixels)
{
#ifdef __AVX2__
    const __m256i red_green =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 1, -1, 3, -1, 4, -1, 6, -1, 7, -1, 9, -1, 10, -1));
    const __m256i green_blue =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(1, -1, 2, -1, 4, -1, 5, -1, 7, -1, 8, -1, 10, -1, 11, -1));
    const __m256i first_weights = _mm256_set1_epi32(19235 << 16 | 19595),
                  last_weights = _mm256_set1_epi32(7471 << 16 | 19235);
    __m256i bytes = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)pixels)),
                                            _mm_loadu_si128((const __m128i *)(pixels + 12)), 1);
    __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(_mm256_shuffle_epi8(bytes, red_green), first_weights),
                                   _mm256_madd_epi16(_mm256_shuffle_epi8(bytes, green_blue), last_weights));
    return (words8)_mm256_srli_epi32(_mm256_add_epi32(sum, _mm256_set1_epi32(32768)), 16);
#else
    words8 grey = {0};
    for (int i = 0; i < RGB_LANES; i++, pixels += 3)
        grey[i] = (19595u * pixels[0] + 38470u * pixels[1] + 7471u * pixels[2] + 32768u) >> 16;
    return grey;
#endif
}

/* One number a pixel, for each of its three channels. */
static inline __attribute__((always_inline)) void spread_rgb8(floats8 numbers[3], floats8 pixels)
{
    numbers[0] = __builtin_shufflevector(pixels, pixels, 0, 0, 0, 1, 1, 1, 2, 2);
    numbers[1] = __builtin_shufflevector(pixels, pixels, 2, 3, 3, 3, 4, 4, 4, 5);
    numbers[2] = __builtin_shufflevector(pixels, pixels, 5, 5, 6, 6, 6, 7, 7, 7);
}

/* to[0 .. 24) = the numbers, truncated and clamped. */
static inline __attribute__((always_inline)) void store_rgb8(uint8_t *to, const floats8 numbers[3])
{
#ifdef __AVX2__
    __m256i first =
        _mm256_packs_epi32(_mm256_cvttps_epi32((__m256)numbers[0]), _mm256_cvttps_epi32((__m256)numbers[1]));
    __m256i last = _mm256_cvttps_epi32((__m256)numbers[2]);
    __m256i bytes = _mm256_packus_epi16(first, _mm256_packs_epi32(last, last));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(bytes));
    _mm_storel_epi64((__m128i *)(to + 16), _mm256_extracti128_si256(bytes, 1));
#else
    for (int part = 0; part < 3; part++)
        for (int i = 0; i < RGB_LANES; i++) {
            float number = numbers[part][i];
            to[RGB_LANES * part + i] = (uint8_t)(int32_t)(number < 0 ? 0 : number > 255 ? 255 : number);
        }
#endif
}

#endif
