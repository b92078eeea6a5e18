/* What LayerNorm's forward and backward kernels share: their tensors, and how a warp holds a row. */
#ifndef QUEST_KERNELS_CUDA_LAYERNORM_CUH
#define QUEST_KERNELS_CUDA_LAYERNORM_CUH

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/vector.cuh"

enum { LAYERNORM_WARPS = 8, LAYERNORM_THREADS = 32 * LAYERNORM_WARPS, ROWS_PER_TURN = 8 };
#define LAYERNORM_EPSILON 1e-6f

template <typename T> struct layernorm_forward_tensors {
    T *residual_out, *normed;
    float *mean, *rstd;
    const T *residual_in, *branch;
    const float *gamma, *path_scale, *weight, *bias;
    size_t rows, tokens, dim;
};

template <typename T> struct layernorm_backward_tensors {
    T *residual_gradient, *branch_gradient;
    const T *normed_gradient, *residual_out, *branch;
    const float *mean, *rstd, *gamma, *path_scale, *weight;
    float *partial; /* [blocks, arrays, dim]: sums for the weight, the bias and, with `gamma_wanted`, gamma */
    bool gamma_wanted;
    size_t rows, tokens, dim;
    T *normed; /* or NULL: what the forward pass wrote, again */
    const float *bias;
};

/* Blocks of a kernel that stays, `residency` of them a multiprocessor, each for at least one turn of its eight warps.
 */
static inline unsigned layernorm_blocks(const struct context *ctx, size_t rows, int residency)
{
    return (unsigned)minimum(residency * (size_t)ctx->properties.multiprocessors,
                             div_up(rows, LAYERNORM_WARPS * (size_t)ROWS_PER_TURN));
}

/* The row that a warp takes after `row`: its turn's next, or the first of its next turn. */
__device__ __forceinline__ size_t layernorm_next_row(size_t row)
{
    size_t turn = (gridDim.x * (size_t)LAYERNORM_WARPS - 1) * ROWS_PER_TURN;
    return row + 1 + (row % ROWS_PER_TURN == ROWS_PER_TURN - 1 ? turn : 0);
}

/* Number of 256 wide pieces whose registers hold a row, or 0 where the strided kernels must take it. */
template <typename T> static int layernorm_eighths(size_t dim)
{
    return dim % wide<T> == 0 && dim <= 1280 ? (int)div_up(dim, 256) : 0;
}

template <int VEC, int PACKS>
__device__ __forceinline__ void row_moments(const float (&x)[PACKS][VEC], int packs, size_t dim, float *mean,
                                            float *rstd)
{
    int lane = threadIdx.x % 32;
    float sum = 0, squares = 0;
#pragma unroll
    for (int p = 0; p < PACKS; p++)
#pragma unroll
        for (int i = 0; i < VEC; i++)
            sum += x[p][i];
    *mean = warp_sum(sum) / dim;
#pragma unroll
    for (int p = 0; p < PACKS; p++)
        if (p * 32 + lane < packs)
#pragma unroll
            for (int i = 0; i < VEC; i++)
                squares += (x[p][i] - *mean) * (x[p][i] - *mean);
    *rstd = rsqrtf(warp_sum(squares) / dim + LAYERNORM_EPSILON);
}

#endif
