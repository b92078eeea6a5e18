/* LAMB over the flat buffers (kernels/optimisers.h): a pass for the moments and the norms, one that applies. Each is
 * cut into groups of 64 numbers, whose sums are added up tensor by tensor: the same bits on any number of threads. */
#include "kernels/cpu/optimiser.h"

/* What a step multiplies by, worked out once in float64. */
struct coefficients {
    float gradient_scale, m_keep, m_take, v_keep, v_take;
    float m_correction, inverse_sqrt_v_correction, eps, weight_decay;
};

static struct coefficients coefficients_of(const struct adamw *adamw, double gradient_norm)
{
    double beta1 = (double)adamw->beta1, beta2 = (double)adamw->beta2, step = (double)adamw->step;
    double clip = (double)adamw->clip_grad_norm;
    return (struct coefficients){
        .gradient_scale = clip > 0 && gradient_norm > clip ? (float)(clip / gradient_norm) : 1.0f,
        .m_keep = (float)beta1,
        .m_take = (float)(1.0 - beta1),
        .v_keep = (float)beta2,
        .v_take = (float)(1.0 - beta2),
        .m_correction = (float)(1.0 / (1.0 - pow(beta1, step))),
        .inverse_sqrt_v_correction = (float)(1.0 / sqrt(1.0 - pow(beta2, step))),
        .eps = adamw->eps,
        .weight_decay = adamw->weight_decay,
    };
}

/* u of one number, the same bits in both passes. */
ALWAYS_INLINE float direction(float m, float v, float w, float decay, const struct coefficients *k)
{
    float denominator = fmaf(sqrtf(v), k->inverse_sqrt_v_correction, k->eps);
    return fmaf(decay, w, m * k->m_correction / denominator);
}

/* sums[2] = the group's |w|^2 and |u|^2. */
ALWAYS_INLINE void moments_64(float *restrict sums, float *restrict m, float *restrict v,
                              const float *restrict gradient, const float *restrict master, float decay,
                              const struct coefficients *k)
{
    float weights = 0, directions = 0;
#pragma omp simd reduction(+ : weights, directions)
    for (int i = 0; i < 64; i++) {
        float g = gradient[i] * k->gradient_scale;
        float first = fmaf(k->m_take, g, k->m_keep * m[i]);
        float second = fmaf(k->v_take, g * g, k->v_keep * v[i]);
        m[i] = first;
        v[i] = second;
        float u = direction(first, second, master[i], decay, k);
        weights = fmaf(master[i], master[i], weights);
        directions = fmaf(u, u, directions);
    }
    sums[0] = weights;
    sums[1] = directions;
}

ALWAYS_INLINE void apply_64(float *restrict master, const float *restrict m, const float *restrict v, float step_size,
                            float decay, const struct coefficients *k)
{
#pragma omp simd
    for (int i = 0; i < 64; i++)
        master[i] = fmaf(-step_size, direction(m[i], v[i], master[i], decay, k), master[i]);
}

static bool withholds(const struct lamb_update *op)
{
    return optimiser_withholds(*op->gradient_sum_of_squares, op->adamw->sum_of_squares_limit,
                               op->adamw->earlier_sum_of_squares);
}

/* The groups of the part that are a tensor's, counted from the part's first. */
static void groups_of(const struct lamb_update *op, size_t tensor, size_t *begin, size_t *end)
{
    size_t first = op->first / 64, last = first + op->count / 64;
    size_t from = op->tensor_first[tensor], to = op->tensor_first[tensor + 1];
    *begin = (from < first ? first : from) - first;
    *end = (to > last ? last : to) - first;
    if (to <= first || from >= last)
        *begin = *end = 0;
}

bool cpu_lamb_moments(struct context *ctx, const struct lamb_update *op, struct error *error)
{
    (void)error;
    if (withholds(op))
        return true;
    const struct coefficients k = coefficients_of(op->adamw, sqrt(*op->gradient_sum_of_squares));
#pragma omp parallel for schedule(static) num_threads(ctx->threads) if (ctx->threads > 1)
    for (size_t group = 0; group < op->count / 64; group++) {
        size_t first = group * 64;
        moments_64(op->group_sums + 2 * group, op->m + first, op->v + first, op->gradient + first, op->master + first,
                   op->decay[group] ? k.weight_decay : 0.0f, &k);
    }
    for (size_t tensor = 0; tensor < op->tensors; tensor++) {
        size_t begin, end;
        double weights = 0, directions = 0;
        groups_of(op, tensor, &begin, &end);
        for (size_t group = begin; group < end; group++) {
            weights += (double)op->group_sums[2 * group];
            directions += (double)op->group_sums[2 * group + 1];
        }
        op->tensor_sums[2 * tensor] = weights;
        op->tensor_sums[2 * tensor + 1] = directions;
    }
    return true;
}

/* |w| / |u|, or 1. */
static double trust_ratio(const struct lamb_update *op, size_t tensor, bool decays)
{
    double weights = op->tensor_sums[2 * tensor], directions = op->tensor_sums[2 * tensor + 1];
    if (!decays || weights <= 0 || directions <= 0)
        return 1;
    double ratio = sqrt(weights) / sqrt(directions);
    return op->trust_clip && ratio > 1 ? 1 : ratio;
}

bool cpu_lamb_apply(struct context *ctx, const struct lamb_update *op, struct error *error)
{
    (void)error;
    if (withholds(op))
        return true;
    const struct coefficients k = coefficients_of(op->adamw, sqrt(*op->gradient_sum_of_squares));
    bool copy = op->working && op->working != op->master;
    for (size_t tensor = 0; tensor < op->tensors; tensor++) { /* what it is multiplied by: the step and the decay */
        size_t begin, end;
        groups_of(op, tensor, &begin, &end);
        if (begin == end)
            continue;
        bool decays = op->decay[begin] && k.weight_decay > 0;
        double scale = op->lr_scale ? (double)op->lr_scale[begin] : 1;
        op->tensor_factors[2 * tensor] = (float)((double)op->adamw->lr * scale * trust_ratio(op, tensor, decays));
        op->tensor_factors[2 * tensor + 1] = decays ? k.weight_decay : 0.0f;
    }
#pragma omp parallel for schedule(static) num_threads(ctx->threads) if (ctx->threads > 1)
    for (size_t group = 0; group < op->count / 64; group++) {
        size_t first = group * 64;
        const float *factors = op->tensor_factors + (size_t)2 * op->tensor_of[group];
        apply_64(op->master + first, op->m + first, op->v + first, factors[0], factors[1], &k);
        if (copy)
            optimiser_round(at(op->working, first, ctx->dtype), op->master + first, 64, ctx->dtype);
    }
    return true;
}
