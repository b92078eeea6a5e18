/* Rows of a head between global and shared memory, and the factors that turn products into logits: steps that the
 * bfloat16 attention kernels share. */
#ifndef QUEST_KERNELS_CUDA_ATTENTION_CHUNKS_SM80_CUH
#define QUEST_KERNELS_CUDA_ATTENTION_CHUNKS_SM80_CUH

#include <type_traits>

#include "kernels/cuda/attention/attention.cuh"
#include "kernels/cuda/attention/mma_sm80.cuh"

/* Which 16 bytes of 16 rows a lane moves, WIDTH / 16 times: neighbouring lanes move neighbouring units, so that every
 * 32-byte sector of a row is touched by one instruction. Rows in global memory are `stride` elements apart. */
template <int WIDTH> struct tile_piece {
    static constexpr int units = rows_of<WIDTH>::units;
    /* Where a row's units divide 32, each step moves the same unit so many rows further; else 0. */
    static constexpr int rows_a_step = 32 % units == 0 ? 32 / units : 0;
    int row, unit;

    __device__ __forceinline__ tile_piece(int step, int lane)
    {
        row = rows_a_step ? step * rows_a_step + lane / units : (step * 32 + lane) / units;
        unit = rows_a_step ? lane % units : (step * 32 + lane) % units;
    }

    /* Steps a constant of the launch apart cost one addition each. */
    template <typename T> static __device__ __forceinline__ T *in_global(T *tile, int step, int lane, int stride)
    {
        if (rows_a_step)
            return tile + (lane / units * stride + lane % units * 8) + (int64_t)stride * (step * rows_a_step);
        tile_piece piece(step, lane);
        return tile + (piece.row * stride + piece.unit * 8);
    }
};

/* Calls f with the head_dim, a multiple of 8 from LEAST to MOST, as a constant: each has kernels of its own. */
template <int LEAST = 8, int MOST = (int)ATTENTION_NARROW, typename F> static bool with_head_dim(size_t head_dim, F f)
{
    if constexpr (LEAST < MOST)
        if (head_dim > LEAST)
            return with_head_dim<LEAST + 8, MOST>(head_dim, f);
    return f(std::integral_constant<int, LEAST>());
}

/* Whether a unit of a row is part of a head of HEAD_DIM columns, or fills it up. */
template <int HEAD_DIM> static __device__ __forceinline__ bool is_of_head(int unit)
{
    return HEAD_DIM == padded<HEAD_DIM> || unit < HEAD_DIM / 8;
}

/* The same for what a lane moves in a step of copy_tile, from a constant that says it of all lanes: less work than the
 * unit where that takes a division, and no register is kept for it while a chunk is multiplied. */
template <int HEAD_DIM> static __device__ __forceinline__ bool moves_of_head(int step, int lane)
{
    constexpr int units = padded<HEAD_DIM> / 8;
    if (HEAD_DIM == padded<HEAD_DIM>)
        return true;
    if (32 % units == 0)
        return lane % units < HEAD_DIM / 8;
    uint32_t lanes = 0;
#pragma unroll
    for (int i = 0; i < 32; i++)
        lanes |= (uint32_t)((step * 32 + i) % units < HEAD_DIM / 8) << i;
    asm volatile("" : "+r"(lane));
    return lanes >> lane & 1;
}

/* By one warp: starts copies of 16 rows of a head of HEAD_DIM columns, which are filled up with zeros; rows from
 * `inside` on become zeros and are not read. */
template <int HEAD_DIM>
static __device__ __forceinline__ void copy_tile(uint32_t to, const bfloat16 *from, int stride, int inside, int lane)
{
    constexpr int width = padded<HEAD_DIM>;
#pragma unroll
    for (int step = 0; step < width / 16; step++) {
        tile_piece<width> piece(step, lane);
        copy_async(to + rows_of<width>::offset(piece.row, piece.unit),
                   tile_piece<width>::in_global(from, step, lane, stride),
                   piece.row < inside && moves_of_head<HEAD_DIM>(step, lane));
    }
}

/* By one warp: 16 rows from shared memory to a head. */
template <int HEAD_DIM>
static __device__ __forceinline__ void write_tile(bfloat16 *to, int stride, const uint8_t *from, int inside, int lane)
{
    constexpr int width = padded<HEAD_DIM>;
#pragma unroll
    for (int step = 0; step < width / 16; step++) {
        tile_piece<width> piece(step, lane);
        uint4 bits = *reinterpret_cast<const uint4 *>(from + rows_of<width>::offset(piece.row, piece.unit));
        store_global_if(piece.row < inside && is_of_head<HEAD_DIM>(piece.unit),
                        tile_piece<width>::in_global(to, step, lane, stride), bits);
    }
}

static __device__ __forceinline__ void store_pair(uint8_t *to, float low, float high)
{
    *reinterpret_cast<uint32_t *>(to) = pack_bf16(low, high);
}

