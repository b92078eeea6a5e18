/* The optimiser over the flat buffers: one pass that reads gradient, master, m and v and writes the last three (28
 * bytes a parameter, and 2 more for a bfloat16 working copy). */
#include "kernels/cpu/optimiser.h"

bool cpu_sum_of_squares(struct context *ctx, double *sum, const float *x, size_t count, struct error *error)
{
    (void)error;
    double *partials = (double *)(void *)ctx->workspace; /* one a cache line */
#pragma omp parallel for schedule(static, 1) num_threads(ctx->threads) if (ctx->threads > 1)
    for (int thread = 0; thread < ctx->threads; thread++) {
        size_t begin, end;
        cpu_span(count, ctx->threads, thread, &begin, &end);
        double squares = 0;
#pragma omp simd reduction(+ : squares)
        for (size_t i = begin; i < end; i++)
            squares += (double)x[i] * (double)x[i];
        partials[8 * thread] = squares;
    }
    *sum = 0;
    for (int thread = 0; thread < ctx->threads; thread++)
        *sum += partials[8 * thread];
    return true;
}

/* What a step multiplies by, worked out once in float64. */
struct coefficients {
    float gradient_scale, m_keep, m_take, v_keep, v_take, inverse_sqrt_v_correction, eps;
    float step_size, lr_decay, shrink; /* where the learning rate is not scaled */
};

static struct coefficients coefficients_of(const struct adamw *adamw, double sum_of_squares)
{
    double beta1 = (double)adamw->beta1, beta2 = (double)adamw->beta2, lr = (double)adamw->lr;
    double step = (double)adamw->step;
    return (struct coefficients){
        .gradient_scale = optimiser_clip(adamw->clip_grad_norm, sum_of_squares),
        .m_keep = (float)beta1,
        .m_take = (float)(1.0 - beta1),
        .v_keep = (float)beta2,
        .v_take = (float)(1.0 - beta2),
        .step_size = (float)(lr / (1.0 - pow(beta1, step))),
        .inverse_sqrt_v_correction = (float)(1.0 / sqrt(1.0 - pow(beta2, step))),
        .eps = adamw->eps,
        .lr_decay = (float)(lr * (double)adamw->weight_decay),
        .shrink = (float)(1.0 - lr * (double)adamw->weight_decay),
    };
}

/* 64 numbers: what one byte of `decay` speaks for. */
ALWAYS_INLINE void update_64(float *restrict master, float *restrict m, float *restrict v,
                             const float *restrict gradient, float step_size, float shrink,
                             const struct coefficients *k, bool nesterov)
{
#pragma omp simd
    for (int i = 0; i < 64; i++) {
        float g = gradient[i] * k->gradient_scale;
        float first = fmaf(k->m_take, g, k->m_keep * m[i]);
        float second = fmaf(k->v_take, g * g, k->v_keep * v[i]);
        m[i] = first;
        v[i] = second;
        float denominator = fmaf(sqrtf(second), k->inverse_sqrt_v_correction, k->eps);
        float mean = nesterov ? fmaf(k->m_take, g, k->m_keep * first) : first;
        master[i] = fmaf(-step_size, mean / denominator, master[i] * shrink);
    }
}

bool cpu_adamw_update(struct context *ctx, const struct adamw_update *op, struct error *error)
{
    (void)error;
    double sum_of_squares = *op->gradient_sum_of_squares;
    if (optimiser_withholds(sum_of_squares, op->adamw->sum_of_squares_limit, op->adamw->earlier_sum_of_squares))
        return true;
    const struct coefficients k = coefficients_of(op->adamw, sum_of_squares);
    bool copy = op->working && op->working != op->master;
#pragma omp parallel for schedule(static) num_threads(ctx->threads) if (ctx->threads > 1)
    for (size_t block = 0; block < op->count / 64; block++) {
        size_t first = block * 64;
        float step_size = k.step_size, shrink = k.shrink;
        if (op->lr_scale) {
            step_size *= op->lr_scale[block];
            shrink = fmaf(-op->lr_scale[block], k.lr_decay, 1.0f);
        }
        shrink = op->decay[block] ? shrink : 1.0f;
        if (op->adamw->nesterov)
            update_64(op->master + first, op->m + first, op->v + first, op->gradient + first, step_size, shrink, &k,
                      true);
        else
            update_64(op->master + first, op->m + first, op->v + first, op->gradient + first, step_size, shrink, &k,
                      false);
        if (copy)
            optimiser_round(at(op->working, first, ctx->dtype), op->master + first, 64, ctx->dtype);
    }
    return true;
}

bool cpu_round_parameters(struct context *ctx, void *working, const float *master, size_t count, struct error *error)
{
    (void)error;
    if (working == master)
        return true;
#pragma omp parallel for schedule(static, 1) num_threads(ctx->threads) if (ctx->threads > 1)
    for (int thread = 0; thread < ctx->threads; thread++) {
        size_t begin, end;
        cpu_span(count, ctx->threads, thread, &begin, &end);
        optimiser_round(at(working, begin, ctx->dtype), master + begin, end - begin, ctx->dtype);
    }
    return true;
}

bool cpu_zero_groups(struct context *ctx, float *x, const uint8_t *keep, size_t count, struct error *error)
{
    (void)error;
#pragma omp parallel for schedule(static) num_threads(ctx->threads) if (ctx->threads > 1)
    for (size_t group = 0; group < count / 64; group++)
        if (!keep[group])
            memset(x + group * 64, 0, 64 * sizeof *x);
    return true;
}
