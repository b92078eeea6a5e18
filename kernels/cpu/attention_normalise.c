/* Norms and learned scales of queries and keys, row by row, forward and backward; the formulas are in
 * docs/mathematics.md. */
#include <math.h>

#include "kernels/cpu/attention.h"

static const float SMALLEST_NORM = 1e-6f;
static const float LAYERNORM_EPS = 1e-6f;

struct side attention_query_side(enum attention_kind kind, const struct attention_parameters *parameters)
{
    switch (kind) {
    case ATTENTION_QNORM:
    case ATTENTION_QKNORM_HS:
        return (struct side){.norm = NORM_UNIT};
    case ATTENTION_QKNORM:
        return (struct side){NORM_LAYER, parameters->q_weight, parameters->q_bias};
    case ATTENTION_QKNORM_DS:
        return (struct side){NORM_UNIT, parameters->q_scale, NULL};
    default:
        return (struct side){.norm = NORM_NONE};
    }
}

struct side attention_key_side(enum attention_kind kind, const struct attention_parameters *parameters)
{
    switch (kind) {
    case ATTENTION_QUEST:
    case ATTENTION_QKNORM_HS:
        return (struct side){.norm = NORM_UNIT};
    case ATTENTION_QKNORM:
        return (struct side){NORM_LAYER, parameters->k_weight, parameters->k_bias};
    case ATTENTION_QKNORM_DS:
        return (struct side){NORM_UNIT, parameters->k_scale, NULL};
    default:
        return (struct side){.norm = NORM_NONE};
    }
}

float attention_logit_scale(const struct attention_shape *shape, const struct attention_parameters *parameters,
                            size_t head)
{
    switch (shape->kind) {
    case ATTENTION_STANDARD:
    case ATTENTION_QKNORM:
        return 1 / sqrtf((float)shape->head_dim);
    case ATTENTION_QKNORM_HS:
        return parameters->scale[head];
    default:
        return 1;
    }
}

bool attention_side_copies(struct side side)
{
    return side.norm == NORM_LAYER || side.weight;
}

ALWAYS_INLINE void widen(float *row, const void *x, size_t head_dim, enum dtype dtype)
{
#pragma omp simd
    for (size_t i = 0; i < head_dim; i++)
        row[i] = load(x, i, dtype);
}

ALWAYS_INLINE float dot(const float *a, const float *b, size_t head_dim)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < head_dim; i++)
        sum += a[i] * b[i];
    return sum;
}

ALWAYS_INLINE float row_sum(const float *x, size_t head_dim)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < head_dim; i++)
        sum += x[i];
    return sum;
}

/* row = (row - mean) * rstd; returns rstd. */
ALWAYS_INLINE float standardise(float *row, size_t head_dim)
{
    float mean = row_sum(row, head_dim) / (float)head_dim;
#pragma omp simd
    for (size_t i = 0; i < head_dim; i++)
        row[i] -= mean;
    float rstd = 1 / sqrtf(dot(row, row, head_dim) / (float)head_dim + LAYERNORM_EPS);
#pragma omp simd
    for (size_t i = 0; i < head_dim; i++)
        row[i] *= rstd;
    return rstd;
}

float attention_row_norm(const void *x, size_t head_dim, enum dtype dtype)
{
    float row[MAXIMUM_HEAD_DIM];
    if (dtype == DTYPE_FLOAT32)
        widen(row, x, head_dim, DTYPE_FLOAT32);
    else
        widen(row, x, head_dim, DTYPE_BFLOAT16);
    return sqrtf(dot(row, row, head_dim));
}

/* copy = weight * x + bias, after LayerNorm where the side has it. */
ALWAYS_INLINE void transform_row(void *copy, const void *x, struct side side, size_t head_dim, enum dtype dtype)
{
    float row[MAXIMUM_HEAD_DIM];
    widen(row, x, head_dim, dtype);
    if (side.norm == NORM_LAYER)
        standardise(row, head_dim);
    for (size_t i = 0; i < head_dim; i++)
        store(copy, i, row[i] * (side.weight ? side.weight[i] : 1) + (side.bias ? side.bias[i] : 0), dtype);
}