/* Factor of the logits of a key with |key|^2 = square; base 2. */
static __device__ __forceinline__ float key_factor(const attention_operands<bfloat16> &in, float square)
{
    float factor = in.scale * LOG2_E;
    return in.normalise_keys ? factor * rsqrtf(fmaxf(square, SMALLEST_NORM * SMALLEST_NORM)) : factor;
}

/* Factors and biases of 16 keys in shared memory, the first of which is token `first`, by one warp:
 * columns[pair of neighbouring keys] = factor, factor, bias, bias; with `with_squares` |key|^2 to squares[16]. */
template <int D>
static __device__ __forceinline__ void key_columns(float *columns, float *squares, bool with_squares, uint32_t keys,
                                                   int first, const attention_operands<bfloat16> &in, lane_position at)
{
    float low = 0, high = 0;
    if (with_squares || in.normalise_keys) {
        uint32_t rows[D / 16][4];
#pragma unroll
        for (int k = 0; k < D / 16; k++)
            load_matrices(rows[k], matrix_column<D>(keys + matrix_offset<D>(DOWN, at.lane), k));
        square_norms(low, high, rows, at);
    }
    /* Lanes 0 and 1 of a group write the factors of its two keys, lanes 2 and 3 their biases. */
    int row = at.group + at.pair % 2 * 8;
    float square = at.pair % 2 ? high : low;
    bool inside = first + row < in.tokens;
    columns[row / 2 * 4 + at.pair / 2 * 2 + row % 2] = at.pair < 2 ? key_factor(in, square) : (inside ? 0.0f : MASKED);
    if (with_squares && at.pair < 2)
        squares[row] = square;
}

/* ---- keys and values that pass by in chunks ---- */

constexpr int RING_STAGES = 3;

/* A ring of three chunks of CHUNK keys and values of one head, filled two chunks ahead. In shared memory:
 *   stage 0, 1, 2     [CHUNK][D] keys, [CHUNK][D] values
 *   columns 0, 1, 2   float4 [CHUNK / 2]: factors and biases of two neighbouring keys
 * and, where they are asked for, |key|^2: float [CHUNK] three times. */
template <int D, int CHUNK> struct key_ring {
    static constexpr int chunk_bytes = CHUNK * rows_of<D>::bytes;
    static constexpr int bytes = RING_STAGES * (2 * chunk_bytes + CHUNK * 8);
    static constexpr int bytes_with_squares = bytes + RING_STAGES * CHUNK * 4;

    int key_at, value_at; /* of the head's first token, in elements */
    uint8_t *shared;
    int warp, warps;

    /* `column` is the head's first one in a row. */
    __device__ __forceinline__ key_ring(const attention_operands<bfloat16> &in, uint8_t *memory, int image, int column)
        : key_at(image * in.tokens * in.row + column), value_at(image * in.tokens * in.value_row + column),
          shared(memory), warp(threadIdx.x / 32), warps(blockDim.x / 32)
    {
    }

    __device__ __forceinline__ uint32_t keys(int chunk) const
    {
        return shared_address(shared) + chunk % RING_STAGES * 2 * chunk_bytes;
    }

    __device__ __forceinline__ float4 *columns(int chunk) const
    {
        return reinterpret_cast<float4 *>(shared + RING_STAGES * 2 * chunk_bytes) + chunk % RING_STAGES * (CHUNK / 2);
    }

    __device__ __forceinline__ float *squares(int chunk) const
    {
        return reinterpret_cast<float *>(shared + bytes) + chunk % RING_STAGES * CHUNK;
    }

    /* Groups of 16 keys of a chunk that hold a token. */
    static __device__ __forceinline__ int steps(int chunk, int tokens)
    {
        return min(CHUNK, tokens - chunk * CHUNK + 15) / 16;
    }

    /* Starts the copy of a head of HEAD_DIM columns, by all warps of the block. */
    template <int HEAD_DIM>
    __device__ __forceinline__ void copy(int chunk, const attention_operands<bfloat16> &in, int lane) const
    {
        for (int tile = warp; tile < steps(chunk, in.tokens); tile += warps) {
            int first = chunk * CHUNK + tile * 16;
            uint32_t to = keys(chunk) + tile * 16 * rows_of<D>::bytes;
            copy_tile<HEAD_DIM>(to, in.key + (key_at + first * in.row), in.row, in.tokens - first, lane);
            copy_tile<HEAD_DIM>(to + chunk_bytes, in.value + (value_at + first * in.value_row), in.value_row,
                                in.tokens - first, lane);
        }
    }

    /* Factors and biases of a chunk that has arrived; first come the warps that copy last. */
    __device__ __forceinline__ void take_columns(int chunk, bool with_squares, const attention_operands<bfloat16> &in,
                                                 lane_position at) const
    {
        for (int tile = warps - 1 - warp; tile < steps(chunk, in.tokens); tile += warps)
            key_columns<D>(reinterpret_cast<float *>(columns(chunk) + tile * 8), squares(chunk) + tile * 16,
                           with_squares, keys(chunk) + tile * 16 * rows_of<D>::bytes, chunk * CHUNK + tile * 16, in,
                           at);
    }
};

#endif
