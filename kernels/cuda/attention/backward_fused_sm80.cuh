/* What backward_fused_sm80.cu works on: its shared memory (drawn there), where a thread works, and how queries and keys
 * arrive. */
#ifndef QUEST_KERNELS_CUDA_ATTENTION_BACKWARD_FUSED_SM80_CUH
#define QUEST_KERNELS_CUDA_ATTENTION_BACKWARD_FUSED_SM80_CUH

#include "kernels/cuda/attention/backward_sm80.cuh"

/* CHUNK queries pass at a time; a warp has two tiles of 16 keys. Offsets from the end of the block's keys, but for
 * `slopes_at`, which counts from there too and is followed by the warps' slopes, twice. */
template <int D, int CHUNK> struct fused_layout {
    static constexpr int chunk = CHUNK;
    static constexpr int tile_bytes = 16 * rows_of<D>::bytes, own_bytes = 2 * tile_bytes;
    static constexpr int rows_bytes = CHUNK * rows_of<D>::bytes;        /* of Q, dO or O of a chunk */
    static constexpr int slopes_bytes = 2 * 16 * rows_of<CHUNK>::bytes; /* of a warp and chunk */
    static constexpr int outs_at = 4 * rows_bytes, raw_at = outs_at + rows_bytes;
    static constexpr int rows_at = raw_at + CHUNK * 8, slopes_at = rows_at + 2 * CHUNK * 8;

    static __host__ __device__ constexpr int columns_at(int warps)
    {
        return slopes_at + warps * 2 * slopes_bytes;
    }

    static __host__ __device__ constexpr int bytes(int warps)
    {
        return warps * (own_bytes + 2 * 16 * 8) + columns_at(warps);
    }
};

constexpr int KEY_TILES = 2; /* of a warp */

/* A warp's keys; of each tile the low half of everything belongs to row `group`, the high half to row group + 8. */
template <int D> struct fused_keys {
    float key_gradient[KEY_TILES][D / 8][4], value_gradient[KEY_TILES][D / 8][4];
    uint32_t values[KEY_TILES][D / 16][4];
};

extern __shared__ __align__(128) uint8_t shared[];

/* Which part of which head a block has, where the grid does not say it; read again where it is needed, for want of
 * registers. */
static __shared__ int3 block_head_image;

/* Numbers of the launch that are not remembered, nor what is made of them. */
enum number_of { OF_THREAD, OF_HEAD, OF_IMAGE };

template <number_of WHICH> static __device__ __forceinline__ uint32_t read_now()
{
    uint32_t number;
    if (WHICH == OF_THREAD)
        asm volatile("mov.u32 %0, %%tid.x;" : "=r"(number));
    else if (WHICH == OF_HEAD)
        asm volatile("mov.u32 %0, %%ctaid.y;" : "=r"(number));
    else
        asm volatile("mov.u32 %0, %%ctaid.z;" : "=r"(number));
    return number;
}

/* Where a thread works; made anew by each function, for want of registers. */
template <int D, int CHUNK, bool SINGLE> struct fused_place {
    typedef fused_layout<D, CHUNK> layout;
    lane_position at;
    int warp, warps;
    int first_key;   /* of the warp */
    uint32_t stages; /* address in shared memory */

    __device__ __forceinline__ fused_place()
    {
        uint32_t thread = read_now<OF_THREAD>();
        at = {(int)(thread % 32), (int)(thread % 32 / 4), (int)(thread % 4)};
        warp = (int)(thread / 32);
        warps = blockDim.x / 32;
        first_key = (block() * warps + warp) * (KEY_TILES * 16);
        stages = shared_address(after_keys());
    }

    static __device__ __forceinline__ int block()
    {
        return SINGLE ? 0 : block_head_image.x;
    }

    /* Unsigned, like what is made of them: an index of an element has up to 32 bits. */
    static __device__ __forceinline__ uint32_t head()
    {
        return SINGLE ? read_now<OF_HEAD>() : block_head_image.y;
    }

    static __device__ __forceinline__ uint32_t image()
    {
        return SINGLE ? read_now<OF_IMAGE>() : block_head_image.z;
    }

    /* Of the block, that hold a token. */
    __device__ __forceinline__ int key_tiles(int tokens) const
    {
        return min(KEY_TILES * warps, (tokens + 15) / 16 - block() * warps * KEY_TILES);
    }

    __device__ __forceinline__ uint8_t *own_keys() const
    {
        return shared + warp * layout::own_bytes;
    }

    __device__ __forceinline__ uint8_t *after_keys() const
    {
        return shared + warps * layout::own_bytes;
    }

    /* Factors and biases of the warp's logits, base 2: for these registers have no room. */
    __device__ __forceinline__ float2 *own_columns() const
    {
        return reinterpret_cast<float2 *>(after_keys() + layout::columns_at(warps)) + warp * KEY_TILES * 16;
    }

    __device__ __forceinline__ uint32_t slopes(int chunk) const
    {
        return stages + layout::slopes_at + chunk % 2 * warps * layout::slopes_bytes;
    }

    __device__ __forceinline__ float *rows(int chunk) const
    {
        return reinterpret_cast<float *>(after_keys() + layout::rows_at) + chunk % 2 * CHUNK * 2;
    }
};

