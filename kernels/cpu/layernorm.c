/* Residual add, LayerScale, stochastic depth and LayerNorm: each row is read from memory once and then worked on in the
 * first-level cache, where mean and variance take two exact passes. */
#include <math.h>

#include "kernels/cpu/bf16.h"
#include "kernels/cpu/columns.h"
#include "kernels/cpu/cpu.h"

static const float epsilon = 1e-6f;

/* out = in + scale * gamma * branch; gamma NULL: 1. */
ALWAYS_INLINE void add_branch(void *out, const void *in, const void *branch, const float *gamma, float scale,
                              size_t dim, enum dtype dtype)
{
    if (gamma) {
#pragma omp simd
        for (size_t i = 0; i < dim; i++)
            store(out, i, fmaf(scale * gamma[i], load(branch, i, dtype), load(in, i, dtype)), dtype);
    } else {
#pragma omp simd
        for (size_t i = 0; i < dim; i++)
            store(out, i, fmaf(scale, load(branch, i, dtype), load(in, i, dtype)), dtype);
    }
}

ALWAYS_INLINE void normalise(void *restrict normed, float *mean, float *rstd, const void *restrict x,
                             const float *restrict weight, const float *restrict bias, size_t dim, enum dtype dtype)
{
    float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < dim; i++)
        sum += load(x, i, dtype);
    float centre = sum / (float)dim;
#pragma omp simd reduction(+ : squares)
    for (size_t i = 0; i < dim; i++) {
        float d = load(x, i, dtype) - centre;
        squares = fmaf(d, d, squares);
    }
    float scale = 1.0f / sqrtf(squares / (float)dim + epsilon);
    for (size_t i = 0; i < dim; i++)
        store(normed, i, fmaf((load(x, i, dtype) - centre) * scale, weight[i], bias[i]), dtype);
    *mean = centre;
    *rstd = scale;
}

ALWAYS_INLINE void forward_row(void *residual_out, void *normed, float *mean, float *rstd, const void *residual_in,
                               const void *branch, const float *gamma, float scale, const float *weight,
                               const float *bias, size_t dim, enum dtype dtype)
{
    if (branch)
        add_branch(residual_out, residual_in, branch, gamma, scale, dim, dtype);
    normalise(normed, mean, rstd, branch ? residual_out : residual_in, weight, bias, dim, dtype);
}

bool cpu_residual_layernorm_forward(struct context *ctx, void *residual_out, void *normed, float *mean, float *rstd,
                                    const void *residual_in, const void *branch, const float *gamma,
                                    const float *path_scale, const float *weight, const float *bias, size_t rows,
                                    size_t tokens, size_t dim, struct error *error)
{
    (void)error;
    enum dtype dtype = ctx->dtype;
#pragma omp parallel for schedule(static) num_threads(ctx->threads) if (ctx->threads > 1)
    for (size_t row = 0; row < rows; row++) {
        float scale = path_scale ? path_scale[row / tokens] : 1.0f;
        void *sum = residual_out ? at(residual_out, row * dim, dtype) : NULL, *to = at(normed, row * dim, dtype);
        const void *from = const_at(residual_in, row * dim, dtype);
        const void *added = branch ? const_at(branch, row * dim, dtype) : NULL;
        if (dtype == DTYPE_FLOAT32)
            forward_row(sum, to, mean + row, rstd + row, from, added, gamma, scale, weight, bias, dim, DTYPE_FLOAT32);
        else
            forward_row(sum, to, mean + row, rstd + row, from, added, gamma, scale, weight, bias, dim, DTYPE_BFLOAT16);
    }
    return true;
}

/* With g = weight * normed_gradient and xhat = (x - mean) * rstd, the gradient of x is
 *     rstd * (g - mean(g) - xhat * mean(g * xhat)). */
