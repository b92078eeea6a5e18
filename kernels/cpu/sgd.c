/* SGD with momentum over the flat buffers: one pass that reads gradient, master and m and writes the last two (20 bytes
 * a parameter, and 2 more for a bfloat16 working copy). */
#include "kernels/cpu/optimiser.h"

struct coefficients {
    float gradient_scale, momentum;
    bool nesterov;
};

ALWAYS_INLINE void update_64(float *restrict master, float *restrict m, const float *restrict gradient, float lr,
                             float decay, const struct coefficients *k)
{
    float of_gradient = k->nesterov ? 1.0f : 0.0f, of_momentum = k->nesterov ? k->momentum : 1.0f;
#pragma omp simd
    for (int i = 0; i < 64; i++) {
        float g = fmaf(decay, master[i], gradient[i] * k->gradient_scale);
        float carried = fmaf(k->momentum, m[i], g);
        m[i] = carried;
        master[i] = fmaf(-lr, fmaf(of_momentum, carried, of_gradient * g), master[i]);
    }
}

bool cpu_sgd_update(struct context *ctx, const struct sgd_update *op, struct error *error)
{
    (void)error;
    const struct sgd *sgd = op->sgd;
    double sum_of_squares = *op->gradient_sum_of_squares;
    if (optimiser_withholds(sum_of_squares, sgd->sum_of_squares_limit, sgd->earlier_sum_of_squares))
        return true;
    const struct coefficients k = {.gradient_scale = optimiser_clip(sgd->clip_grad_norm, sum_of_squares),
                                   .momentum = sgd->momentum,
                                   .nesterov = sgd->nesterov};
    bool copy = op->working && op->working != op->master;
#pragma omp parallel for schedule(static) num_threads(ctx->threads) if (ctx->threads > 1)
    for (size_t group = 0; group < op->count / 64; group++) {
        size_t first = group * 64;
        update_64(op->master + first, op->m + first, op->gradient + first,
                  op->lr_scale ? sgd->lr * op->lr_scale[group] : sgd->lr, op->decay[group] ? sgd->weight_decay : 0.0f,
                  &k);
        if (copy)
            optimiser_round(at(op->working, first, ctx->dtype), op->master + first, 64, ctx->dtype);
    }
    return true;
}
