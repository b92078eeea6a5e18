/* Sigmoid cross-entropy of every class, its gradient and the rank of the label: passes over a row of logits, which
 * stays in cache. */
#include "kernels/cpu/loss_row.h"

/* What a row's classes are held to: most have `others`. */
struct row_targets {
    size_t label, partner;
    float at_label, at_partner, others;
};

static float threshold_target(float target, float threshold)
{
    return threshold < 0 ? target : target > threshold ? 1.0f : 0.0f;
}

static struct row_targets row_targets_of(const struct target *target, float threshold)
{
    float at_label = target->smooth + target->label_weight, at_partner = target->smooth + target->partner_weight;
    if (target->label == target->partner)
        at_label = at_partner = at_label + target->partner_weight;
    return (struct row_targets){target->label, target->partner, threshold_target(at_label, threshold),
                                threshold_target(at_partner, threshold), threshold_target(target->smooth, threshold)};
}

/* With e = exp(-|x|): log(1 + exp(x)) - x t = log(1 + e) + |x| (x < 0 ? t : 1 - t), and sigmoid - t is, on the side
 * where nothing cancels, e / (1 + e) - t or (1 - t) - e / (1 + e). A logit that is not finite shows in the sum of 0 x.
 */
ALWAYS_INLINE void loss_row(float *loss, int32_t *label_rank, void *gradient, const void *logits,
                            const struct row_targets *targets, const struct binary_cross_entropy *op, enum dtype dtype)
{
    size_t classes = op->classes;
    float sum = 0, zero = 0, share = op->sum ? 1.0f : 1.0f / (float)classes;
#pragma omp simd reduction(+ : sum, zero)
    for (size_t c = 0; c < classes; c++) {
        float x = load(logits, c, dtype);
        float t = c == targets->label     ? targets->at_label
                  : c == targets->partner ? targets->at_partner
                                          : targets->others;
        sum += vector_log1p_unit(vector_exp(-fabsf(x))) + fabsf(x) * (x < 0 ? t : 1.0f - t);
        zero += 0.0f * x;
    }
    bool finite = zero == 0;
    *loss = finite ? sum * share : NAN;
    *label_rank = rank_of(logits, targets->label, classes, dtype);
    if (!gradient)
        return;
    float scale = finite ? op->gradient_scale * share : NAN;
    for (size_t c = 0; c < classes; c++) {
        float x = load(logits, c, dtype), e = vector_exp(-fabsf(x)), tail = e / (1.0f + e);
        float t = c == targets->label     ? targets->at_label
                  : c == targets->partner ? targets->at_partner
                                          : targets->others;
        store(gradient, c, scale * (x < 0 ? tail - t : (1.0f - t) - tail), dtype);
    }
}

bool cpu_binary_cross_entropy(struct context *ctx, const struct binary_cross_entropy *op, struct error *error)
{
    (void)error;
    enum dtype dtype = ctx->dtype;
    size_t classes = op->classes;
#pragma omp parallel for schedule(static) num_threads(ctx->threads) if (ctx->threads > 1)
    for (size_t image = 0; image < op->batch; image++) {
        struct target target = target_of(op->labels, op->partner_labels, op->weights, op->smoothing, image, classes);
        void *to = op->gradient ? at(op->gradient, image * classes, dtype) : NULL;
        const void *from = const_at(op->logits, image * classes, dtype);
        if (target.label >= classes || target.partner >= classes) {
            no_such_class(op->loss + image, op->label_rank + image, to, classes, dtype);
            continue;
        }
        struct row_targets targets = row_targets_of(&target, op->threshold);
        if (dtype == DTYPE_FLOAT32)
            loss_row(op->loss + image, op->label_rank + image, to, from, &targets, op, DTYPE_FLOAT32);
        else
            loss_row(op->loss + image, op->label_rank + image, to, from, &targets, op, DTYPE_BFLOAT16);
    }
    return true;
}
