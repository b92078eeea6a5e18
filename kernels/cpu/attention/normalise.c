/* Norms and learned scales of queries and keys, row by row, forward and backward; the formulas are in
 * docs/mathematics.md. */
#include <math.h>

#include "kernels/cpu/attention/attention.h"

static const float SMALLEST_NORM = 1e-6f;
static const float LAYERNORM_EPS = 1e-6f;

struct side attention_query_side(enum attention_kind kind, const struct attention_parameters *parameters)
{
    return (struct side){attention_kinds[kind].query, parameters->extra[EXTRA_Q_WEIGHT],
                         parameters->extra[EXTRA_Q_BIAS]};
}

struct side attention_key_side(enum attention_kind kind, const struct attention_parameters *parameters)
{
    return (struct side){attention_kinds[kind].key, parameters->extra[EXTRA_K_WEIGHT], parameters->extra[EXTRA_K_BIAS]};
}

float attention_logit_scale(const struct attention_shape *shape, const struct attention_parameters *parameters,
                            size_t head)
{
    float scale = attention_kinds[shape->kind].scaled ? 1 / sqrtf((float)shape->head_dim) : 1;
    return attention_learns(shape->kind, EXTRA_SCALE) ? scale * parameters->extra[EXTRA_SCALE][head] : scale;
}

/* A row as vectors; vectors_of(head_dim) of them are in use, the last of them half where that is no whole number. Its
 * other half is zero whenever a row is summed. */
struct row {
    vector of[ATTENTION_MOST_HEAD_DIM / VECTOR_FLOATS];
};

ALWAYS_INLINE size_t vectors_of(size_t head_dim)
{
    return (head_dim + HALF_VECTOR) / VECTOR_FLOATS;
}

ALWAYS_INLINE void load_row(struct row *row, const void *x, size_t head_dim, enum dtype dtype)
{
    size_t whole = head_dim / VECTOR_FLOATS;
    for (size_t i = 0; i < whole; i++)
        row->of[i] = vector_load_as(x, i * VECTOR_FLOATS, dtype);
    if (head_dim % VECTOR_FLOATS)
        row->of[whole] = vector_load_half_as(x, whole * VECTOR_FLOATS, dtype);
}

ALWAYS_INLINE void store_row(void *x, const struct row *row, size_t head_dim, enum dtype dtype)
{
    size_t whole = head_dim / VECTOR_FLOATS;
    for (size_t i = 0; i < whole; i++)
        vector_store_as(x, i * VECTOR_FLOATS, row->of[i], dtype);
    if (head_dim % VECTOR_FLOATS)
        vector_store_half_as(x, whole * VECTOR_FLOATS, row->of[whole], dtype);
}

ALWAYS_INLINE float dot(const struct row *a, const struct row *b, size_t head_dim)
{
    vector sum = {0};
    for (size_t i = 0; i < vectors_of(head_dim); i++)
        sum = vector_multiply_add(a->of[i], b->of[i], sum);
    return vector_sum(sum);
}

ALWAYS_INLINE float mean_of(const struct row *row, size_t head_dim)
{
    vector sum = {0};
    for (size_t i = 0; i < vectors_of(head_dim); i++)
        sum += row->of[i];
    return vector_sum(sum) / (float)head_dim;
}

/* row = (row - mean) * rstd; returns rstd. */
ALWAYS_INLINE float standardise(struct row *row, size_t head_dim)
{
    size_t vectors = vectors_of(head_dim);
    float mean = mean_of(row, head_dim);
    for (size_t i = 0; i < vectors; i++)
        row->of[i] -= mean;
    if (head_dim % VECTOR_FLOATS)
        row->of[vectors - 1] = vector_load_half_as(&row->of[vectors - 1], 0, DTYPE_FLOAT32);
    float rstd = 1 / sqrtf(dot(row, row, head_dim) / (float)head_dim + LAYERNORM_EPS);
    for (size_t i = 0; i < vectors; i++)
        row->of[i] *= rstd;
    return rstd;
}

ALWAYS_INLINE void row_dots(float *dots, struct rows a, struct rows b, size_t rows, size_t head_dim, enum dtype dtype)
{
    for (size_t i = 0; i < rows; i++) {
        struct row left, right;
        load_row(&left, const_at(a.data, i * a.stride, dtype), head_dim, dtype);
        load_row(&right, const_at(b.data, i * b.stride, dtype), head_dim, dtype);
        dots[i] = dot(&left, &right, head_dim);
    }
}

void attention_row_dots(float *dots, struct rows a, struct rows b, size_t count, size_t head_dim, enum dtype dtype)
{
    if (dtype == DTYPE_FLOAT32)
        row_dots(dots, a, b, count, head_dim, DTYPE_FLOAT32);
    else
        row_dots(dots, a, b, count, head_dim, DTYPE_BFLOAT16);
}

void attention_row_norms(float *norms, struct rows rows, size_t count, size_t head_dim, enum dtype dtype)
{
    attention_row_dots(norms, rows, rows, count, head_dim, dtype);
    for (size_t i = 0; i < count; i++)
        norms[i] = sqrtf(norms[i]);
}

