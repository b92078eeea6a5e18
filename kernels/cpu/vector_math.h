/* exp, a logarithm and the normal distribution for vector loops: plain C without branches or tables, so that gcc turns
 * a loop over them into vector code for whatever -march says. fmaf needs FMA, which x86-64-v3 has. */
#ifndef QUEST_KERNELS_CPU_VECTOR_MATH_H
#define QUEST_KERNELS_CPU_VECTOR_MATH_H

#include <math.h>

#include "kernels/bfloat16.h"

/* e^x to 1 ulp or so. Below -86.9 the result is 0 (not a denormal: they are slow); above 88.7 infinity; NaN for NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its minimax polynomial (Cephes' expf), 2^n by the exponent bits. */
ALWAYS_INLINE float vector_exp(float x)
{
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, in the low bits */
    float inside = x < -86.9f ? -86.9f : x;
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
    return x < -86.9f ? 0.0f : p * power * 2.0f;
}

/* log(1 + y) for 0 <= y <= 1, to 2 ulp or so; NaN for NaN. It is 2 atanh(s) with s = y / (2 + y) <= 1/3, whose series
 * may end after s^15 / 15. */
ALWAYS_INLINE float vector_log1p_unit(float y)
{
    float s = y / (2.0f + y), square = s * s;
    float p = 2.0f / 15;
    p = fmaf(p, square, 2.0f / 13);
    p = fmaf(p, square, 2.0f / 11);
    p = fmaf(p, square, 2.0f / 9);
    p = fmaf(p, square, 2.0f / 7);
    p = fmaf(p, square, 2.0f / 5);
    p = fmaf(p, square, 2.0f / 3);
    return fmaf(p * square, s, 2.0f * s);
}

/* 2^x for -100 <= x <= 100, to 1 ulp or so. */
ALWAYS_INLINE float vector_exp2_small(float x)
{
    const float round = 12582912.0f;
    float shifted = x + round;
    float f = x - (shifted - round);
    float p = 1.5345811e-4f;
    p = fmaf(p, f, 1.33999309e-3f);
    p = fmaf(p, f, 9.61848907e-3f);
    p = fmaf(p, f, 5.55032864e-2f);
    p = fmaf(p, f, 2.40226462e-1f);
    p = fmaf(p, f, 6.93147182e-1f);
    p = fmaf(p, f, 1.0f);
    return float_from_bits(bits_from_float(p) + (bits_from_float(shifted) << 23));
}

/* Phi(-t) of the normal distribution for 0 <= t <= 5.5, to 6e-8 absolute and 2e-4 relative; 0 for t = 5.5, where it is
 * 2e-8. log2 Phi(-t) is so smooth that a polynomial does (fitted to the least largest error of sqrt(Phi) * polynomial):
 * no division, and no branch at the centre as in erf. */
ALWAYS_INLINE float vector_normal_tail(float t)
{
    float p = -2.31162446e-7f;
    p = fmaf(p, t, 5.23441258e-6f);
    p = fmaf(p, t, -4.78296934e-5f);
    p = fmaf(p, t, 1.94387612e-4f);
    p = fmaf(p, t, 1.54936875e-4f);
    p = fmaf(p, t, -7.11520016e-3f);
    p = fmaf(p, t, 5.25439344e-2f);
    p = fmaf(p, t, 4.59189892e-1f);
    p = fmaf(p, t, 1.15110767f);
    p = fmaf(p, t, 0.99999994f);
    float tail = vector_exp2_small(-p);
    return t < 5.5f ? tail : 0.0f;
}

/* |x|, but at most 5.5, and 5.5 for NaN. */
ALWAYS_INLINE float vector_tail_argument(float x)
{
    float t = fabsf(x);
    return t < 5.5f ? t : 5.5f;
}

/* Phi(x) = (1 + erf(x / sqrt 2)) / 2. 1 for NaN. */
ALWAYS_INLINE float vector_normal_cdf(float x)
{
    float tail = vector_normal_tail(vector_tail_argument(x));
    return x < 0 ? tail : 1.0f - tail;
}

/* gelu'(x) = Phi(x) + x phi(x) to 1.5e-7 absolute (7e-7 where |x| > 5.5 and it is cut off), NaN for NaN. For x = -t it
 * is Phi(-t) q(t) with q(t) = 1 - t phi(t) / Phi(-t), again smooth enough for a polynomial, which spares the
 * exponential of phi; gelu'(t) = 1 - gelu'(-t). */
ALWAYS_INLINE float vector_gelu_slope(float x)
{
    float t = vector_tail_argument(x);
    float q = 2.20737024e-6f;
    q = fmaf(q, t, -3.9961833e-5f);
    q = fmaf(q, t, 2.94331345e-4f);
    q = fmaf(q, t, -9.89479246e-4f);
    q = fmaf(q, t, -2.50713929e-4f);
    q = fmaf(q, t, 1.94861684e-2f);
    q = fmaf(q, t, -1.09164394e-1f);
    q = fmaf(q, t, -6.36586189e-1f);
    q = fmaf(q, t, -7.97887206e-1f);
    q = fmaf(q, t, 1.0f);
    float slope = vector_normal_tail(t) * q;
    slope = x < 0 ? slope : 1.0f - slope;
    return x != x ? x : slope;
}

#endif