struct rows attention_normalise(float *factors, void *copy, struct side side, struct rows rows, size_t count,
                                size_t head_dim, enum dtype dtype)
{
    for (size_t i = 0; i < count; i++) {
        const void *x = const_at(rows.data, i * rows.stride, dtype);
        factors[i] = side.norm == NORM_UNIT ? 1 / fmaxf(attention_row_norm(x, head_dim, dtype), SMALLEST_NORM) : 1;
    }
    if (!attention_side_copies(side))
        return rows;
    for (size_t i = 0; i < count; i++) {
        void *out = at(copy, i * head_dim, dtype);
        const void *x = const_at(rows.data, i * rows.stride, dtype);
        if (dtype == DTYPE_FLOAT32)
            transform_row(out, x, side, head_dim, DTYPE_FLOAT32);
        else
            transform_row(out, x, side, head_dim, DTYPE_BFLOAT16);
    }
    return (struct rows){copy, head_dim};
}

/* Through u = weight * x, y = u / |x|: with g the gradient of u at constant |x|,
 *   dx = weight * g - x (g . u) / |x|^2,  and without the second term where |x| was clamped. */
ALWAYS_INLINE void unit_backward(float *gradient, float *weight_gradient, const float *product_gradient,
                                 const float *row, struct side side, size_t head_dim)
{
    float norm = sqrtf(dot(row, row, head_dim)), radial = 0;
#pragma omp simd
    for (size_t i = 0; i < head_dim; i++)
        gradient[i] = side.weight ? side.weight[i] * product_gradient[i] : product_gradient[i];
    if (norm > SMALLEST_NORM)
        radial = dot(gradient, row, head_dim) / norm / norm;
#pragma omp simd
    for (size_t i = 0; i < head_dim; i++)
        gradient[i] -= radial * row[i];
    if (side.weight)
#pragma omp simd
        for (size_t i = 0; i < head_dim; i++)
            weight_gradient[i] += product_gradient[i] * row[i];
}

/* Through u = weight * z + bias, z = (x - mean) * rstd: with g = weight * du,
 *   dx = rstd * (g - mean(g) - z mean(g z)). */
ALWAYS_INLINE void layernorm_backward(float *gradient, float *weight_gradient, float *bias_gradient,
                                      const float *product_gradient, float *row, struct side side, size_t head_dim)
{
    float rstd = standardise(row, head_dim);
#pragma omp simd
    for (size_t i = 0; i < head_dim; i++) {
        gradient[i] = side.weight[i] * product_gradient[i];
        weight_gradient[i] += product_gradient[i] * row[i];
        bias_gradient[i] += product_gradient[i];
    }
    float mean = row_sum(gradient, head_dim) / (float)head_dim;
    float along = dot(gradient, row, head_dim) / (float)head_dim;
#pragma omp simd
    for (size_t i = 0; i < head_dim; i++)
        gradient[i] = rstd * (gradient[i] - mean - along * row[i]);
}

ALWAYS_INLINE void backward_row(void *gradient, float *weight_gradient, float *bias_gradient,
                                const float *product_gradient, const void *x, struct side side, size_t head_dim,
                                enum dtype dtype)
{
    float row[MAXIMUM_HEAD_DIM], row_gradient[MAXIMUM_HEAD_DIM];
    const float *result = row_gradient;
    widen(row, x, head_dim, dtype);
    if (side.norm == NORM_UNIT)
        unit_backward(row_gradient, weight_gradient, product_gradient, row, side, head_dim);
    else if (side.norm == NORM_LAYER)
        layernorm_backward(row_gradient, weight_gradient, bias_gradient, product_gradient, row, side, head_dim);
    else
        result = product_gradient;
#pragma omp simd
    for (size_t i = 0; i < head_dim; i++)
        store(gradient, i, result[i], dtype);
}

void attention_normalise_backward(void *gradient, float *weight_gradient, float *bias_gradient,
                                  const float *product_gradient, const void *x, struct side side, size_t head_dim,
                                  enum dtype dtype)
{
    if (dtype == DTYPE_FLOAT32)
        backward_row(gradient, weight_gradient, bias_gradient, product_gradient, x, side, head_dim, DTYPE_FLOAT32);
    else
        backward_row(gradient, weight_gradient, bias_gradient, product_gradient, x, side, head_dim, DTYPE_BFLOAT16);
}
