/* exp and erf for vector loops: plain C without branches or tables, so that gcc turns a loop over them (under
 * `#pragma omp simd`) into vector code for whatever -march says. fmaf needs FMA, which x86-64-v3 has. */
#ifndef QUEST_KERNELS_CPU_VECTOR_MATH_H
#define QUEST_KERNELS_CPU_VECTOR_MATH_H

#include <math.h>

#include "kernels/cpu/bf16.h"

/* e^x to 1 ulp or so. Below -87.3 the result is 0 (not a denormal: they are slow); above 88.7 infinity; NaN for NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its minimax polynomial (Cephes' expf), 2^n by the exponent bits. */
ALWAYS_INLINE float vector_exp(float x)
{
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, in the low bits */
    float inside = x < -87.3f ? -87.3f : x;
    inside = inside > 89.0f ? 89.0f : inside; /* overflows in the last product below */
    float shifted = fmaf(inside, 1.44269504f, round);
    float n = shifted - round;
    float r = fmaf(n, -0.693359375f, inside);
    r = fmaf(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = fmaf(p, r, 1.3981999507e-3f);
    p = fmaf(p, r, 8.3334519073e-3f);
    p = fmaf(p, r, 4.1665795894e-2f);
    p = fmaf(p, r, 1.6666665459e-1f);
    p = fmaf(p, r, 5.0000001201e-1f);
    p = fmaf(p, r * r, r) + 1.0f;
    /* n reaches 128, one more than an exponent holds: 2^n is made as 2^(n-1) * 2. */
    float power = float_from_bits((bits_from_float(shifted) << 23) + 0x3f000000u);
    return x < -87.3f ? 0.0f : p * power * 2.0f;
}

#endif
