/* Softmax cross-entropy, its gradient and the rank of the label: passes over a row of logits, which stays in cache. */
#include "kernels/cpu/loss_row.h"

/* Logits that are not finite show in the sum of their differences from the maximum, which is then not finite either. */
struct summary {
    float largest, sum_exp, sum_shifted;
};

ALWAYS_INLINE struct summary summarise(const void *logits, size_t classes, enum dtype dtype)
{
    float largest = -INFINITY, sum_exp = 0, sum_shifted = 0;
#pragma omp simd reduction(max : largest)
    for (size_t c = 0; c < classes; c++) {
        float logit = load(logits, c, dtype);
        largest = logit > largest ? logit : largest;
    }
#pragma omp simd reduction(+ : sum_exp, sum_shifted)
    for (size_t c = 0; c < classes; c++) {
        float shifted = load(logits, c, dtype) - largest;
        sum_exp += vector_exp(shifted);
        sum_shifted += shifted;
    }
    return (struct summary){largest, sum_exp, sum_shifted};
}

/* loss = log sum exp - sum target * logit, everything less the largest logit. */
ALWAYS_INLINE void loss_row(float *loss, int32_t *label_rank, void *gradient, const void *logits,
                            const struct target *target, float gradient_scale, size_t classes, enum dtype dtype)
{
    struct summary sums = summarise(logits, classes, dtype);
    float own = load(logits, target->label, dtype) - sums.largest;
    float other = load(logits, target->partner, dtype) - sums.largest;
    float expected = target->smooth * sums.sum_shifted;
    expected += target->label_weight * own;
    expected += target->partner_weight * other;
    bool finite = isfinite(sums.sum_shifted);
    *loss = finite ? logf(sums.sum_exp) - expected : NAN;
    *label_rank = rank_of(logits, target->label, classes, dtype);
    if (!gradient)
        return;
    float inverse = 1.0f / sums.sum_exp;
    for (size_t c = 0; c < classes; c++) {
        float difference = vector_exp(load(logits, c, dtype) - sums.largest) * inverse - target->smooth;
        difference -= c == target->label ? target->label_weight : 0.0f;
        difference -= c == target->partner ? target->partner_weight : 0.0f;
        store(gradient, c, finite ? gradient_scale * difference : NAN, dtype);
    }
}

bool cpu_cross_entropy(struct context *ctx, const struct cross_entropy *op, struct error *error)
{
    (void)error;
    enum dtype dtype = ctx->dtype;
    size_t classes = op->classes;
#pragma omp parallel for schedule(static) num_threads(ctx->threads) if (ctx->threads > 1)
    for (size_t image = 0; image < op->batch; image++) {
        struct target target = target_of(op->labels, op->partner_labels, op->weights, op->smoothing, image, classes);
        void *to = op->gradient ? at(op->gradient, image * classes, dtype) : NULL;
        if (target.label >= classes || target.partner >= classes) {
            no_such_class(op->loss + image, op->label_rank + image, to, classes, dtype);
            continue;
        }
        const void *from = const_at(op->logits, image * classes, dtype);
        if (dtype == DTYPE_FLOAT32)
            loss_row(op->loss + image, op->label_rank + image, to, from, &target, op->gradient_scale, classes,
                     DTYPE_FLOAT32);
        else
            loss_row(op->loss + image, op->label_rank + image, to, from, &target, op->gradient_scale, classes,
                     DTYPE_BFLOAT16);
    }
    return true;
}
