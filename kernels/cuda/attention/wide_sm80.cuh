/* Attention in bfloat16 where head_dim is more than 128, both ways: there the kernels of forward_sm80.cu and
 * backward_*_sm80.cu would need more registers than a thread has.
 *
 * Kernels of one shape. A warp owns 16 rows (queries; for dK and dV keys) and meets the rows of the other side, 16 at a
 * time, which the block shares in shared memory. Registers hold nothing but one result [16][D]; the own rows are read
 * from shared memory for each product. dK and dV have a kernel each, for one result each.
 *
 *   shared memory (W warps; at D = 256: W = 8, 96 KiB, where there are two own operands 160 KiB, or W = 4 and 96 KiB)
 *   +----------------------+
 *   | own of a warp [16][D]|  W times one or two: forward Q; dQ: Q, dO; dK: K, V; dV: K. At the end the result on its
 *   | stage 0: two [16][D] |  way out.                    the other side: K and V, or Q and dO
 *   | stage 1: two [16][D] |
 *   +----------------------+
 *
 * D is head_dim rounded up to 160, 192, 224 or 256; columns from head_dim on are zeros that the copies fill in. Keys
 * that a kind normalises come prepared (prepare.cu). Cost of a head of N tokens, n = 16 ceil(N / 16): 4 n n D tensor
 * FLOP forward, 16 n n D backward; each block of 16 W rows reads the other side once. One block a multiprocessor. */
#ifndef QUEST_KERNELS_CUDA_ATTENTION_WIDE_SM80_CUH
#define QUEST_KERNELS_CUDA_ATTENTION_WIDE_SM80_CUH

#include "kernels/cuda/attention/chunks_sm80.cuh"

constexpr int WIDE_WARPS = 8; /* 255 registers a thread */

/* One operand of a head: the address of its first token, and elements between tokens. */
struct wide_rows {
    const bfloat16 *first;
    int stride;
};

static __device__ __forceinline__ wide_rows rows_at(const bfloat16 *x, int stride, int tokens, int head_dim)
{
    return {x + ((size_t)blockIdx.z * tokens * stride + blockIdx.y * head_dim), stride};
}

/* OWN operands a warp. */
template <int D, int OWN> struct wide_layout {
    static constexpr int tile_bytes = 16 * rows_of<D>::bytes, own_bytes = OWN * tile_bytes,
                         stages_bytes = 4 * tile_bytes;
};

