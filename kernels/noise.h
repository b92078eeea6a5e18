/* The noise of random erasing: standard normal numbers by counter, the same on every backend up to the rounding of
 * logarithm, sine and cosine. */
#ifndef QUEST_KERNELS_NOISE_H
#define QUEST_KERNELS_NOISE_H

#include <Random123/philox.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/random.h"

#ifdef __CUDACC__
#define NOISE_FUNCTION __device__ __forceinline__
#else
#define NOISE_FUNCTION static inline
#endif

/* Number `index` (channel * side * side + y * side + x) of a sample's noise: Box and Muller, of four neighbours' 128
 * random bits. */
NOISE_FUNCTION float patches_noise(uint64_t seed, uint64_t sample, uint32_t index)
{
    philox4x32_ctr_t counter = {{(uint32_t)sample, (uint32_t)(sample >> 32), index / 4, RANDOM_NOISE}};
    philox4x32_key_t key = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    philox4x32_ctr_t bits = philox4x32(counter, key);
    uint32_t pair = index % 4 / 2;
    float radius = sqrtf(-2.0f * logf(((float)bits.v[2 * pair] + 0.5f) * 0x1p-32f));
    float angle = 6.2831853f * ((float)(bits.v[2 * pair + 1] >> 8) * 0x1p-24f);
    return radius * (index % 2 ? sinf(angle) : cosf(angle));
}

#endif
