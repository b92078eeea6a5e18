/* Sums over rows, for bias and LayerNorm gradients: kernels that walk a matrix in strips keep sums in registers, write
 * one line of partial sums a block, and column_sum_finish adds the lines in order. No atomics: the same bits each time.
 *
 *            strip 0 (32 packs)   strip 1
 *   chunk 0  block (0, 0)         block (1, 0)     a block is 8 warps; warp w takes rows w, w + 8, ... of its chunk,
 *   chunk 1  block (0, 1)         ...              lane l the pack l of the strip (VEC columns)
 *
 *   partial  float32 [lines, arrays, dim] in the workspace, lines = chunks */
#ifndef QUEST_KERNELS_CUDA_COLUMN_SUM_CUH
#define QUEST_KERNELS_CUDA_COLUMN_SUM_CUH

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/vector.cuh"

enum { STRIP_WARPS = 8, STRIP_THREADS = 32 * STRIP_WARPS };
/* What the workspace is sized for: lines of partial sums are at most one a SHORTEST_CHUNK rows, and at most MOST_LINES.
 */
enum { SHORTEST_CHUNK = 64, MOST_LINES = 1024 };

/* Where the blocks of a strip kernel lie. */
struct strips {
    dim3 grid;
    size_t rows_per_chunk;
};

/* About four blocks a multiprocessor, but at least minimum_rows a chunk, so that what is moved once a chunk (partial
 * sums, biases) stays small beside the rows. `width` columns a strip. */
static inline strips cut_strips(const struct context *ctx, size_t rows, size_t dim, size_t width, size_t minimum_rows)
{
    strips cut;
    size_t across = div_up(dim, width);
    size_t wanted = div_up(minimum(MOST_LINES, 4 * (size_t)ctx->properties.multiprocessors), across);
    cut.rows_per_chunk = div_up(maximum(minimum_rows, div_up(rows, wanted)), STRIP_WARPS) * (size_t)STRIP_WARPS;
    cut.grid = dim3((unsigned)across, div_up(rows, cut.rows_per_chunk));
    return cut;
}

/* Adds the sums of a block's eight warps, in order of the warps, and writes the block's part of a line of partials. All
 * threads of the block call it; `column` is the first of the thread's columns, which may lie past dim. */
template <int VEC>
__device__ __forceinline__ void store_partial_sums(float *line, const float (&sum)[VEC], size_t column, size_t dim)
{
    __shared__ float shared[STRIP_WARPS][32 * VEC];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < VEC; i++)
        shared[warp][i * 32 + lane] = sum[i]; /* lane fastest: no bank conflicts */
    __syncthreads();
    size_t first = column - (size_t)lane * VEC;
    for (int i = threadIdx.x; i < 32 * VEC; i += STRIP_THREADS) {
        if (first + i >= dim)
            break;
        float total = 0;
        for (int w = 0; w < STRIP_WARPS; w++)
            total += shared[w][i % VEC * 32 + i / VEC];
        line[first + i] = total;
    }
}

#endif
