/* Numbers of type T (float32 or bfloat16) as floats.
 *
 * Ops are written once for both types: an always-inline function takes the dtype as its last argument, is called with
 * each constant, and gcc makes a vector loop of each (two instructions to widen a bfloat16, six to round one). */
#ifndef QUEST_KERNELS_BFLOAT16_H
#define QUEST_KERNELS_BFLOAT16_H

#include <stdint.h>
#include <string.h>

#include "kernels/kernels.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE float float_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

ALWAYS_INLINE uint32_t bits_from_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

ALWAYS_INLINE float float_from_bf16(uint16_t x)
{
    return float_from_bits((uint32_t)x << 16);
}

/* Rounds to nearest, ties to even, as the hardware does; a NaN stays a (quiet) NaN. */
ALWAYS_INLINE uint16_t bf16_from_float(float x)
{
    uint32_t bits = bits_from_float(x);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    uint32_t quiet = (bits >> 16) | 0x40;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
}

ALWAYS_INLINE float load(const void *x, size_t i, enum dtype dtype)
{
    return dtype == DTYPE_FLOAT32 ? ((const float *)x)[i] : float_from_bf16(((const uint16_t *)x)[i]);
}

ALWAYS_INLINE void store(void *x, size_t i, float value, enum dtype dtype)
{
    if (dtype == DTYPE_FLOAT32)
        ((float *)x)[i] = value;
    else
        ((uint16_t *)x)[i] = bf16_from_float(value);
}

/* x + i in numbers of the dtype. */
ALWAYS_INLINE void *at(void *x, size_t i, enum dtype dtype)
{
    return (char *)x + i * dtype_bytes(dtype);
}

ALWAYS_INLINE const void *const_at(const void *x, size_t i, enum dtype dtype)
{
    return (const char *)x + i * dtype_bytes(dtype);
}

#endif
