/* Statistics of one block: collected by each lane, reduced over the block in a fixed order, written as one record. */
#ifndef QUEST_KERNELS_CUDA_ATTENTION_RECORDS_CUH
#define QUEST_KERNELS_CUDA_ATTENTION_RECORDS_CUH

#include <math.h>

#include "kernels/cuda/attention/attention.cuh"
#include "kernels/cuda/attention/mma_sm80.cuh"

struct norm_summary {
    float sum = 0, squares = 0, least = INFINITY, largest = 0;

    __device__ __forceinline__ void add(float square, bool valid)
    {
        float norm = sqrtf(square);
        if (valid) {
            sum += norm;
            squares += square;
            least = fminf(least, norm);
            largest = fmaxf(largest, norm);
        }
    }
};

struct row_summary {
    float sum = 0, least = INFINITY;

    __device__ __forceinline__ void add(float entropy, bool valid)
    {
        if (valid) {
            sum += entropy;
            least = fminf(least, entropy);
        }
    }
};

template <typename N> static __device__ __forceinline__ N combine_statistic(int field, N a, N b)
{
    if (field == STATISTIC_Q_MIN || field == STATISTIC_K_MIN || field == STATISTIC_ENTROPY_MIN)
        return fmin(a, b);
    if (field == STATISTIC_Q_MAX || field == STATISTIC_K_MAX || field == STATISTIC_LOGIT_MAX)
        return fmax(a, b);
    return a + b;
}

/* Combines each field over the lanes whose numbers differ in the bits NEAREST to 16. */
template <int NEAREST> static __device__ __forceinline__ void combine_lanes(attention_record &record)
{
#pragma unroll
    for (int field = 0; field < ATTENTION_STATISTICS; field++)
        record.value[field] = combine_statistic(field, record.value[field], lane_xor<NEAREST>(record.value[field]));
    if constexpr (NEAREST < 16)
        combine_lanes<2 * NEAREST>(record);
}

/* Called by all threads of a block; overwrites the start of `shared` after all have come. Only every NEAREST-th lane
 * has something to give. */
template <int NEAREST>
static __device__ __forceinline__ void write_record(attention_record *record, const norm_summary &queries,
                                                    const norm_summary &keys, float largest_logit,
                                                    const row_summary &entropies, void *shared)
{
    attention_record mine = {{queries.sum, queries.squares, queries.least, queries.largest, keys.sum, keys.squares,
                              keys.least, keys.largest, largest_logit, entropies.sum, entropies.least}};
    attention_record *of_warps = static_cast<attention_record *>(shared);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    if constexpr (NEAREST < 32)
        combine_lanes<NEAREST>(mine);
    __syncthreads();
    if (lane == 0)
        of_warps[warp] = mine;
    __syncthreads();
    if (threadIdx.x < ATTENTION_STATISTICS) {
        float total = of_warps[0].value[threadIdx.x];
        for (int w = 1; w < warps; w++)
            total = combine_statistic(threadIdx.x, total, of_warps[w].value[threadIdx.x]);
        record->value[threadIdx.x] = total;
    }
}

#endif