/* ---- a chunk of queries arrives ---- */

/* Starts the copy: Q, dO, logsumexp, and O or delta. A warp copies whole tiles. */
template <int HEAD_DIM, int CHUNK, bool SINGLE>
static __device__ __forceinline__ void copy_chunk(int chunk, const attention_operands<bfloat16> &in,
                                                  const attention_derivatives<bfloat16> &derivatives)
{
    constexpr int D = padded<HEAD_DIM>;
    fused_place<D, CHUNK, SINGLE> place;
    typedef fused_layout<D, CHUNK> layout;
    int lane = place.at.lane;
    for (int tile = place.warp; tile < CHUNK / 16; tile += place.warps) {
        int first = chunk * CHUNK + tile * 16, inside = in.tokens - first;
        if (inside <= 0)
            break;
        uint32_t to = place.stages + tile * layout::tile_bytes, stage = to + chunk % 2 * 2 * layout::rows_bytes;
        int column = place.head() * HEAD_DIM, width = in.heads * HEAD_DIM;
        uint32_t row = place.image() * in.tokens + first, out_at = row * width + column;
        uint32_t known_at = (place.image() * in.heads + place.head()) * in.tokens + first;
        copy_tile<HEAD_DIM>(stage, in.query + (row * in.row + column), in.row, inside, lane);
        copy_tile<HEAD_DIM>(stage + layout::rows_bytes, derivatives.out_gradient + out_at, width, inside, lane);
        if (SINGLE)
            copy_tile<HEAD_DIM>(to + layout::outs_at, derivatives.out + out_at, width, inside, lane);
        const float *known = SINGLE || lane < 16 ? derivatives.logsumexp : derivatives.delta;
        copy_async_word(place.stages + layout::raw_at + (tile * 32 + lane) * 4, known + known_at + lane % 16,
                        lane % 16 < inside);
    }
}

/* -delta of rows group and group + 8 of a tile: the diagonal of -dO O^T. */
template <int D, int CHUNK>
static __device__ __forceinline__ void take_delta(float &low, float &high, uint32_t out_gradients, uint32_t outs,
                                                  lane_position at)
{
    float upper[4], lower[4];
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[4], b[4];
        load_matrices(a, matrix_column<D>(out_gradients + matrix_offset<D>(DOWN, at.lane), k));
        load_matrices(b, matrix_column<D>(outs + matrix_offset<D>(DOWN, at.lane), k));
        if (k == 0) {
            multiply(upper, a, b[0], b[2], 0, 0, 0, 0);
            multiply(lower, a, b[1], b[3], 0, 0, 0, 0);
        } else {
            multiply_add(upper, a, b[0], b[2]);
            multiply_add(lower, a, b[1], b[3]);
        }
    }
    take_diagonal(low, high, upper, lower, at);
}

/* What else is known of the rows of a chunk, from what the warp copied itself; queries past the end get probability 0.
 * Lanes 0 and 1 of a group write -logsumexp of its two rows, lanes 2 and 3 -delta. */
