/* Exact GELU with the bias of the product before it (kernels.h). The strips of column_sum.cuh: a thread keeps the bias
 * of its VEC columns in registers and walks down its chunk's rows, four rows in flight.
 *   forward   2 sizeof(T) bytes a number; the bias once a warp and chunk
 *   backward  3 sizeof(T) bytes a number, and 8 bytes a column and chunk for the bias gradient
 * (A100, bf16: 4 and 6 bytes, 2.0 TB/s.) */
#include "kernels/cuda/column_sum.cuh"

enum { ROWS_IN_FLIGHT = 4 };

/* The standard normal's distribution and density at x. */
template <typename T> __device__ __forceinline__ void normal_at(float x, float *distribution, float *density);

template <> __device__ __forceinline__ void normal_at<float>(float x, float *distribution, float *density)
{
    *distribution = 0.5f + 0.5f * erff(x * 0.70710678f);
    *density = 0.39894228f * expf(-0.5f * x * x);
}

/* For bfloat16, erff's 30 instructions would take as long as the memory traffic. Abramowitz and Stegun 7.1.26 (error
 * below 1.5e-7) needs one exponential, which is the density's too. */
template <> __device__ __forceinline__ void normal_at<bfloat16>(float x, float *distribution, float *density)
{
    float exponential = __expf(-0.5f * x * x);
    float t = __fdividef(1.0f, 1.0f + 0.3275911f * 0.70710678f * fabsf(x));
    float tail = 0.5f * exponential * t *
                 (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    *distribution = x < 0 ? tail : 1.0f - tail;
    *density = 0.39894228f * exponential;
}

template <typename T, int VEC>
__global__ void __launch_bounds__(STRIP_THREADS)
    gelu_forward_kernel(T *out, const T *in, const T *bias, size_t rows, size_t dim, size_t rows_per_chunk)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    size_t column = (blockIdx.x * (size_t)32 + lane) * VEC;
    if (column >= dim)
        return;
    pack<T, VEC> bias_pack = load_pack<VEC>(bias + column, 0);
    size_t end = min(rows, (blockIdx.y + 1) * rows_per_chunk);
    for (size_t row = blockIdx.y * rows_per_chunk + warp; row < end; row += ROWS_IN_FLIGHT * STRIP_WARPS) {
        closed_pack<T, VEC> closed[ROWS_IN_FLIGHT];
#pragma unroll
        for (int r = 0; r < ROWS_IN_FLIGHT; r++)
            if (row + r * STRIP_WARPS < end)
                closed[r] = load_closed<VEC>(in + (row + r * STRIP_WARPS) * dim + column, 0);
#pragma unroll
        for (int r = 0; r < ROWS_IN_FLIGHT; r++) {
            if (row + r * STRIP_WARPS >= end)
                break;
            pack<T, VEC> x = open_pack<T, VEC>(closed[r]);
#pragma unroll
            for (int i = 0; i < VEC; i++) {
                float distribution, density, u = to_float(x.value[i]) + to_float(bias_pack.value[i]);
                normal_at<T>(u, &distribution, &density);
                x.value[i] = from_float<T>(u * distribution);
            }
            store_pack<VEC>(out + (row + r * STRIP_WARPS) * dim + column, 0, x);
        }
    }
}

