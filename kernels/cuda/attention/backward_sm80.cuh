/* Between the bfloat16 backward kernels: which of them makes dQ, and how gradients leave registers. */
#ifndef QUEST_KERNELS_CUDA_ATTENTION_BACKWARD_SM80_CUH
#define QUEST_KERNELS_CUDA_ATTENTION_BACKWARD_SM80_CUH

#include "kernels/cuda/attention/chunks_sm80.cuh"

/* Warps of 16 rows in a block: 16 leave 128 registers a thread, 12 leave 168, 8 leave 255. */
template <int D, bool FUSED> constexpr int backward_warps = FUSED ? 16 : D > 64 ? 8 : 12;

constexpr int FUSED_CHUNK = 48; /* queries that pass at a time where dQ is made too */

/* Shared memory of the fused kernel with `warps` warps: backward_keys_sm80.cu draws it. */
static inline __host__ __device__ constexpr size_t fused_bytes(size_t head_dim, size_t warps)
{
    return warps * 16 * head_dim * 2 + 4 * FUSED_CHUNK * head_dim * 2 + 2 * FUSED_CHUNK * 8 +
           warps * 2 * 16 * FUSED_CHUNK * 2;
}

/* Whether one block holds all keys of a head, so that dQ comes from the same pass as dK and dV. */
static inline bool backward_is_fused(const struct context *ctx, const struct attention_shape *shape)
{
    return shape->head_dim <= 64 && shape->tokens <= 256 &&
           fused_bytes(shape->head_dim, div_up(shape->tokens, 16)) <= ctx->properties.shared_bytes_per_block;
}

/* By one warp: 16 rows held as C fragments, scaled, to a head's rows in global memory by way of shared memory. */
template <int D>
static __device__ __forceinline__ void write_gradient(bfloat16 *to, int stride, const float (&rows)[D / 8][4],
                                                      float scale, uint8_t *staging, int inside, lane_position at)
{
    __syncwarp();
#pragma unroll
    for (int j = 0; j < D / 8; j++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            store_pair(staging + at.pair * 4 + rows_of<D>::offset(at.group, j) + i * 8 * rows_of<D>::bytes,
                       rows[j][2 * i] * scale, rows[j][2 * i + 1] * scale);
    __syncwarp();
    write_tile<D>(to, stride, staging, inside, at.lane);
}

bool attention_backward_keys(struct context *ctx, const attention_operands<bfloat16> *operands,
                             const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                             struct error *error);
bool attention_backward_queries(struct context *ctx, const attention_operands<bfloat16> *operands,
                                const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                                struct error *error);

#endif