ALWAYS_INLINE void backward_row(void *restrict residual_gradient, float *restrict weight_gradient,
                                float *restrict bias_gradient, const void *restrict normed_gradient,
                                const void *restrict x, float mean, float rstd, const float *restrict weight,
                                size_t dim, enum dtype dtype)
{
    float sum = 0, projection = 0;
#pragma omp simd reduction(+ : sum, projection)
    for (size_t i = 0; i < dim; i++) {
        float gradient = load(normed_gradient, i, dtype), xhat = (load(x, i, dtype) - mean) * rstd;
        float g = gradient * weight[i];
        sum += g;
        projection = fmaf(g, xhat, projection);
        weight_gradient[i] = fmaf(gradient, xhat, weight_gradient[i]);
        bias_gradient[i] += gradient;
    }
    sum /= (float)dim;
    projection /= (float)dim;
    for (size_t i = 0; i < dim; i++) {
        float g = load(normed_gradient, i, dtype) * weight[i], xhat = (load(x, i, dtype) - mean) * rstd;
        float gradient = rstd * (g - sum - xhat * projection);
        store(residual_gradient, i, load(residual_gradient, i, dtype) + gradient, dtype);
    }
}

ALWAYS_INLINE void branch_row(void *restrict branch_gradient, float *restrict gamma_gradient,
                              const void *restrict residual_gradient, const void *restrict branch,
                              const float *restrict gamma, float scale, size_t dim, enum dtype dtype)
{
    if (!gamma) {
        for (size_t i = 0; i < dim; i++)
            store(branch_gradient, i, scale * load(residual_gradient, i, dtype), dtype);
        return;
    }
    for (size_t i = 0; i < dim; i++) {
        float gradient = scale * load(residual_gradient, i, dtype);
        store(branch_gradient, i, gamma[i] * gradient, dtype);
        gamma_gradient[i] = fmaf(gradient, load(branch, i, dtype), gamma_gradient[i]);
    }
}

bool cpu_residual_layernorm_backward(struct context *ctx, void *residual_gradient, void *branch_gradient,
                                     float *weight_gradient, float *bias_gradient, float *gamma_gradient,
                                     const void *normed_gradient, const void *residual_out, const void *branch,
                                     const float *mean, const float *rstd, const float *gamma, const float *path_scale,
                                     const float *weight, size_t rows, size_t tokens, size_t dim, struct error *error)
{
    (void)error;
    enum dtype dtype = ctx->dtype;
    size_t columns = 3 * dim; /* the gradients of weight, bias and gamma side by side */
#pragma omp parallel for schedule(static, 1) num_threads(ctx->threads) if (ctx->threads > 1)
    for (int thread = 0; thread < ctx->threads; thread++) {
        size_t begin, end;
        cpu_span(rows, ctx->threads, thread, &begin, &end);
        float *partial = column_partial(ctx, thread, columns);
        for (size_t row = begin; row < end; row++) {
            float scale = path_scale ? path_scale[row / tokens] : 1.0f;
            void *sum = at(residual_gradient, row * dim, dtype);
            void *to = branch_gradient ? at(branch_gradient, row * dim, dtype) : NULL;
            const void *from = const_at(normed_gradient, row * dim, dtype);
            const void *x = const_at(residual_out, row * dim, dtype);
            const void *added = gamma ? const_at(branch, row * dim, dtype) : NULL;
            if (dtype == DTYPE_FLOAT32) {
                backward_row(sum, partial, partial + dim, from, x, mean[row], rstd[row], weight, dim, DTYPE_FLOAT32);
                if (to)
                    branch_row(to, partial + 2 * dim, sum, added, gamma, scale, dim, DTYPE_FLOAT32);
            } else {
                backward_row(sum, partial, partial + dim, from, x, mean[row], rstd[row], weight, dim, DTYPE_BFLOAT16);
                if (to)
                    branch_row(to, partial + 2 * dim, sum, added, gamma, scale, dim, DTYPE_BFLOAT16);
            }
        }
    }
    column_add(ctx, weight_gradient, 0, dim, columns);
    column_add(ctx, bias_gradient, dim, dim, columns);
    if (gamma)
        column_add(ctx, gamma_gradient, 2 * dim, dim, columns);
    return true;
}
