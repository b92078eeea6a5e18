/* Statistics of the bfloat16 forward kernel. Each warp leaves in shared memory one number a query, in the lane that
 * owns the query; at the end one warp each sums up what all warps left of queries, keys and entropies.
 *
 * A slot without a query holds -0: nothing to a sum or a maximum, and as an unsigned number above all that counts. */
#ifndef QUEST_KERNELS_CUDA_ATTENTION_FORWARD_STATISTICS_SM80_CUH
#define QUEST_KERNELS_CUDA_ATTENTION_FORWARD_STATISTICS_SM80_CUH

#include "kernels/cuda/attention/forward_sm80.cuh"

/* Of one warp. Lane l owns query 16 (l % 4 / 2) + 8 (l % 2) + l / 4, and slot l. */
struct __align__(128) forward_kept
{
    float squares[32];   /* |q|^2 */
    float entropies[32]; /* in nats; with statistics */
    float largest_logit; /* with statistics */
    bool safe;           /* no chunk needs a reference; no register is left for it */
};

static __device__ __forceinline__ const forward_kept *kept_of(const forward_kept *first, int bytes)
{
    return reinterpret_cast<const forward_kept *>(reinterpret_cast<const uint8_t *>(first) + bytes);
}

/* ---- rows of a group of four lanes: TILES tiles of two halves, one of which each lane owns ---- */

template <int TILES> static __device__ __forceinline__ float own_row(const float (&rows)[TILES][2], int pair)
{
    float first = pair % 2 ? rows[0][1] : rows[0][0], last = pair % 2 ? rows[TILES - 1][1] : rows[TILES - 1][0];
    return TILES == 1 || pair < 2 ? first : last;
}

/* The sum over the four lanes, of the own row only: half the exchanges of four sums on all lanes. */
template <int TILES> static __device__ __forceinline__ float own_row_sum(const float (&parts)[TILES][2], int pair)
{
    float half[TILES];
#pragma unroll
    for (int t = 0; t < TILES; t++)
        half[t] = (pair % 2 ? parts[t][1] : parts[t][0]) + lane_xor<1>(pair % 2 ? parts[t][0] : parts[t][1]);
    if (TILES == 1)
        return half[0] + lane_xor<2>(half[0]);
    return (pair < 2 ? half[0] : half[TILES - 1]) + lane_xor<2>(pair < 2 ? half[TILES - 1] : half[0]);
}

/* ---- over the lanes of a warp ---- */

static __device__ __forceinline__ uint32_t warp_least(uint32_t x)
{
    uint32_t y;
    asm volatile("redux.sync.min.u32 %0, %1, 0xffffffff;" : "=r"(y) : "r"(x));
    return y;
}

static __device__ __forceinline__ int warp_largest(int x)
{
    int y;
    asm volatile("redux.sync.max.s32 %0, %1, 0xffffffff;" : "=r"(y) : "r"(x));
    return y;
}

/* Numbers that are not negative order as their bits do; others after this, which is its own inverse. */
static __device__ __forceinline__ int ordered(int bits)
{
    return bits ^ (bits >> 31 & 0x7fffffff);
}

static __device__ __forceinline__ float warp_largest(float x)
{
    return __int_as_float(ordered(warp_largest(ordered(__float_as_int(x)))));
}

/* Sums of two numbers: of `a` in the lower half of the lanes, of `b` in the upper. */
static __device__ __forceinline__ float warp_sums(float a, float b, int lane)
{
    float sum = (lane < 16 ? a : b) + lane_xor<16>(lane < 16 ? b : a);
    sum += lane_xor<8>(sum);
    sum += lane_xor<4>(sum);
    sum += lane_xor<2>(sum);
    return sum + lane_xor<1>(sum);
}

/* ---- norms ---- */

struct lane_norms {
    float sum = 0, squares = 0, largest = 0;
    uint32_t least = 0x7f800000; /* infinity */

    __device__ __forceinline__ void add(float square)
    {
        float norm = sqrt_fast(square);
        sum += norm;
        squares += square;
        largest = fmaxf(largest, norm);
        least = min(least, __float_as_uint(norm));
    }

    /* Four numbers: sum, sum of squares, least, largest. */
    __device__ __forceinline__ void write(float *to, int lane) const
    {
        float sums = warp_sums(sum, squares, lane);
        uint32_t smallest = warp_least(least);
        int most = warp_largest(__float_as_int(largest));
        if (lane % 16 == 0)
            to[lane / 16] = sums;
        if (lane == 0) {
            to[2] = __uint_as_float(smallest);
            to[3] = __int_as_float(most);
        }
    }
};

