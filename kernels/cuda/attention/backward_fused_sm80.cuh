/* dQ from the pass that makes dK and dV (backward_keys_sm80.cu), where one block holds all keys of a head: every
 * warp leaves its slopes in shared memory, and the block multiplies them with the keys. */
#ifndef QUEST_KERNELS_CUDA_ATTENTION_BACKWARD_FUSED_SM80_CUH
#define QUEST_KERNELS_CUDA_ATTENTION_BACKWARD_FUSED_SM80_CUH

#include "kernels/cuda/attention/backward_sm80.cuh"

/* dS^T of 16 keys and 16 queries, as C fragments, to the warp's rows of 48 queries; `to` is the lane's first word. */
static __device__ __forceinline__ void store_slopes(uint32_t to, const uint32_t (&slopes)[4])
{
    constexpr int eight_rows = 8 * rows_of<FUSED_CHUNK>::bytes;
    asm volatile(
        "st.shared.b32 [%0], %2; st.shared.b32 [%0 + %6], %3; st.shared.b32 [%1], %4; st.shared.b32 [%1 + %6], %5;" ::
            "r"(to),
        "r"(to ^ 16), "r"(slopes[0]), "r"(slopes[1]), "r"(slopes[2]), "r"(slopes[3]), "n"(eight_rows)
        : "memory");
}

/* Two neighbouring C tiles, one of their two rows: a lane has two columns of each, 4 bytes when rounded. Lanes exchange
 * them so that each writes 8 bytes and together they fill sectors of 32. */
static __device__ __forceinline__ void write_halves(bfloat16 *to, uint32_t left, uint32_t right, bool wanted,
                                                    lane_position at)
{
    int from = at.group * 4 + at.pair % 2 * 2;
    uint32_t lefts[2], rights[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        lefts[h] = __shfl_sync(0xffffffffu, left, from + h);
        rights[h] = __shfl_sync(0xffffffffu, right, from + h);
    }
    if (wanted)
        *reinterpret_cast<uint2 *>(to + at.pair * 4) =
            at.pair < 2 ? make_uint2(lefts[0], lefts[1]) : make_uint2(rights[0], rights[1]);
}

/* dQ of a chunk's queries, first of which is token `first`: the slopes of all keys times all keys, a part of the
 * columns and 16 queries a warp. */
template <int D>
static __device__ __forceinline__ void query_gradients(bfloat16 *to, int stride, uint32_t slopes, uint32_t keys,
                                                       int first, int tokens, lane_position at)
{
    constexpr int part_columns = D % 32 == 0 ? 32 : 16, parts = D / part_columns, loads = part_columns / 16;
    int warp = threadIdx.x / 32, warps = blockDim.x / 32;
    slopes += matrix_offset<FUSED_CHUNK>(ACROSS, at.lane);
    keys += matrix_offset<D>(DOWN, at.lane);
    int tiles = (unsigned)min(FUSED_CHUNK, tokens - first + 15) / 16;
    for (int task = warp; task < tiles * parts; task += warps) {
        int tile = task / parts, part = task % parts, row = first + tile * 16 + at.group;
        uint32_t slopes_at = matrix_column<FUSED_CHUNK>(slopes, tile), keys_at = matrix_column<D>(keys, part * loads);
        float sum[2 * loads][4] = {};
#pragma unroll 4
        for (int w = 0; w < warps; w++) {
            uint32_t a[4], b[4];
            load_matrices_transposed(a, slopes_at);
#pragma unroll
            for (int l = 0; l < loads; l++) {
                load_matrices_transposed(b, keys_at ^ (l * 32));
                multiply_add(sum[2 * l], a, b[0], b[1]);
                multiply_add(sum[2 * l + 1], a, b[2], b[3]);
            }
            slopes_at += 16 * rows_of<FUSED_CHUNK>::bytes;
            keys_at += 16 * rows_of<D>::bytes;
        }
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int l = 0; l < loads; l++)
                write_halves(to + (row + i * 8) * stride + part * part_columns + l * 16,
                             pack_bf16(sum[2 * l][2 * i] * LN_2, sum[2 * l][2 * i + 1] * LN_2),
                             pack_bf16(sum[2 * l + 1][2 * i] * LN_2, sum[2 * l + 1][2 * i + 1] * LN_2),
                             row + i * 8 < tokens, at);
    }
}

#endif
