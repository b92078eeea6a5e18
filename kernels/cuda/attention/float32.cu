/* Attention in float32, both ways: the reference of the GPU, kept simple. No tensor cores, no approximations.
 *
 * Three kernels of one shape. A warp owns one row (a query; in the kernel for dK and dV a key) and meets the rows of
 * the other side 32 at a time, which the block's 8 warps share in shared memory; lane l takes the products with row l,
 * then holds elements l, l + 32, ... of the result while the 32 rows are summed: 4 of them, or 8 where head_dim > 128.
 * Any number of tokens. A head with N tokens and d = head_dim reads 2 N d * 4 bytes for each 8 rows; 4 N N d FLOP
 * forward, 14 N N d backward.
 *
 *   shared memory:  left [32][d + 1], right [32][d + 1] of the other side; first [8][d], second [8][d] of the warps'
 * rows (d + 1: lanes that read one column of 32 rows meet 32 banks) */
#include "kernels/cuda/attention/records.cuh"

constexpr int ROW_WARPS = 8, OTHER_ROWS = 32;

static_assert(ROW_WARPS >= ATTENTION_LEAST_BLOCK, "more records than there is room for");

struct row_tile {
    float *left, *right, *first, *second; /* in shared memory, as above */
    int head_dim, stride;

    __device__ row_tile(float *shared, int width) : head_dim(width), stride(width + 1)
    {
        left = shared;
        right = left + OTHER_ROWS * stride;
        first = right + OTHER_ROWS * stride;
        second = first + ROW_WARPS * head_dim;
    }
};

static size_t tile_bytes(size_t head_dim)
{
    return (2 * OTHER_ROWS * (head_dim + 1) + 2 * ROW_WARPS * head_dim) * sizeof(float);
}

/* By the whole block: rows `at` to `at` + OTHER_ROWS of a head; zeros past the last. */
static __device__ void load_other(float *to, int stride, const float *from, int from_row, int at, int tokens,
                                  int head_dim)
{
    for (int i = threadIdx.x; i < OTHER_ROWS * head_dim; i += blockDim.x) {
        int row = i / head_dim, element = i % head_dim;
        to[row * stride + element] = at + row < tokens ? from[(size_t)(at + row) * from_row + element] : 0;
    }
}

static __device__ __forceinline__ float dot_row(const float *own, const float *other, int head_dim)
{
    float sum = 0;
    for (int d = 0; d < head_dim; d++)
        sum += own[d] * other[d];
    return sum;
}

/* sum[i] += weight of lane r * rows[r][lane + 32 i], over the 32 rows. */
template <int ELEMENTS>
static __device__ __forceinline__ void add_rows(float (&sum)[ELEMENTS], float weight, const float *rows, int stride,
                                                int head_dim, int lane)
{
    for (int row = 0; row < OTHER_ROWS; row++) {
        float w = __shfl_sync(0xffffffffu, weight, row);
#pragma unroll
        for (int i = 0; i < ELEMENTS; i++)
            if (lane + 32 * i < head_dim)
                sum[i] += w * rows[row * stride + lane + 32 * i];
    }
}

/* By one warp: to[0..head_dim) = from * scale. */
static __device__ __forceinline__ void load_own(float *to, const float *from, float scale, int head_dim, int lane)
{
    for (int d = lane; d < head_dim; d += 32)
        to[d] = from[d] * scale;
}

template <int ELEMENTS>
static __device__ __forceinline__ void store_own(float *to, const float (&row)[ELEMENTS], float scale, int head_dim,
                                                 int lane)
{
#pragma unroll
    for (int i = 0; i < ELEMENTS; i++)
        if (lane + 32 * i < head_dim)
            to[lane + 32 * i] = row[i] * scale;
}