/* copy = weight * x + bias, after LayerNorm where the side has it. */
ALWAYS_INLINE void transform_rows(void *copy, struct side side, struct rows rows, size_t count, size_t head_dim,
                                  enum dtype dtype)
{
    size_t width = attention_width(head_dim);
    struct row weight, bias = {0};
    load_row(&weight, side.weight, head_dim, DTYPE_FLOAT32);
    if (side.bias)
        load_row(&bias, side.bias, head_dim, DTYPE_FLOAT32);
    for (size_t i = 0; i < count; i++) {
        struct row row;
        load_row(&row, const_at(rows.data, i * rows.stride, dtype), head_dim, dtype);
        if (side.norm == NORM_LAYER)
            standardise(&row, head_dim);
        for (size_t j = 0; j < vectors_of(head_dim); j++)
            row.of[j] = vector_multiply_add(row.of[j], weight.of[j], bias.of[j]);
        store_row(at(copy, i * width, dtype), &row, head_dim, dtype);
    }
}

struct rows attention_normalise(float *factors, void *copy, struct side side, struct rows rows, size_t count,
                                size_t head_dim, enum dtype dtype)
{
    if (side.norm == NORM_UNIT)
        attention_row_norms(factors, rows, count, head_dim, dtype);
    for (size_t i = 0; i < count; i++)
        factors[i] = side.norm == NORM_UNIT ? 1 / fmaxf(factors[i], SMALLEST_NORM) : 1;
    if (!side.weight)
        return rows;
    if (dtype == DTYPE_FLOAT32)
        transform_rows(copy, side, rows, count, head_dim, DTYPE_FLOAT32);
    else
        transform_rows(copy, side, rows, count, head_dim, DTYPE_BFLOAT16);
    return (struct rows){copy, attention_width(head_dim)};
}

ALWAYS_INLINE void add_to(float *sum, const struct row *row, size_t head_dim)
{
    for (size_t i = 0; i < vectors_of(head_dim); i++)
        vector_store(sum + i * VECTOR_FLOATS, vector_load(sum + i * VECTOR_FLOATS) + row->of[i]);
}

/* sum += a * b, number by number. */
ALWAYS_INLINE void add_products_to(float *sum, const struct row *a, const struct row *b, size_t head_dim)
{
    for (size_t i = 0; i < vectors_of(head_dim); i++)
        vector_store(sum + i * VECTOR_FLOATS,
                     vector_multiply_add(a->of[i], b->of[i], vector_load(sum + i * VECTOR_FLOATS)));
}

/* Through u = weight * x, y = u / |x|: with g the gradient of u at constant |x|,
 *   dx = weight * g - x (g . u) / |x|^2,  and without the second term where |x| was clamped. */
ALWAYS_INLINE void unit_backward(struct row *gradient, float *weight_gradient, const struct row *x, struct side side,
                                 size_t head_dim)
{
    size_t vectors = vectors_of(head_dim);
    float norm = sqrtf(dot(x, x, head_dim));
    if (side.weight) {
        struct row weight;
        load_row(&weight, side.weight, head_dim, DTYPE_FLOAT32);
        add_products_to(weight_gradient, gradient, x, head_dim);
        for (size_t i = 0; i < vectors; i++)
            gradient->of[i] *= weight.of[i];
    }
    if (norm <= SMALLEST_NORM)
        return;
    float radial = dot(gradient, x, head_dim) / norm / norm;
    for (size_t i = 0; i < vectors; i++)
        gradient->of[i] -= x->of[i] * radial;
}

/* Through u = weight * z + bias, z = (x - mean) * rstd: with g = weight * du,
 *   dx = rstd * (g - mean(g) - z mean(g z)). */
ALWAYS_INLINE void layernorm_backward(struct row *gradient, float *weight_gradient, float *bias_gradient, struct row *x,
                                      struct side side, size_t head_dim)
{
    size_t vectors = vectors_of(head_dim);
    struct row weight;
    float rstd = standardise(x, head_dim);
    load_row(&weight, side.weight, head_dim, DTYPE_FLOAT32);
    add_products_to(weight_gradient, gradient, x, head_dim);
    add_to(bias_gradient, gradient, head_dim);
    for (size_t i = 0; i < vectors; i++)
        gradient->of[i] *= weight.of[i];
    float mean = mean_of(gradient, head_dim);
    float along = dot(gradient, x, head_dim) / (float)head_dim;
    for (size_t i = 0; i < vectors; i++)
        gradient->of[i] = (gradient->of[i] - mean - x->of[i] * along) * rstd;
}

ALWAYS_INLINE void backward_rows(struct side_gradients to, const float *product_gradient, float scale, struct side side,
                                 struct rows rows, size_t count, size_t head_dim, enum dtype dtype)
{
    size_t width = attention_width(head_dim);
    for (size_t i = 0; i < count; i++) {
        struct row row_gradient, x;
        load_row(&row_gradient, product_gradient + i * width, head_dim, DTYPE_FLOAT32);
        for (size_t j = 0; j < vectors_of(head_dim); j++)
            row_gradient.of[j] *= scale;
        if (side.norm != NORM_NONE)
            load_row(&x, const_at(rows.data, i * rows.stride, dtype), head_dim, dtype);
        if (side.norm == NORM_UNIT)
            unit_backward(&row_gradient, to.weight, &x, side, head_dim);
        else if (side.norm == NORM_LAYER)
            layernorm_backward(&row_gradient, to.weight, to.bias, &x, side, head_dim);
        store_row(at(to.rows, i * rows.stride, dtype), &row_gradient, head_dim, dtype);
    }
}

void attention_normalise_backward(struct side_gradients to, const float *product_gradient, float scale,
                                  struct side side, struct rows rows, size_t count, size_t head_dim, enum dtype dtype)
{
    if (dtype == DTYPE_FLOAT32)
        backward_rows(to, product_gradient, scale, side, rows, count, head_dim, DTYPE_FLOAT32);
    else
        backward_rows(to, product_gradient, scale, side, rows, count, head_dim, DTYPE_BFLOAT16);
}