template <int D, int CHUNK, bool SINGLE> static __device__ __forceinline__ void take_rows(int chunk, int tokens)
{
    fused_place<D, CHUNK, SINGLE> place;
    typedef fused_layout<D, CHUNK> layout;
    lane_position at = place.at;
    int row = at.group + at.pair % 2 * 8;
    const float *raw = reinterpret_cast<const float *>(place.after_keys() + layout::raw_at);
    for (int tile = place.warp; tile < CHUNK / 16; tile += place.warps) {
        int inside = tokens - chunk * CHUNK - tile * 16;
        if (inside <= 0)
            break;
        float value = raw[tile * 32 + at.pair / 2 * 16 + row];
        if (SINGLE) {
            uint32_t to = place.stages + tile * layout::tile_bytes;
            float low, high;
            take_delta<D, CHUNK>(low, high, to + (chunk % 2 * 2 + 1) * layout::rows_bytes, to + layout::outs_at, at);
            value = at.pair < 2 ? value : at.pair % 2 ? high : low;
        }
        value *= at.pair < 2 ? -LOG2_E : -1;
        if (at.pair < 2 && row >= inside)
            value = -INFINITY;
        place.rows(chunk)[(tile * 16 + row) / 2 * 4 + at.pair / 2 * 2 + row % 2] = value;
    }
}

/* ---- the warp's keys ---- */

/* Starts the copy of the warp's keys and values. */
template <int HEAD_DIM, int CHUNK, bool SINGLE>
static __device__ __forceinline__ void copy_own(uint32_t own_values, const attention_operands<bfloat16> &in)
{
    constexpr int D = padded<HEAD_DIM>;
    fused_place<D, CHUNK, SINGLE> place;
    uint32_t own_keys = shared_address(place.own_keys());
    int column = place.head() * HEAD_DIM;
#pragma unroll
    for (int t = 0; t < KEY_TILES; t++) {
        uint32_t first = place.image() * in.tokens + place.first_key + t * 16;
        int inside = in.tokens - place.first_key - t * 16, offset = t * fused_layout<D, CHUNK>::tile_bytes;
        copy_tile<HEAD_DIM>(own_keys + offset, in.key + (first * in.row + column), in.row, inside, place.at.lane);
        copy_tile<HEAD_DIM>(own_values + offset, in.value + (first * in.value_row + column), in.value_row, inside,
                            place.at.lane);
    }
}

/* A key so long that |k|^2 is infinite has factor 0 (in the forward pass too). It becomes 0, so that it leaves dQ alone
 * and its logits are 0 in any case; by the four lanes of its group. Returns its bias. */
template <int D> static __device__ __forceinline__ float forget_row(uint8_t *row, lane_position at)
{
#pragma unroll 1
    for (int i = at.pair * 4; i < rows_of<D>::bytes; i += 16)
        *reinterpret_cast<uint32_t *>(row + i) = 0;
    return 0;
}

/* The warp's keys and values, which have arrived, to registers; gradients start from 0. */
template <int D, int CHUNK, bool SINGLE>
static __device__ __forceinline__ void load_own(fused_keys<D> &own, uint32_t own_values,
                                                const attention_operands<bfloat16> &in)
{
    fused_place<D, CHUNK, SINGLE> place;
    constexpr int tile_bytes = fused_layout<D, CHUNK>::tile_bytes;
    lane_position at = place.at;
    uint32_t keys = shared_address(place.own_keys()) + matrix_offset<D>(DOWN, at.lane);
    own_values += matrix_offset<D>(DOWN, at.lane);
#pragma unroll
    for (int t = 0; t < KEY_TILES; t++) {
        float squares[2] = {};
        if (in.normalise_keys) {
            uint32_t rows[D / 16][4];
#pragma unroll
            for (int k = 0; k < D / 16; k++)
                load_matrices(rows[k], matrix_column<D>(keys + t * tile_bytes, k));
            square_norms(squares[0], squares[1], rows, at);
        }
#pragma unroll
        for (int k = 0; k < D / 16; k++)
            load_matrices(own.values[t][k], matrix_column<D>(own_values + t * tile_bytes, k));
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = t * 16 + i * 8 + at.group;
            float factor = key_factor(in, squares[i]), bias = __fdividef(log2_fast(factor * LN_2), factor);
            if (factor == 0)
                bias = forget_row<D>(place.own_keys() + row * rows_of<D>::bytes, at);
            place.own_columns()[row] = {factor, place.first_key + row < in.tokens ? bias : MASKED};
        }
#pragma unroll
        for (int j = 0; j < D / 8; j++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                own.key_gradient[t][j][c] = own.value_gradient[t][j][c] = 0;
    }
    __syncwarp();
}

#endif