template <int ELEMENTS>
__global__ void __launch_bounds__(32 * ROW_WARPS)
    attention_forward_rows(float *out, float *logsumexp, attention_record *records, attention_operands<float> in,
                           int head_dim)
{
    extern __shared__ float shared[];
    row_tile tile(shared, head_dim);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, head = blockIdx.y, image = blockIdx.z;
    int row = blockIdx.x * ROW_WARPS + warp, own = min(row, in.tokens - 1);
    size_t image_rows = (size_t)image * in.tokens;
    const float *query = in.query + (image_rows + own) * in.row + head * head_dim;
    const float *key = in.key + image_rows * in.row + head * head_dim;
    const float *value = in.value + image_rows * in.value_row + head * head_dim;
    load_own(tile.first + warp * head_dim, query, in.scale, head_dim, lane);

    float sum[ELEMENTS] = {}, total = 0, weighted = 0, top = -INFINITY, key_square = 0;
    norm_summary queries, keys;
    for (int at = 0; at < in.tokens; at += OTHER_ROWS) {
        __syncthreads();
        load_other(tile.left, tile.stride, key, in.row, at, in.tokens, head_dim);
        load_other(tile.right, tile.stride, value, in.value_row, at, in.tokens, head_dim);
        __syncthreads();
        bool inside = at + lane < in.tokens;
        const float *mine = tile.left + lane * tile.stride;
        float logit = inside ? dot_row(tile.first + warp * head_dim, mine, head_dim) : -INFINITY;
        float reference = fmaxf(top, warp_max(logit)), shrink = expf(top - reference);
        float exponential = expf(logit - reference);
        total = total * shrink + exponential;
        weighted = weighted * shrink + (inside ? exponential * logit : 0);
        top = reference;
#pragma unroll
        for (int i = 0; i < ELEMENTS; i++)
            sum[i] *= shrink;
        add_rows(sum, exponential, tile.right, tile.stride, head_dim, lane);
        if (records && blockIdx.x == 0 && warp == 0) {
            key_square = dot_row(mine, mine, head_dim);
            keys.add(key_square, inside);
        }
    }
    total = warp_sum(total);
    float log_total = top + logf(total);
    if (row < in.tokens) {
        store_own(out + ((image_rows + row) * in.heads + head) * head_dim, sum, 1 / total, head_dim, lane);
        if (lane == 0)
            logsumexp[((size_t)image * in.heads + head) * in.tokens + row] = log_total;
    }
    if (records) {
        row_summary entropies;
        float entropy = log_total - warp_sum(weighted) / total, square = dot_row(query, query, head_dim);
        bool owner = lane == 0 && row < in.tokens;
        entropies.add(fmaxf(entropy, 0), owner);
        queries.add(square, owner);
        write_record<1>(records + ((size_t)head * gridDim.z + image) * gridDim.x + blockIdx.x, queries, keys, top,
                        entropies, shared);
    }
}

/* Writes dQ and delta, which attention_backward_key_rows reads. */
template <int ELEMENTS>
__global__ void __launch_bounds__(32 * ROW_WARPS)
    attention_backward_query_rows(attention_operands<float> in, attention_derivatives<float> derivatives, int head_dim)
{
    extern __shared__ float shared[];
    row_tile tile(shared, head_dim);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, head = blockIdx.y, image = blockIdx.z;
    int row = blockIdx.x * ROW_WARPS + warp, own = min(row, in.tokens - 1);
    size_t image_rows = (size_t)image * in.tokens, out_row = ((image_rows + own) * in.heads + head) * head_dim;
    size_t of_row = ((size_t)image * in.heads + head) * in.tokens + own;
    const float *key = in.key + image_rows * in.row + head * head_dim;
    const float *value = in.value + image_rows * in.value_row + head * head_dim;
    float *query = tile.first + warp * head_dim, *out_gradient = tile.second + warp * head_dim;
    load_own(query, in.query + (image_rows + own) * in.row + head * head_dim, in.scale, head_dim, lane);
    load_own(out_gradient, derivatives.out_gradient + out_row, 1, head_dim, lane);
    float delta = 0, logsumexp = derivatives.logsumexp[of_row];
    for (int d = lane; d < head_dim; d += 32)
        delta += derivatives.out_gradient[out_row + d] * derivatives.out[out_row + d];
    delta = warp_sum(delta);

    float sum[ELEMENTS] = {};
    for (int at = 0; at < in.tokens; at += OTHER_ROWS) {
        __syncthreads();
        load_other(tile.left, tile.stride, key, in.row, at, in.tokens, head_dim);
        load_other(tile.right, tile.stride, value, in.value_row, at, in.tokens, head_dim);
        __syncthreads();
        float logit = dot_row(query, tile.left + lane * tile.stride, head_dim);
        float probability = at + lane < in.tokens ? expf(logit - logsumexp) : 0;
        float slope = probability * (dot_row(out_gradient, tile.right + lane * tile.stride, head_dim) - delta);
        add_rows(sum, slope, tile.left, tile.stride, head_dim, lane);
    }
    if (row < in.tokens) {
        store_own(derivatives.query_gradient + (image_rows + row) * derivatives.gradient_row + head * head_dim, sum,
                  in.scale, head_dim, lane);
        if (lane == 0)
            derivatives.delta[of_row] = delta;
    }
}

