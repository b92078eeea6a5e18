/* Column sums: the last step of every bias gradient, and the whole of one where cuBLASLt does not offer it. */
#include "kernels/cuda/column_sum.cuh"

size_t cuda_column_sum_workspace_bytes(const struct context_options *options)
{
    const struct workload *w = &options->workload;
    size_t rows = w->batch * (w->patches + 1);
    size_t widest = maximum(maximum(w->hidden, 3 * w->dim), w->classes);
    return minimum(rows / SHORTEST_CHUNK + 1, MOST_LINES) * widest * sizeof(float);
}

struct destinations {
    float *sums[3];
};

/* A block takes 32 columns: lane = column, and its 8 warps share out the lines, so that a column's loads are in flight
 * together. Order: within a warp by line, then by warp. grid (dim / 32, arrays). */
__global__ void column_sum_finish_kernel(destinations to, const float *partial, size_t lines, size_t dim)
{
    __shared__ float shared[STRIP_WARPS][32];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    size_t column = blockIdx.x * (size_t)32 + lane;
    const float *array = partial + blockIdx.y * dim;
    float total = 0;
    if (column < dim) {
#pragma unroll 4
        for (size_t line = warp; line < lines; line += STRIP_WARPS)
            total += array[line * gridDim.y * dim + column];
    }
    shared[warp][lane] = total;
    __syncthreads();
    if (warp == 0 && column < dim) {
        for (int w = 1; w < STRIP_WARPS; w++)
            total += shared[w][lane];
        to.sums[blockIdx.y][column] += total;
    }
}

bool cuda_column_sum_finish(struct context *ctx, float *const sums[], int arrays, const float *partial, size_t lines,
                            size_t dim, struct error *error)
{
    destinations to = {};
    for (int i = 0; i < arrays; i++)
        to.sums[i] = sums[i];
    dim3 grid(div_up(dim, 32), (unsigned)arrays);
    column_sum_finish_kernel<<<grid, STRIP_THREADS, 0, ctx->compute>>>(to, partial, lines, dim);
    return cuda_launched(ctx, "column_sum_finish", error);
}

enum { LINES_IN_FLIGHT = 8 };

/* partial[chunk][column] = sum of x over the chunk's rows; x T [rows, dim]. Reads x once: sizeof(T) bytes a number, and
 * writes 4 bytes a column and chunk (at least 128 rows). */
template <typename T, int VEC>
__global__ void column_sum_kernel(float *partial, const T *x, size_t rows, size_t dim, size_t rows_per_chunk)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    size_t column = (blockIdx.x * (size_t)32 + lane) * VEC;
    size_t end = min(rows, (blockIdx.y + 1) * rows_per_chunk);
    float sum[VEC] = {};
    if (column < dim) {
        for (size_t row = blockIdx.y * rows_per_chunk + warp; row < end; row += LINES_IN_FLIGHT * STRIP_WARPS) {
            closed_pack<T, VEC> closed[LINES_IN_FLIGHT];
#pragma unroll
            for (int n = 0; n < LINES_IN_FLIGHT; n++)
                if (row + n * STRIP_WARPS < end)
                    closed[n] = load_closed<VEC>(x + (row + n * STRIP_WARPS) * dim + column, 0);
#pragma unroll
            for (int n = 0; n < LINES_IN_FLIGHT; n++) {
                if (row + n * STRIP_WARPS >= end)
                    break;
                pack<T, VEC> line = open_pack<T, VEC>(closed[n]);
#pragma unroll
                for (int i = 0; i < VEC; i++)
                    sum[i] += to_float(line.value[i]);
            }
        }
    }
    store_partial_sums(partial + blockIdx.y * dim, sum, column, dim);
}

template <typename T, int VEC>
static bool column_sum(struct context *ctx, float *sums, const void *x, size_t rows, size_t dim, struct error *error)
{
    strips cut = cut_strips(ctx, rows, dim, 32 * VEC, 128);
    void *partial;
    if (!cuda_workspace(ctx, &partial, cut.grid.y * dim * sizeof(float), "column_sum", error))
        return false;
    column_sum_kernel<T, VEC>
        <<<cut.grid, STRIP_THREADS, 0, ctx->compute>>>((float *)partial, (const T *)x, rows, dim, cut.rows_per_chunk);
    return cuda_launched(ctx, "column_sum", error) &&
           cuda_column_sum_finish(ctx, &sums, 1, (float *)partial, cut.grid.y, dim, error);
}

bool cuda_column_sum(struct context *ctx, float *sums, const void *x, size_t rows, size_t dim, struct error *error)
{
    return with_access(ctx->dtype, dim, [&](auto a) {
        return column_sum<typename decltype(a)::type, a.width>(ctx, sums, x, rows, dim, error);
    });
}

/* out T [rows, dim] += bias T [dim], for products whose library offers no bias. A thread keeps its columns' bias and
 * walks down its chunk; moves 2 sizeof(T) bytes a number. */
template <typename T, int VEC>
__global__ void add_bias_kernel(T *out, const T *bias, size_t rows, size_t dim, size_t rows_per_chunk)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    size_t column = (blockIdx.x * (size_t)32 + lane) * VEC;
    if (column >= dim)
        return;
    size_t end = min(rows, (blockIdx.y + 1) * rows_per_chunk);
    pack<T, VEC> add = load_pack<VEC>(bias + column, 0);
    for (size_t row = blockIdx.y * rows_per_chunk + warp; row < end; row += STRIP_WARPS) {
        pack<T, VEC> line = load_pack<VEC>(out + row * dim + column, 0);
#pragma unroll
        for (int i = 0; i < VEC; i++)
            line.value[i] = from_float<T>(to_float(line.value[i]) + to_float(add.value[i]));
        store_pack<VEC>(out + row * dim + column, 0, line);
    }
}

template <typename T, int VEC>
static bool add_bias(struct context *ctx, void *out, const void *bias, size_t rows, size_t dim, struct error *error)
{
    strips cut = cut_strips(ctx, rows, dim, 32 * VEC, 128);
    add_bias_kernel<T, VEC>
        <<<cut.grid, STRIP_THREADS, 0, ctx->compute>>>((T *)out, (const T *)bias, rows, dim, cut.rows_per_chunk);
    return cuda_launched(ctx, "add_bias", error);
}

bool cuda_add_bias(struct context *ctx, void *out, const void *bias, size_t rows, size_t dim, struct error *error)
{
    return with_access(ctx->dtype, dim, [&](auto a) {
        return add_bias<typename decltype(a)::type, a.width>(ctx, out, bias, rows, dim, error);
    });
}
