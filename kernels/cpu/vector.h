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

#include "kernels/cpu/bf16.h"

#ifdef __SSE__
#include <immintrin.h>
#endif

/* BLOCK_ROWS x 2 accumulators, two vectors of B and one of A must fit into the registers: 32 of them with AVX-512, 16
 * with AVX2. */
#ifdef __AVX512F__
enum { VECTOR_FLOATS = 16, BLOCK_ROWS = 14 };
#else
enum { VECTOR_FLOATS = 8, BLOCK_ROWS = 6 };
#endif

typedef float cell __attribute__((may_alias));
typedef float vector __attribute__((vector_size(VECTOR_FLOATS * sizeof(float)), may_alias));
typedef uint32_t vector_bits __attribute__((vector_size(VECTOR_FLOATS * sizeof(float)), may_alias));

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

ALWAYS_INLINE vector vector_broadcast(float x)
{
#ifdef __AVX512F__
    return (vector)_mm512_set1_ps(x);
#else
    return x - (vector){0};
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

#endif
