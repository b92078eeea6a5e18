/* One vector register of floats, as wide as -march allows, and the multiply-add of the attention kernels.
 *
 * gcc's vector types give load, store, +, * and comparisons on any CPU; only what C cannot express is an intrinsic
 * here.
 * (-std=c11 forbids gcc to contract a * b + c, so even the fused multiply-add has to be asked for.)
 *
 * A *cell* is four bytes: one float32, or two neighbouring bfloat16 whose products go into the same sum. With that word
 * one kernel serves both types: it broadcasts a cell, loads a vector of cells and calls vector_dot. */
#ifndef QUEST_KERNELS_CPU_VECTOR_H
#define QUEST_KERNELS_CPU_VECTOR_H

#include "kernels/bfloat16.h"
#include "kernels/cpu/vector_math.h"

#ifdef __SSE__
#include <immintrin.h>
#endif

/* BLOCK_ROWS x 2 accumulators, two vectors of B and one of A must fit into the registers: 32 of them with AVX-512, 16
 * with AVX2. */
#ifndef __AVX__
#pragma GCC diagnostic ignored "-Wpsabi" /* says that wide vectors are passed in memory; none are, all is inlined */
#endif

#ifdef __AVX512F__
enum { VECTOR_FLOATS = 16, BLOCK_ROWS = 14 };
#else
enum { VECTOR_FLOATS = 8, BLOCK_ROWS = 6 };
#endif

typedef float cell __attribute__((may_alias));
typedef float vector __attribute__((vector_size(VECTOR_FLOATS * sizeof(float)), may_alias));
typedef uint32_t vector_bits __attribute__((vector_size(VECTOR_FLOATS * sizeof(uint32_t)), may_alias));
typedef uint16_t vector_halves __attribute__((vector_size(VECTOR_FLOATS * sizeof(uint16_t)), may_alias));

ALWAYS_INLINE vector vector_load(const float *x)
{
    vector loaded;
    memcpy(&loaded, x, sizeof loaded);
    return loaded;
}

ALWAYS_INLINE void vector_store(float *x, vector value)
{
    memcpy(x, &value, sizeof value);
}

/* Numbers of type T, i on, as floats and back. */
ALWAYS_INLINE vector vector_load_as(const void *x, size_t i, enum dtype dtype)
{
    if (dtype == DTYPE_FLOAT32)
        return vector_load((const float *)x + i);
    vector_halves halves;
    memcpy(&halves, (const uint16_t *)x + i, sizeof halves);
    return (vector)(__builtin_convertvector(halves, vector_bits) << 16);
}

ALWAYS_INLINE void vector_store_as(void *x, size_t i, vector value, enum dtype dtype)
{
    if (dtype == DTYPE_FLOAT32) {
        vector_store((float *)x + i, value);
        return;
    }
#ifdef __AVX512BF16__
    __m256bh halves = _mm512_cvtneps_pbh((__m512)value);
    memcpy((uint16_t *)x + i, &halves, sizeof halves);
#else
    for (int lane = 0; lane < VECTOR_FLOATS; lane++)
        ((uint16_t *)x)[i + (size_t)lane] = bf16_from_float(value[lane]);
#endif
}

/* The first half of a vector's numbers alone, and zeros; for rows whose length is an odd multiple of half a vector. */
enum { HALF_VECTOR = VECTOR_FLOATS / 2 };

ALWAYS_INLINE vector vector_load_half_as(const void *x, size_t i, enum dtype dtype)
{
    float numbers[VECTOR_FLOATS] = {0};
    uint16_t halves[VECTOR_FLOATS] = {0};
    if (dtype == DTYPE_FLOAT32) {
        memcpy(numbers, (const float *)x + i, HALF_VECTOR * sizeof *numbers);
        return vector_load_as(numbers, 0, DTYPE_FLOAT32);
    }
    memcpy(halves, (const uint16_t *)x + i, HALF_VECTOR * sizeof *halves);
    return vector_load_as(halves, 0, DTYPE_BFLOAT16);
}

