/* Residual add, LayerScale, stochastic depth and LayerNorm: each row is read from memory once and then worked on in the
 * first-level cache, where mean and variance take two exact passes. */
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"

static const float epsilon = 1e-6f;

/* out = in + scale * gamma * branch; gamma NULL: 1. out may be in. */
static void add_branch(float *out, const float *in, const float *branch, const float *gamma, float scale, size_t dim)
{
    if (gamma) {
#pragma omp simd
        for (size_t i = 0; i < dim; i++)
            out[i] = fmaf(scale * gamma[i], branch[i], in[i]);
    } else {
#pragma omp simd
        for (size_t i = 0; i < dim; i++)
            out[i] = fmaf(scale, branch[i], in[i]);
    }
}

static void scale_row(float *restrict normed, const float *restrict x, float mean, float rstd,
                      const float *restrict weight, const float *restrict bias, size_t dim)
{
    for (size_t i = 0; i < dim; i++)
        normed[i] = fmaf((x[i] - mean) * rstd, weight[i], bias[i]);
}

static void normalise(float *restrict normed, float *mean, float *rstd, const float *restrict x,
                      const float *restrict weight, const float *restrict bias, size_t dim)
{
    float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < dim; i++)
        sum += x[i];
    float centre = sum / (float)dim;
#pragma omp simd reduction(+ : squares)
    for (size_t i = 0; i < dim; i++) {
        float d = x[i] - centre;
        squares = fmaf(d, d, squares);
    }
    float scale = 1.0f / sqrtf(squares / (float)dim + epsilon);
    scale_row(normed, x, centre, scale, weight, bias, dim);
    *mean = centre;
    *rstd = scale;
}

bool cpu_residual_layernorm_forward(struct context *ctx, const struct residual_layernorm_forward *op,
                                    struct error *error)
{
    enum dtype dtype = ctx->dtype;
    size_t dim = op->dim;
    if (!rows_fit(ctx, dim, error))
        return false;
#pragma omp parallel for schedule(static, 1) num_threads(ctx->threads) if (ctx->threads > 1)
    for (int thread = 0; thread < ctx->threads; thread++) {
        size_t begin, end;
        cpu_span(op->rows, ctx->threads, thread, &begin, &end);
        struct row_scratch scratch = rows_scratch(ctx, thread, 0);
        for (size_t row = begin, first = begin * dim; row < end; row++, first += dim) {
            const float *x = row_read(op->residual_in, first, scratch.buffers[0], dim, dtype);
            if (op->branch) {
                float *sum = row_target(op->residual_out, first, scratch.buffers[0], dtype);
                const float *added = row_read(op->branch, first, scratch.buffers[1], dim, dtype);
                add_branch(sum, x, added, op->gamma, op->path_scale ? op->path_scale[row / op->tokens] : 1.0f, dim);
                row_write(op->residual_out, first, sum, dim, dtype);
                x = row_read(op->residual_out, first, scratch.buffers[0], dim, dtype); /* as it was rounded */
            }
            float *y = row_target(op->normed, first, scratch.buffers[1], dtype);
            normalise(y, op->mean + row, op->rstd + row, x, op->weight, op->bias, dim);
            row_write(op->normed, first, y, dim, dtype);
        }
    }
    return true;
}

/* With g = weight * normed_gradient and xhat = (x - mean) * rstd, the gradient of x is
 *     rstd * (g - mean(g) - xhat * mean(g * xhat)). */
static void add_gradient(float *restrict residual_gradient, float *restrict weight_gradient,
                         float *restrict bias_gradient, const float *restrict normed_gradient, const float *restrict x,
                         float mean, float rstd, const float *restrict weight, size_t dim)
{
    float sum = 0, projection = 0;
#pragma omp simd reduction(+ : sum, projection)
    for (size_t i = 0; i < dim; i++) {
        float xhat = (x[i] - mean) * rstd, g = normed_gradient[i] * weight[i];
        sum += g;
        projection = fmaf(g, xhat, projection);
        weight_gradient[i] = fmaf(normed_gradient[i], xhat, weight_gradient[i]);
        bias_gradient[i] += normed_gradient[i];
    }
    sum /= (float)dim;
    projection /= (float)dim;
    for (size_t i = 0; i < dim; i++) {
        float xhat = (x[i] - mean) * rstd, g = normed_gradient[i] * weight[i];
        residual_gradient[i] += rstd * (g - sum - xhat * projection);
    }
}

/* branch NULL: no gamma, whose gradient is not wanted then. */
static void branch_gradient_row(float *restrict branch_gradient, float *restrict gamma_gradient,
                                const float *restrict residual_gradient, const float *restrict branch,
                                const float *restrict gamma, float scale, size_t dim)
{
    if (!branch) {
        for (size_t i = 0; i < dim; i++)
            branch_gradient[i] = scale * residual_gradient[i];
        return;
    }
    for (size_t i = 0; i < dim; i++) {
        float gradient = scale * residual_gradient[i];
        branch_gradient[i] = gamma[i] * gradient;
        gamma_gradient[i] = fmaf(gradient, branch[i], gamma_gradient[i]);
    }
}

bool cpu_residual_layernorm_backward(struct context *ctx, const struct residual_layernorm_backward *op,
                                     struct error *error)
{
    enum dtype dtype = ctx->dtype;
    size_t dim = op->dim;
    if (!rows_fit(ctx, 3 * dim, error))
        return false;
#pragma omp parallel for schedule(static, 1) num_threads(ctx->threads) if (ctx->threads > 1)
    for (int thread = 0; thread < ctx->threads; thread++) {
        size_t begin, end;
        cpu_span(op->rows, ctx->threads, thread, &begin, &end);
        struct row_scratch scratch = rows_scratch(ctx, thread, 3 * dim);
        float *weight_sums = scratch.sums, *bias_sums = weight_sums + dim, *gamma_sums = bias_sums + dim;
        for (size_t row = begin, first = begin * dim; row < end; row++, first += dim) {
            row_read(op->residual_gradient, first, scratch.buffers[0], dim, dtype);
            float *total = row_target(op->residual_gradient, first, scratch.buffers[0], dtype);
            const float *x = row_read(op->residual_out, first, scratch.buffers[1], dim, dtype);
            const float *from = row_read(op->normed_gradient, first, scratch.buffers[2], dim, dtype);
            add_gradient(total, weight_sums, bias_sums, from, x, op->mean[row], op->rstd[row], op->weight, dim);
            row_write(op->residual_gradient, first, total, dim, dtype);
            if (op->normed) {
                float *again = row_target(op->normed, first, scratch.buffers[3], dtype);
                scale_row(again, x, op->mean[row], op->rstd[row], op->weight, op->bias, dim);
                row_write(op->normed, first, again, dim, dtype);
            }
            if (op->branch_gradient) {
                const float *added = op->gamma ? row_read(op->branch, first, scratch.buffers[1], dim, dtype) : NULL;
                float *to = row_target(op->branch_gradient, first, scratch.buffers[2], dtype);
                branch_gradient_row(to, gamma_sums, total, added, op->gamma,
                                    op->path_scale ? op->path_scale[row / op->tokens] : 1.0f, dim);
                row_write(op->branch_gradient, first, to, dim, dtype);
            }
        }
    }
    rows_add_sums(ctx, op->weight_gradient, 0, dim);
    rows_add_sums(ctx, op->bias_gradient, dim, dim);
    if (op->gamma)
        rows_add_sums(ctx, op->gamma_gradient, 2 * dim, dim);
    return true;
}
