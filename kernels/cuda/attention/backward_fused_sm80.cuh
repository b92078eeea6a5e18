/* dQ in the kernel that makes dK and dV (backward_fused_sm80.cu): every warp leaves its slopes in shared memory, and
 * the block multiplies them with its keys. Where several blocks hold the keys of a head, they add their parts in turn.
 */
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

/* ---- matrices at a constant distance from an address ---- */

template <int OFFSET> static __device__ __forceinline__ void load_matrices_at(uint32_t (&to)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4 + %5];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address), "n"(OFFSET)
                 : "memory");
}

template <int OFFSET>
static __device__ __forceinline__ void load_matrices_transposed_at(uint32_t (&to)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4 + %5];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address), "n"(OFFSET)
                 : "memory");
}

/* dS^T of 16 keys and 16 queries, as C fragments, to the rows of a warp; `to` is the lane's first word. */
template <int CHUNK, int OFFSET>
static __device__ __forceinline__ void store_slopes(uint32_t to, const uint32_t (&slopes)[4])
{
    constexpr int eight_rows = 8 * rows_of<CHUNK>::bytes;
    asm volatile("st.shared.b32 [%0 + %6], %2; st.shared.b32 [%0 + %7], %3; st.shared.b32 [%1 + %6], %4; "
                 "st.shared.b32 [%1 + %7], %5;" ::"r"(to),
                 "r"(to ^ 16), "r"(slopes[0]), "r"(slopes[1]), "r"(slopes[2]), "r"(slopes[3]), "n"(OFFSET),
                 "n"(OFFSET + eight_rows)
                 : "memory");
}

/* ---- turns: the blocks of a head add to its dQ in the order of their keys ---- */

/* By one warp: returns when the same warp of the block before has left the parts of `chunks` chunks. That block has
 * begun before this one (the kernel gives out places in the order in which blocks begin), so it is not waited for in
 * vain. */
static __device__ __forceinline__ void await_turn(const unsigned *turn, unsigned chunks, int lane)
{
    if (lane == 0) {
        while (*reinterpret_cast<const volatile unsigned *>(turn) < chunks)
            __nanosleep(100);
        __threadfence();
    }
    __syncwarp();
}

static __device__ __forceinline__ void pass_turn(unsigned *turn, unsigned chunks, int lane)
{
    __syncwarp();
    if (lane == 0) {
        __threadfence();
        *reinterpret_cast<volatile unsigned *>(turn) = chunks;
    }
}

/* Where a block stands among those of its head. */
struct dq_turns {
    bool first, last;
    const unsigned *before; /* of the warp in the block before */
    unsigned *own;
    float4 *partials; /* of the head, in the order in which lanes keep them */
};

/* ---- dQ of a chunk ---- */

/* Two neighbouring C tiles, one of their two rows: a lane has two columns of each, 4 bytes when rounded. Neighbours
 * exchange one word, so that each writes 8 bytes and together they fill sectors of 32. */
static __device__ __forceinline__ void write_halves(bfloat16 *to, uint32_t left, uint32_t right, bool wanted,
                                                    lane_position at)
{
    bool odd = at.pair % 2;
    uint32_t other = __shfl_xor_sync(0xffffffffu, odd ? left : right, 1);
    if (wanted)
        *reinterpret_cast<uint2 *>(to + (at.pair / 2 * 4 + odd * 8)) =
            odd ? make_uint2(other, right) : make_uint2(left, other);
}

