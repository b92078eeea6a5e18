/* Between the bfloat16 backward kernels: which of them runs, and how gradients leave registers. */
#ifndef QUEST_KERNELS_CUDA_ATTENTION_BACKWARD_SM80_CUH
#define QUEST_KERNELS_CUDA_ATTENTION_BACKWARD_SM80_CUH

#include "kernels/cuda/attention/chunks_sm80.cuh"

/* Warps of 32 keys in a block of the fused kernel: 8 leave 255 registers a thread. */
constexpr int FUSED_WARPS = 8;

/* Whether dQ comes from the same pass as dK and dV. */
static inline bool backward_is_fused(size_t head_dim)
{
    return head_dim <= 64;
}

/* Blocks that the keys of a head are cut into, and warps of each. */
static inline unsigned fused_blocks(size_t tokens)
{
    return div_up(tokens, 32 * FUSED_WARPS);
}

static inline unsigned fused_warps(size_t tokens)
{
    return div_up(div_up(tokens, 32), fused_blocks(tokens));
}

/* By one warp: 16 rows held as C fragments, scaled, to a head's rows in global memory by way of shared memory. */
template <int HEAD_DIM, int D = padded<HEAD_DIM>>
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
    write_tile<HEAD_DIM>(to, stride, staging, inside, at.lane);
}

/* What the normalisation of 16 keys takes from their gradients: the part along the key. `keys` is their rows in shared
 * memory; factors are of the logits, base 2; `unit` is the factor of a key of length 1. */
template <int D>
static __device__ __forceinline__ void remove_along(float (&gradient)[D / 8][4], const float (&factor)[2],
                                                    const uint8_t *keys, float unit, lane_position at)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float low[D / 8], high[D / 8], along = 0;
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            uint32_t pair = *reinterpret_cast<const uint32_t *>(keys + at.pair * 4 + rows_of<D>::offset(at.group, j) +
                                                                i * 8 * rows_of<D>::bytes);
            low[j] = __uint_as_float(pair << 16);
            high[j] = __uint_as_float(pair & 0xffff0000u);
            along = fmaf(low[j], gradient[j][2 * i], along);
            along = fmaf(high[j], gradient[j][2 * i + 1], along);
        }
        along = row_sum(along);
        float inverse_norm = factor[i] / unit;
        /* Where |k| was replaced by the smallest norm, the factor does not depend on k. */
        float share = inverse_norm < 0.99f / SMALLEST_NORM ? -along * inverse_norm * inverse_norm : 0;
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            gradient[j][2 * i] = fmaf(low[j], share, gradient[j][2 * i]);
            gradient[j][2 * i + 1] = fmaf(high[j], share, gradient[j][2 * i + 1]);
        }
    }
}

bool attention_backward_fused(struct context *ctx, const attention_operands<bfloat16> *operands,
                              const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                              struct error *error);
bool attention_backward_keys(struct context *ctx, const attention_operands<bfloat16> *operands,
                             const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                             struct error *error);
bool attention_backward_queries(struct context *ctx, const attention_operands<bfloat16> *operands,
                                const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                                struct error *error);

#endif