/* |k|^2 of the keys of a chunk that hold a token; -0 for the others. */
template <typename RING, int COUNT>
static __device__ __forceinline__ void load_key_squares(float (&squares)[COUNT], const RING &ring, int chunk,
                                                        int inside, int lane)
{
    const float *from = ring.squares(chunk) + lane;
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        squares[i] = lane + 32 * i < inside ? from[32 * i] : -0.0f;
}

template <typename RING, int CHUNK>
static __device__ __forceinline__ float largest_key_square(const RING &ring, int chunk, int inside, int lane)
{
    float squares[CHUNK / 32], largest = 0;
    load_key_squares(squares, ring, chunk, inside, lane);
#pragma unroll
    for (int i = 0; i < CHUNK / 32; i++)
        largest = fmaxf(largest, squares[i]);
    return __int_as_float(warp_largest(__float_as_int(largest)));
}

/* ---- logits ---- */

/* The largest logit of a warp's queries, base 2. `plain`: no reference has moved. */
template <int D>
static __device__ __forceinline__ float largest_logit(forward_rows<D, true> &rows, bool plain, int first_query,
                                                      int tokens, lane_position at)
{
    constexpr int tiles = forward_layout<D>::tiles;
    if (first_query + 16 * tiles > tokens) {
        asm volatile(""); /* a branch: few warps come here */
#pragma unroll
        for (int t = 0; t < tiles; t++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                rows.top[t][i] = first_query + t * 16 + i * 8 + at.group < tokens ? rows.top[t][i] : 0;
    }
    if (plain) {
        uint32_t two = largest_of_two(rows.top[0][0], rows.top[0][1]);
        if (tiles > 1)
            two = largest_of_two(two, largest_of_two(rows.top[tiles - 1][0], rows.top[tiles - 1][1]));
        float largest = fmaxf(__uint_as_float(two << 16), __uint_as_float(two & 0xffff0000));
        return log2_fast(__int_as_float(warp_largest(__float_as_int(largest))));
    }
    float logit = -INFINITY;
#pragma unroll
    for (int t = 0; t < tiles; t++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint32_t two = rows.top[t][i];
            float largest = fmaxf(__uint_as_float(two << 16), __uint_as_float(two & 0xffff0000));
            /* A reference that has moved is a logit itself: infinite ones leave no exponential. */
            float least = rows.shift[t][i] != 0 ? 0.0f : -INFINITY;
            logit = fmaxf(logit, fmaxf(log2_fast(largest), least) - rows.shift[t][i]);
        }
    return warp_largest(logit);
}

/* ---- the record ---- */

/* Of what `warps` warps have left, by one warp. */
static __device__ __forceinline__ void write_queries(attention_record *record, const forward_kept *kept, int warps,
                                                     int stride, int lane)
{
    lane_norms queries;
    for (int w = 0; w < warps; w++)
        queries.add(kept_of(kept, w * stride)->squares[lane]);
    queries.write(record->value + STATISTIC_Q_SUM, lane);
}

static __device__ __forceinline__ void write_logits(attention_record *record, const forward_kept *kept, int warps,
                                                    int stride, int lane)
{
    float sum = 0;
    uint32_t least = 0x7f800000; /* infinity */
    for (int w = 0; w < warps; w++) {
        float entropy = kept_of(kept, w * stride)->entropies[lane];
        sum += entropy;
        least = min(least, __float_as_uint(entropy));
    }
    float logit = warp_largest(lane < warps ? kept_of(kept, lane * stride)->largest_logit : -INFINITY) * LN_2;
    sum = warp_sums(sum, 0, lane);
    least = warp_least(least);
    if (lane == 0) {
        record->value[STATISTIC_LOGIT_MAX] = logit;
        record->value[STATISTIC_ENTROPY_SUM] = sum;
        record->value[STATISTIC_ENTROPY_MIN] = __uint_as_float(least);
    }
}

/* By all threads of a block, after their queries. `kept` is the first warp's, others are `stride` bytes apart; `keys`
 * are the last warp's. */
static __device__ __forceinline__ void write_record(attention_record *record, const forward_kept *kept, int stride,
                                                    const lane_norms &keys)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    __syncthreads();
    if (warp > 1 && warp < warps - 1)
        return;
    if (warp == 0)
        write_queries(record, kept, warps, stride, lane);
    if (warp == 1 % warps)
        write_logits(record, kept, warps, stride, lane);
    if (warp == warps - 1)
        keys.write(record->value + STATISTIC_K_SUM, lane);
}

#endif
