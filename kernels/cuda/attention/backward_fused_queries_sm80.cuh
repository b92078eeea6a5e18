/* dQ in the kernel that makes dK and dV (backward_fused_sm80.cu): every warp leaves its slopes in shared memory, and
 * the block multiplies them with its keys. Where several blocks hold the keys of a head, they add their parts in turn.
 */
#ifndef QUEST_KERNELS_CUDA_ATTENTION_BACKWARD_FUSED_QUERIES_SM80_CUH
#define QUEST_KERNELS_CUDA_ATTENTION_BACKWARD_FUSED_QUERIES_SM80_CUH

#include "kernels/cuda/attention/backward_fused_sm80.cuh"

/* ---- turns: the blocks of a head add to its dQ in the order of their keys ---- */

/* __threadfence() without its total order over all fences, which nothing here needs. */
static __device__ __forceinline__ void fence_device()
{
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
}

/* By one warp: returns when the same warp of the block before has left the parts of `chunks` chunks. That block has
 * begun before this one (the kernel gives out places in the order in which blocks begin), so it is not waited for in
 * vain. */
static __device__ __forceinline__ void await_turn(const unsigned *turn, unsigned chunks, int lane)
{
    if (lane == 0) {
        while (*reinterpret_cast<const volatile unsigned *>(turn) < chunks)
            __nanosleep(100);
        fence_device();
    }
    __syncwarp();
}

static __device__ __forceinline__ void pass_turn(unsigned *turn, unsigned chunks, int lane)
{
    __syncwarp();
    if (lane == 0) {
        fence_device();
        *reinterpret_cast<volatile unsigned *>(turn) = chunks;
    }
}

/* Gives parts to blocks in the order in which they begin, which turns[0] counts: a block only waits for those that
 * began before it. */
static __device__ __forceinline__ void take_part(unsigned *turns)
{
    if (threadIdx.x == 0) {
        int taken = (int)atomicAdd(turns, 1), sequence = taken / gridDim.x;
        block_head_image = {taken % (int)gridDim.x, sequence % (int)gridDim.y, sequence / (int)gridDim.y};
    }
    __syncthreads();
}

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
    static constexpr int columns = D == 64 && CHUNK == 64 ? 32 : 16, loads = columns / 16;
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

    /* `to` is the first of the rows' columns, a part of a head's; `inside` says how many rows there are. */
    template <int HEAD_DIM>
    __device__ __forceinline__ void write(bfloat16 *to, int stride, int inside, uint32_t part, lane_position at) const
    {
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int row = t * 16 + i * 8 + at.group;
#pragma unroll
                for (int l = 0; l < loads; l++)
                    write_halves(to + row * stride + l * 16, pack_bf16(sum[t][2 * l][2 * i], sum[t][2 * l][2 * i + 1]),
                                 pack_bf16(sum[t][2 * l + 1][2 * i], sum[t][2 * l + 1][2 * i + 1]),
                                 row < inside && is_of_head<HEAD_DIM>(part * (columns / 8) + l * 2 + at.pair % 2), at);
            }
    }
};

/* What the tasks of a warp in a chunk have in common. */
struct dq_work {
    bfloat16 *to;          /* dQ of the chunk's first query */
    int stride, inside;    /* of its rows; how many queries there are from the first one on */
    uint32_t slopes, keys; /* where the lane's first matrices lie */
    int key_tiles;         /* of the block */
    bool first, last;      /* whether the block is, among those of its head */
    float4 *partials;      /* of the chunk, in the order in which lanes keep them */
};

/* One task: TILES x 16 queries from number 32 pair on, a part of their columns. */
template <int HEAD_DIM, int CHUNK, int TILES>
static __device__ __forceinline__ void query_gradient(const dq_work &work, uint32_t pair, uint32_t part,
                                                      lane_position at)
{
    constexpr int D = padded<HEAD_DIM>;
    dq_task<D, CHUNK, TILES> task;
    float4 *partials = work.partials + (pair * (D / task.columns) + part) * (4 * task.loads * 32) + at.lane;
#pragma unroll
    for (int t = 0; t < TILES; t++)
        task.slopes[t] = matrix_column<CHUNK>(work.slopes, 2 * pair + t);
#pragma unroll
    for (int l = 0; l < task.loads; l++)
        task.keys[l] = matrix_column<D>(work.keys, part * task.loads + l);
    if (work.first)
        task.start();
    else
        task.start(partials);
    task.multiply_all(work.key_tiles);
    if (work.last)
        task.template write<HEAD_DIM>(work.to + (pair * 32 * work.stride + part * task.columns), work.stride,
                                      work.inside - 32 * (int)pair, part, at);
    else
        task.keep(partials);
}

/* dQ of a chunk that has met the keys: 32 queries and a part of the columns a warp. */
template <int HEAD_DIM, int CHUNK, bool SINGLE>
static __device__ __forceinline__ void query_gradients(int chunk, const attention_operands<bfloat16> &in,
                                                       const attention_derivatives<bfloat16> &derivatives)
{
    constexpr int D = padded<HEAD_DIM>;
    constexpr uint32_t parts = D / dq_task<D, CHUNK, 2>::columns;
    fused_place<D, CHUNK, SINGLE> place;
    lane_position at = place.at;
    int first = chunk * CHUNK, inside = in.tokens - first, stride = derivatives.gradient_row;
    uint32_t warps = place.warps, task = warps - 1 - place.warp, tasks = (uint32_t)min(CHUNK, inside + 31) / 32 * parts;
    if (task >= tasks)
        return;
    uint32_t to = (place.image() * in.tokens + first) * stride + place.head() * HEAD_DIM;
    dq_work work = {derivatives.query_gradient + to,
                    stride,
                    inside,
                    place.slopes(chunk) + matrix_offset<CHUNK>(ACROSS, at.lane),
                    shared_address(shared) + matrix_offset<D>(DOWN, at.lane),
                    place.key_tiles(in.tokens),
                    true,
                    true,
                    NULL};
    unsigned *turn = NULL;
    if constexpr (!SINGLE) {
        uint32_t block = place.block(), sequence = place.image() * in.heads + place.head();
        uint32_t chunks = (in.tokens + CHUNK - 1) / CHUNK;
        work.first = block == 0;
        work.last = block == gridDim.x - 1;
        work.partials = derivatives.partials + (sequence * chunks + chunk) * (CHUNK * D / 4);
        turn = derivatives.turns + 1 + (sequence * gridDim.x + block) * warps + place.warp;
        if (!work.first)
            await_turn(turn - warps, chunk + 1, at.lane);
    }
#pragma unroll 1
    for (; task < tasks; task += warps) {
        uint32_t pair = task / parts, part = task % parts;
        if (inside - (int)pair * 32 > 16)
            query_gradient<HEAD_DIM, CHUNK, 2>(work, pair, part, at);
        else
            query_gradient<HEAD_DIM, CHUNK, 1>(work, pair, part, at);
    }
    if (!SINGLE && !work.last)
        pass_turn(turn, chunk + 1, at.lane);
}

#endif