template <int D, int OWN> struct wide_place {
    typedef wide_layout<D, OWN> layout;
    lane_position at;
    int warp, warps, first, inside; /* the warp's first row, and how many of its rows there are */
    int tokens, units;              /* units of 8 columns that are no padding */
    uint8_t *own;
    uint32_t stages;

    __device__ __forceinline__ wide_place(uint8_t *shared, int sequence, int head_dim)
        : at(lane_of_thread()), warp(threadIdx.x / 32), warps(blockDim.x / 32), first((blockIdx.x * warps + warp) * 16),
          inside(sequence - first), tokens(sequence), units(head_dim / 8), own(shared + warp * layout::own_bytes),
          stages(shared_address(shared + warps * layout::own_bytes))
    {
    }

    /* Where a lane finds its part of an own operand, as a left one. */
    __device__ __forceinline__ uint32_t own_matrices(int operand) const
    {
        return shared_address(own) + operand * layout::tile_bytes + matrix_offset<D>(DOWN, at.lane);
    }

    __device__ __forceinline__ uint32_t stage(int chunk, int operand) const
    {
        return stages + (chunk % 2 * 2 + operand) * layout::tile_bytes;
    }

    /* Starts copies of 16 rows: of all 16-byte units, or of every `apart`th 32 of them from `step` on. */
    __device__ __forceinline__ void copy(uint32_t to, wide_rows from, int row, int step, int apart) const
    {
        for (; step < D / 16; step += apart) {
            tile_piece<D> piece(step, at.lane);
            copy_async(to + rows_of<D>::offset(piece.row, piece.unit),
                       from.first + ((size_t)(row + piece.row) * from.stride + piece.unit * 8),
                       row + piece.row < tokens && piece.unit < units);
        }
    }

    /* Starts the copy of a chunk of the other side, by all warps of the block. */
    __device__ __forceinline__ void copy_chunk(int chunk, wide_rows left, wide_rows right) const
    {
        copy(stage(chunk, 0), left, chunk * 16, warp, warps);
        copy(stage(chunk, 1), right, chunk * 16, warp, warps);
    }

    /* The warp's result, row `group` + 8 i times scale[i], by way of its own rows to memory. */
    __device__ __forceinline__ void write(bfloat16 *to, int stride, const float (&rows)[D / 8][4],
                                          const float (&scale)[2]) const
    {
        __syncwarp();
#pragma unroll
        for (int j = 0; j < D / 8; j++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                store_pair(own + at.pair * 4 + rows_of<D>::offset(at.group, j) + i * 8 * rows_of<D>::bytes,
                           rows[j][2 * i] * scale[i], rows[j][2 * i + 1] * scale[i]);
        __syncwarp();
        for (int step = 0; step < D / 16; step++) {
            tile_piece<D> piece(step, at.lane);
            uint4 bits = *reinterpret_cast<const uint4 *>(own + rows_of<D>::offset(piece.row, piece.unit));
            store_global_if(piece.row < inside && piece.unit < units,
                            to + ((size_t)(first + piece.row) * stride + piece.unit * 8), bits);
        }
    }
};

/* to += left right^T for 16 rows of each, given by where the lane's first matrices lie. */
template <int D> static __device__ __forceinline__ void multiply_rows(float (&to)[2][4], uint32_t left, uint32_t right)
{
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[4], b[4];
        load_matrices(a, matrix_column<D>(left, k));
        load_matrices(b, matrix_column<D>(right, k));
        multiply_add(to[0], a, b[0], b[1]);
        multiply_add(to[1], a, b[2], b[3]);
    }
}

/* sum += weights rows: weights [16, 16] as two C tiles, 16 rows by where the lane's first matrices lie. */
template <int D>
static __device__ __forceinline__ void add_rows(float (&sum)[D / 8][4], const float (&weights)[2][4], uint32_t rows)
{
    uint32_t a[4];
    as_left_operand(a, weights[0], weights[1]);
#pragma unroll
    for (int j = 0; j < D / 16; j++) {
        uint32_t b[4];
        load_matrices_transposed(b, matrix_column<D>(rows, j));
        multiply_add(sum[2 * j], a, b[0], b[1]);
        multiply_add(sum[2 * j + 1], a, b[2], b[3]);
    }
}

/* What products with 16 keys start from: the end of the sequence, behind which logits are masked. */
static __device__ __forceinline__ void start_logits(float (&logits)[2][4], int first_key, int tokens, int pair)
{
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int c = 0; c < 4; c++)
            logits[n][c] = first_key + n * 8 + pair * 2 + c % 2 < tokens ? 0.0f : MASKED;
}

/* ---- launches ---- */

/* Blocks of as many warps as shared memory has room for, all of about the same size. */
struct wide_launch {
    dim3 grid;
    size_t threads, shared_bytes;
};

template <int D, int OWN>
static inline wide_launch launch_of(const struct context *ctx, const struct attention_shape *shape)
{
    typedef wide_layout<D, OWN> layout;
    size_t room = (ctx->properties.shared_bytes_per_block - layout::stages_bytes) / layout::own_bytes;
    size_t needed = div_up(shape->tokens, 16), most = minimum(room, WIDE_WARPS);
    size_t warps = div_up(needed, div_up(needed, most));
    return {dim3(div_up(needed, warps), shape->heads, shape->batch), 32 * warps,
            layout::stages_bytes + warps * layout::own_bytes};
}

template <typename K> static inline bool allow_shared(K kernel, size_t bytes, struct error *error)
{
    return CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes), error);
}

#endif