template <int ELEMENTS>
__global__ void __launch_bounds__(32 * ROW_WARPS)
    attention_backward_key_rows(attention_operands<float> in, attention_derivatives<float> derivatives, int head_dim)
{
    extern __shared__ float shared[];
    row_tile tile(shared, head_dim);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, head = blockIdx.y, image = blockIdx.z;
    int row = blockIdx.x * ROW_WARPS + warp, own = min(row, in.tokens - 1), width = in.heads * head_dim;
    size_t image_rows = (size_t)image * in.tokens, of_head = ((size_t)image * in.heads + head) * in.tokens;
    const float *query = in.query + image_rows * in.row + head * head_dim;
    const float *out_gradient = derivatives.out_gradient + image_rows * width + head * head_dim;
    float *key = tile.first + warp * head_dim, *value = tile.second + warp * head_dim;
    load_own(key, in.key + (image_rows + own) * in.row + head * head_dim, in.scale, head_dim, lane);
    load_own(value, in.value + (image_rows + own) * in.value_row + head * head_dim, 1, head_dim, lane);

    float key_sum[ELEMENTS] = {}, value_sum[ELEMENTS] = {};
    for (int at = 0; at < in.tokens; at += OTHER_ROWS) {
        __syncthreads();
        load_other(tile.left, tile.stride, query, in.row, at, in.tokens, head_dim);
        load_other(tile.right, tile.stride, out_gradient, width, at, in.tokens, head_dim);
        __syncthreads();
        float probability = 0, slope = 0;
        if (at + lane < in.tokens) {
            float logit = dot_row(key, tile.left + lane * tile.stride, head_dim);
            probability = expf(logit - derivatives.logsumexp[of_head + at + lane]);
            slope = probability * (dot_row(value, tile.right + lane * tile.stride, head_dim) -
                                   derivatives.delta[of_head + at + lane]);
        }
        add_rows(value_sum, probability, tile.right, tile.stride, head_dim, lane);
        add_rows(key_sum, slope, tile.left, tile.stride, head_dim, lane);
    }
    if (row < in.tokens) {
        size_t to = (image_rows + row) * derivatives.gradient_row + head * head_dim;
        store_own(derivatives.key_gradient + to, key_sum, in.scale, head_dim, lane);
        store_own(derivatives.value_gradient + to, value_sum, 1, head_dim, lane);
    }
}

/* ---- launches ---- */

static dim3 grid_of(const struct attention_shape *shape)
{
    return dim3(div_up(shape->tokens, ROW_WARPS), shape->heads, shape->batch);
}

/* Whether a lane holds 8 elements of a row instead of 4. */
static bool is_long(const struct attention_shape *shape)
{
    return shape->head_dim > 4 * 32;
}

/* Up to 82 KiB, at head_dim 256; what is more than 48 has to be asked for. */
template <typename K> static bool allow_shared(K kernel, size_t bytes, struct error *error)
{
    return CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes), error);
}

bool attention_forward_float32(struct context *ctx, float *out, float *logsumexp, struct attention_record_list *records,
                               const attention_operands<float> *in, const struct attention_shape *shape,
                               struct error *error)
{
    dim3 grid = grid_of(shape);
    size_t shared_bytes = tile_bytes(shape->head_dim);
    auto kernel = is_long(shape) ? attention_forward_rows<8> : attention_forward_rows<4>;
    records->of_head = shape->batch * grid.x;
    if (!allow_shared(kernel, shared_bytes, error))
        return false;
    kernel<<<grid, 32 * ROW_WARPS, shared_bytes, ctx->compute>>>(out, logsumexp, records->record, *in,
                                                                 (int)shape->head_dim);
    return cuda_launched(ctx, "attention_forward_rows", error);
}

bool attention_backward_float32(struct context *ctx, const attention_operands<float> *in,
                                const attention_derivatives<float> *derivatives, const struct attention_shape *shape,
                                struct error *error)
{
    size_t shared_bytes = tile_bytes(shape->head_dim);
    auto queries = is_long(shape) ? attention_backward_query_rows<8> : attention_backward_query_rows<4>;
    auto keys = is_long(shape) ? attention_backward_key_rows<8> : attention_backward_key_rows<4>;
    if (!allow_shared(queries, shared_bytes, error) || !allow_shared(keys, shared_bytes, error))
        return false;
    queries<<<grid_of(shape), 32 * ROW_WARPS, shared_bytes, ctx->compute>>>(*in, *derivatives, (int)shape->head_dim);
    if (!cuda_launched(ctx, "attention_backward_query_rows", error))
        return false;
    keys<<<grid_of(shape), 32 * ROW_WARPS, shared_bytes, ctx->compute>>>(*in, *derivatives, (int)shape->head_dim);
    return cuda_launched(ctx, "attention_backward_key_rows", error);
}