ALWAYS_INLINE void vector_store_half_as(void *x, size_t i, vector value, enum dtype dtype)
{
    float numbers[VECTOR_FLOATS];
    uint16_t halves[VECTOR_FLOATS];
    if (dtype == DTYPE_FLOAT32) {
        vector_store_as(numbers, 0, value, DTYPE_FLOAT32);
        memcpy((float *)x + i, numbers, HALF_VECTOR * sizeof *numbers);
    } else {
        vector_store_as(halves, 0, value, DTYPE_BFLOAT16);
        memcpy((uint16_t *)x + i, halves, HALF_VECTOR * sizeof *halves);
    }
}

ALWAYS_INLINE vector vector_broadcast(float x)
{
#ifdef __AVX512F__
    return (vector)_mm512_set1_ps(x);
#else
    return x - (vector){0};
#endif
}

/* b where one of them is NaN. */
ALWAYS_INLINE vector vector_maximum(vector a, vector b)
{
#ifdef __AVX512F__
    return (vector)_mm512_max_ps((__m512)a, (__m512)b);
#else
    vector_bits larger = (vector_bits)(a > b);
    return (vector)((larger & (vector_bits)a) | (~larger & (vector_bits)b));
#endif
}

/* The sum of all lanes. */
ALWAYS_INLINE float vector_sum(vector x)
{
#ifdef __AVX512F__
    return _mm512_reduce_add_ps((__m512)x);
#else
    float sum = 0;
    for (int lane = 0; lane < VECTOR_FLOATS; lane++)
        sum += x[lane];
    return sum;
#endif
}

/* a * b + c */
ALWAYS_INLINE vector vector_multiply_add(vector a, vector b, vector c)
{
#ifdef __AVX512F__
    return (vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__) && defined(__FMA__)
    return (vector)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

/* c + the product of the cells of a and b: of one float32, or of two bfloat16. */
ALWAYS_INLINE vector vector_dot(vector a, vector b, vector c, enum dtype dtype)
{
    if (dtype == DTYPE_FLOAT32)
        return vector_multiply_add(a, b, c);
#ifdef __AVX512BF16__
    return (vector)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
#else
    vector_bits left = (vector_bits)a, right = (vector_bits)b;
    c = vector_multiply_add((vector)(left << 16), (vector)(right << 16), c);
    return vector_multiply_add((vector)(left & 0xffff0000u), (vector)(right & 0xffff0000u), c);
#endif
}

/* Cells of pairs: the low numbers and the high numbers, rounded to bfloat16. */
ALWAYS_INLINE vector vector_round_pairs(vector low, vector high)
{
#ifdef __AVX512BF16__
    __m512i halves = (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
    __m512i low_words = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(halves));
    __m512i high_words = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(halves, 1));
    return (vector)_mm512_or_si512(low_words, _mm512_slli_epi32(high_words, 16));
#else
    vector_bits pairs;
    for (int lane = 0; lane < VECTOR_FLOATS; lane++)
        pairs[lane] = bf16_from_float(low[lane]) | (uint32_t)bf16_from_float(high[lane]) << 16;
    return (vector)pairs;
#endif
}

/* e^x of every lane; x at most 88. With AVX-512 in 12 instructions where vector_exp takes 17: scalef multiplies by 2^n
 * whatever n is, so that no case has to be told apart. e^r on |r| <= ln 2 / 2 by its minimax polynomial of relative
 * error 1.9e-9 (Remez), in all 1 ulp or so; NaN for NaN, 0 below -104. */
ALWAYS_INLINE vector vector_exponential(vector x)
{
#ifdef __AVX512F__
    const __m512 lowest = _mm512_set1_ps(-1e5f); /* -infinity would give infinity - infinity below */
    __m512 inside = _mm512_max_ps(lowest, (__m512)x);
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(inside, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0.693359375f), inside);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.383683575e-3f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.374824051e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.166822619e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.666642007e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.999999208e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return (vector)_mm512_scalef_ps(p, n);
#else
    for (int lane = 0; lane < VECTOR_FLOATS; lane++)
        x[lane] = vector_exp(x[lane]);
    return x;
#endif
}

#endif