template <typename T, int VEC>
__global__ void __launch_bounds__(STRIP_THREADS)
    gelu_backward_kernel(T *in_gradient, T *out, float *partial, const T *out_gradient, const T *in, const T *bias,
                         size_t rows, size_t dim, size_t rows_per_chunk)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    size_t column = (blockIdx.x * (size_t)32 + lane) * VEC;
    size_t end = min(rows, (blockIdx.y + 1) * rows_per_chunk);
    float sum[VEC] = {};
    if (column < dim) {
        pack<T, VEC> bias_pack = load_pack<VEC>(bias + column, 0);
        for (size_t row = blockIdx.y * rows_per_chunk + warp; row < end; row += ROWS_IN_FLIGHT * STRIP_WARPS) {
            closed_pack<T, VEC> closed_x[ROWS_IN_FLIGHT], closed_gradient[ROWS_IN_FLIGHT];
#pragma unroll
            for (int r = 0; r < ROWS_IN_FLIGHT; r++) {
                if (row + r * STRIP_WARPS < end) {
                    closed_x[r] = load_closed<VEC>(in + (row + r * STRIP_WARPS) * dim + column, 0);
                    closed_gradient[r] = load_closed<VEC>(out_gradient + (row + r * STRIP_WARPS) * dim + column, 0);
                }
            }
#pragma unroll
            for (int r = 0; r < ROWS_IN_FLIGHT; r++) {
                if (row + r * STRIP_WARPS >= end)
                    break;
                pack<T, VEC> x = open_pack<T, VEC>(closed_x[r]), gradient = open_pack<T, VEC>(closed_gradient[r]);
#pragma unroll
                for (int i = 0; i < VEC; i++) {
                    float distribution, density, u = to_float(x.value[i]) + to_float(bias_pack.value[i]);
                    normal_at<T>(u, &distribution, &density);
                    float change = to_float(gradient.value[i]) * (distribution + u * density);
                    sum[i] += change;
                    gradient.value[i] = from_float<T>(change);
                    x.value[i] = from_float<T>(u * distribution);
                }
                store_pack<VEC>(in_gradient + (row + r * STRIP_WARPS) * dim + column, 0, gradient);
                if (out)
                    store_pack<VEC>(out + (row + r * STRIP_WARPS) * dim + column, 0, x);
            }
        }
    }
    store_partial_sums(partial + blockIdx.y * dim, sum, column, dim);
}

template <typename T, int VEC>
static bool launch_forward(struct context *ctx, void *out, const void *in, const void *bias, size_t rows, size_t dim,
                           struct error *error)
{
    strips cut = cut_strips(ctx, rows, dim, 32 * VEC, 256);
    gelu_forward_kernel<T, VEC><<<cut.grid, STRIP_THREADS, 0, ctx->compute>>>((T *)out, (const T *)in, (const T *)bias,
                                                                              rows, dim, cut.rows_per_chunk);
    return cuda_launched(ctx, "gelu_forward", error);
}

template <typename T, int VEC>
static bool launch_backward(struct context *ctx, const struct gelu_backward *op, struct error *error)
{
    size_t dim = op->dim;
    strips cut = cut_strips(ctx, op->rows, dim, 32 * VEC, 128);
    void *partial;
    if (!cuda_workspace(ctx, &partial, cut.grid.y * dim * sizeof(float), "gelu_backward", error))
        return false;
    gelu_backward_kernel<T, VEC><<<cut.grid, STRIP_THREADS, 0, ctx->compute>>>(
        (T *)op->in_gradient, (T *)op->out, (float *)partial, (const T *)op->out_gradient, (const T *)op->in,
        (const T *)op->bias, op->rows, dim, cut.rows_per_chunk);
    return cuda_launched(ctx, "gelu_backward", error) &&
           cuda_column_sum_finish(ctx, &op->bias_gradient, 1, (float *)partial, cut.grid.y, dim, error);
}

bool cuda_gelu_forward(struct context *ctx, void *out, const void *in, const void *bias, size_t rows, size_t dim,
                       struct error *error)
{
    return with_access(ctx->dtype, dim, [&](auto a) {
        return launch_forward<typename decltype(a)::type, a.width>(ctx, out, in, bias, rows, dim, error);
    });
}

bool cuda_gelu_backward(struct context *ctx, const struct gelu_backward *op, struct error *error)
{
    return with_access(ctx->dtype, op->dim,
                       [&](auto a) { return launch_backward<typename decltype(a)::type, a.width>(ctx, op, error); });
}