/* A task of one warp: dQ of TILES x 16 queries, `columns` of their columns. */
template <int D, int CHUNK, int TILES> struct dq_task {
    static constexpr int columns = D % 32 == 0 ? 32 : 16, loads = columns / 16;
    static constexpr int key_step = 16 * rows_of<D>::bytes, slopes_step = 16 * rows_of<CHUNK>::bytes;
    float sum[TILES][2 * loads][4];
    uint32_t slopes[TILES], keys[loads]; /* where the lane's next matrices lie */

    /* 16 keys; those TILE x 16 further. */
    template <int TILE> __device__ __forceinline__ void multiply_keys()
    {
        uint32_t a[TILES][4], b[4];
#pragma unroll
        for (int t = 0; t < TILES; t++)
            load_matrices_transposed_at<TILE * slopes_step>(a[t], slopes[t]);
#pragma unroll
        for (int l = 0; l < loads; l++) {
            load_matrices_transposed_at<TILE * key_step>(b, keys[l]);
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                multiply_add(sum[t][2 * l], a[t], b[0], b[1]);
                multiply_add(sum[t][2 * l + 1], a[t], b[2], b[3]);
            }
        }
    }

    __device__ __forceinline__ void advance(int tiles)
    {
#pragma unroll
        for (int t = 0; t < TILES; t++)
            slopes[t] += tiles * slopes_step;
#pragma unroll
        for (int l = 0; l < loads; l++)
            keys[l] += tiles * key_step;
    }

    __device__ __forceinline__ void multiply_all(int key_tiles)
    {
        int left = key_tiles;
#pragma unroll 1
        for (; left >= 4; left -= 4) {
            multiply_keys<0>();
            multiply_keys<1>();
            multiply_keys<2>();
            multiply_keys<3>();
            advance(4);
        }
#pragma unroll 1
        for (; left > 0; left--) {
            multiply_keys<0>();
            advance(1);
        }
    }

    __device__ __forceinline__ void start()
    {
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int n = 0; n < 2 * loads; n++)
                sum[t][n][0] = sum[t][n][1] = sum[t][n][2] = sum[t][n][3] = 0;
    }

    __device__ __forceinline__ void start(const float4 *partials)
    {
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int n = 0; n < 2 * loads; n++) {
                float4 part = __ldcg(partials + (t * 2 * loads + n) * 32);
                sum[t][n][0] = part.x;
                sum[t][n][1] = part.y;
                sum[t][n][2] = part.z;
                sum[t][n][3] = part.w;
            }
    }

    __device__ __forceinline__ void keep(float4 *partials) const
    {
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int n = 0; n < 2 * loads; n++)
                __stcg(partials + (t * 2 * loads + n) * 32,
                       make_float4(sum[t][n][0], sum[t][n][1], sum[t][n][2], sum[t][n][3]));
    }

    /* `to` is the first of the rows' columns, `inside` says how many rows there are. */
    __device__ __forceinline__ void write(bfloat16 *to, int stride, int inside, lane_position at) const
    {
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int row = t * 16 + i * 8 + at.group;
#pragma unroll
                for (int l = 0; l < loads; l++)
                    write_halves(to + row * stride + l * 16, pack_bf16(sum[t][2 * l][2 * i], sum[t][2 * l][2 * i + 1]),
                                 pack_bf16(sum[t][2 * l + 1][2 * i], sum[t][2 * l + 1][2 * i + 1]), row < inside, at);
            }
    }
};

/* One task: given are the first matrices of the chunk's slopes and of the keys, and what differs from task to task. */
template <int D, int CHUNK, bool SINGLE, int TILES>
static __device__ __forceinline__ void query_gradient(bfloat16 *to, int stride, int inside, uint32_t slopes,
                                                      uint32_t keys, int key_tiles, int first_tile, int part,
                                                      float4 *partials, const dq_turns &turns, lane_position at)
{
    dq_task<D, CHUNK, TILES> task;
#pragma unroll
    for (int t = 0; t < TILES; t++)
        task.slopes[t] = matrix_column<CHUNK>(slopes, first_tile + t);
#pragma unroll
    for (int l = 0; l < task.loads; l++)
        task.keys[l] = matrix_column<D>(keys, part * task.loads + l);
    if (SINGLE || turns.first)
        task.start();
    else
        task.start(partials);
    task.multiply_all(key_tiles);
    if (SINGLE || turns.last)
        task.write(to, stride, inside, at);
    else
        task.keep(partials);
}

/* dQ of a chunk's queries: the slopes of the block's keys times the keys, 32 queries and a part of the columns a
 * warp. `to` is the row of the head's first token. */
template <int D, int CHUNK, bool SINGLE>
static __device__ __forceinline__ void query_gradients(bfloat16 *to, int stride, uint32_t slopes, uint32_t keys,
                                                       int key_tiles, int chunk, int tokens, const dq_turns &turns,
                                                       int warp, lane_position at)
{
    typedef dq_task<D, CHUNK, 2> task_of_two;
    constexpr uint32_t parts = D / task_of_two::columns;
    int first = chunk * CHUNK;
    uint32_t warps = blockDim.x / 32, task = warps - 1 - warp;
    uint32_t tasks = (uint32_t)min(CHUNK, tokens - first + 31) / 32 * parts;
    if (task >= tasks)
        return;
    slopes += matrix_offset<CHUNK>(ACROSS, at.lane);
    keys += matrix_offset<D>(DOWN, at.lane);
    if (!SINGLE && !turns.first)
        await_turn(turns.before, chunk + 1, at.lane);
#pragma unroll 1
    for (; task < tasks; task += warps) {
        uint32_t pair = task / parts, part = task % parts;
        int row = first + (int)pair * 32, inside = tokens - row;
        bfloat16 *rows = to + (row * stride + part * task_of_two::columns);
        float4 *partials =
            turns.partials + (chunk * (CHUNK / 32 * parts) + task) * (4 * task_of_two::loads * 32) + at.lane;
        if (inside > 16)
            query_gradient<D, CHUNK, SINGLE, 2>(rows, stride, inside, slopes, keys, key_tiles, 2 * pair, part, partials,
                                                turns, at);
        else
            query_gradient<D, CHUNK, SINGLE, 1>(rows, stride, inside, slopes, keys, key_tiles, 2 * pair, part, partials,
                                                turns, at);
    }
    if (!SINGLE && !turns.last)
        pass_turn(turns.own, chunk + 1, at.lane);
}

#endif
