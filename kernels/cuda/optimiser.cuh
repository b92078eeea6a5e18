/* What the optimisers of the CUDA backend share. */
#ifndef QUEST_KERNELS_CUDA_OPTIMISER_CUH
#define QUEST_KERNELS_CUDA_OPTIMISER_CUH

#include <math.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/vector.cuh"

enum { OPTIMISER_THREADS = 256, OPTIMISER_BLOCKS_A_MULTIPROCESSOR = 8 };

/* Blocks of a kernel that walks over `packs` packs with a stride of the whole grid. */
static inline unsigned optimiser_blocks(const struct context *ctx, size_t packs)
{
    return (unsigned)minimum(div_up(packs, OPTIMISER_THREADS),
                             OPTIMISER_BLOCKS_A_MULTIPROCESSOR * (size_t)ctx->properties.multiprocessors);
}

/* A limit as kernels take it: infinite for none. */
static inline double optimiser_limit(double sum_of_squares_limit)
{
    return sum_of_squares_limit > 0 ? sum_of_squares_limit : (double)INFINITY;
}

/* Whether a step changes nothing: its gradient's sum of squares is not finite or over the limit, or the earlier one was
 * not finite. */
__device__ __forceinline__ bool optimiser_withholds(double sum_of_squares, double limit, const double *earlier)
{
    return !isfinite(sum_of_squares) || sum_of_squares > limit || (earlier && !isfinite(*earlier));
}

/* torch's clip_grad_norm_. */
__device__ __forceinline__ float optimiser_clip(float clip_grad_norm, double sum_of_squares)
{
    return clip_grad_norm > 0 ? (float)fmin(1.0, clip_grad_norm / (sqrt(sum_of_squares) + 1e-6)) : 1.0f;
}

#endif
