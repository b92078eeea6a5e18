/* Attention of the CLS query alone, one (image, head) at a time. A single query makes vectors of what attention.h calls
 * panels: the products are dots with, and sums over, the rows of keys and values as they lie, bound by reading them. */
#include <math.h>
#include <omp.h>

#include "kernels/cpu/attention/attention.h"

/* One head of one image. */
struct cls_head {
    struct rows raw_query, raw_key, query, key, value; /* query and key enter the product */
    struct side query_side, key_side;
    float logit_scale;
};

/* Rows of one head of one image in the packed keys and values (or their gradient); part 0, 1: keys, values. */
static struct rows key_value_rows(const void *key_value, const struct attention_shape *shape, size_t part, size_t task,
                                  enum dtype dtype)
{
    size_t image = task / shape->heads, head = task % shape->heads;
    size_t first = ((image * shape->tokens * 2 + part) * shape->heads + head) * shape->head_dim;
    return (struct rows){const_at(key_value, first, dtype), 2 * shape->heads * shape->head_dim};
}

/* The row of one head of one image in [batch, heads, head_dim]; with a stride of 0 it stands for any number of rows. */
static struct rows cls_row(const void *x, const struct attention_shape *shape, size_t task, enum dtype dtype)
{
    return (struct rows){const_at(x, task * shape->head_dim, dtype), 0};
}

static struct cls_head cls_head_of(const struct attention_scratch *scratch, const void *query, const void *key_value,
                                   const struct attention_parameters *parameters, const struct attention_shape *shape,
                                   size_t task, enum dtype dtype)
{
    struct cls_head head = {.raw_query = cls_row(query, shape, task, dtype),
                            .raw_key = key_value_rows(key_value, shape, 0, task, dtype),
                            .value = key_value_rows(key_value, shape, 1, task, dtype),
                            .query_side = attention_query_side(shape->kind, parameters),
                            .key_side = attention_key_side(shape->kind, parameters),
                            .logit_scale = attention_logit_scale(shape, parameters, task % shape->heads)};
    head.query = attention_normalise(scratch->query_factors, scratch->query_copy, head.query_side, head.raw_query, 1,
                                     shape->head_dim, dtype);
    head.query.stride = 0;
    head.key = attention_normalise(scratch->key_factors, scratch->key_copy, head.key_side, head.raw_key, shape->tokens,
                                   shape->head_dim, dtype);
    return head;
}

/* logits [tokens], of each key. */
static void cls_logits(float *logits, const struct cls_head *head, const struct attention_scratch *scratch,
                       const struct attention_shape *shape, enum dtype dtype)
{
    float factor = head->logit_scale * scratch->query_factors[0];
    attention_row_dots(logits, head->query, head->key, shape->tokens, shape->head_dim, dtype);
    for (size_t key = 0; key < shape->tokens; key++)
        logits[key] *= scratch->key_factors[key] * factor;
}

ALWAYS_INLINE void mix_rows(float *restrict sum, const float *weights, struct rows rows, size_t count, size_t head_dim,
                            enum dtype dtype)
{
    memset(sum, 0, head_dim * sizeof *sum);
    for (size_t row = 0; row < count; row++)
        for (size_t i = 0; i < head_dim; i++)
            sum[i] = fmaf(weights[row], load(rows.data, row * rows.stride + i, dtype), sum[i]);
}

/* sum [head_dim] = the rows, each times its weight. */
static void mix(float *sum, const float *weights, struct rows rows, size_t count, size_t head_dim, enum dtype dtype)
{
    if (dtype == DTYPE_FLOAT32)
        mix_rows(sum, weights, rows, count, head_dim, DTYPE_FLOAT32);
    else
        mix_rows(sum, weights, rows, count, head_dim, DTYPE_BFLOAT16);
}

/* out [count][attention_width(head_dim)] = weight of each row times the one row x. */
static void outer(float *restrict out, const float *restrict weights, const void *x, size_t count, size_t head_dim,
                  enum dtype dtype)
{
    float row[ATTENTION_MOST_HEAD_DIM];
    for (size_t i = 0; i < head_dim; i++)
        row[i] = load(x, i, dtype);
    for (size_t j = 0; j < count; j++, out += attention_width(head_dim))
        for (size_t i = 0; i < head_dim; i++)
            out[i] = weights[j] * row[i];
}

static void forward_head(const struct attention_cls_forward *op, const struct attention_scratch *scratch, size_t task,
                         enum dtype dtype)
{
    const struct attention_shape *shape = op->shape;
    struct cls_head head = cls_head_of(scratch, op->query, op->key_value, op->parameters, shape, task, dtype);
    float *weights = scratch->scores, maximum = -INFINITY, sum = 0;
    cls_logits(weights, &head, scratch, shape, dtype);
    for (size_t key = 0; key < shape->tokens; key++)
        maximum = fmaxf(maximum, weights[key]);
#pragma omp simd reduction(+ : sum)
    for (size_t key = 0; key < shape->tokens; key++) {
        weights[key] = vector_exp(weights[key] - maximum);
        sum += weights[key];
    }
    mix(scratch->columns, weights, head.value, shape->tokens, shape->head_dim, dtype);
    for (size_t i = 0; i < shape->head_dim; i++)
        store(op->out, task * shape->head_dim + i, scratch->columns[i] / sum, dtype);
    op->logsumexp[task] = maximum + logf(sum);
}

/* From the logits in `probabilities` and the gradients of the probabilities in `slopes` to the probabilities, and what
 * multiplies queries and keys: backward.c's H. */
static void softmax_backward(float *restrict probabilities, float *restrict slopes, const float *key_factors,
                             float query_factor, float logsumexp, float delta, size_t tokens)
{
#pragma omp simd
    for (size_t key = 0; key < tokens; key++) {
        float probability = vector_exp(probabilities[key] - logsumexp);
        probabilities[key] = probability;
        slopes[key] = probability * (slopes[key] - delta) * (key_factors[key] * query_factor);
    }
}

static void query_backward(const struct attention_cls_backward *op, const struct cls_head *head,
                           const struct attention_scratch *scratch, struct attention_extras *extras, size_t task,
                           enum dtype dtype)
{
    size_t head_dim = op->shape->head_dim;
    struct side_gradients to = {at(op->query_gradient, task * head_dim, dtype), extras->of_channel[EXTRA_Q_WEIGHT],
                                extras->of_channel[EXTRA_Q_BIAS]};
    mix(scratch->columns, scratch->score_gradients, head->key, op->shape->tokens, head_dim, dtype);
    if (attention_learns(op->shape->kind, EXTRA_SCALE))
        extras->scale = attention_scale_gradient(scratch->columns, head->raw_query.data, head_dim, dtype);
    attention_normalise_backward(to, scratch->columns, head->logit_scale, head->query_side, head->raw_query, 1,
                                 head_dim, dtype);
}

static void backward_head(const struct attention_cls_backward *op, const struct attention_scratch *scratch,
                          struct attention_extras *extras, size_t task, enum dtype dtype)
{
    const struct attention_shape *shape = op->shape;
    const struct side as_they_are = {.norm = NORM_NONE};
    size_t tokens = shape->tokens, head_dim = shape->head_dim;
    struct cls_head head = cls_head_of(scratch, op->query, op->key_value, op->parameters, shape, task, dtype);
    struct rows out_gradient = cls_row(op->out_gradient, shape, task, dtype);
    struct side_gradients keys = {
        (unsigned char *)(uintptr_t)key_value_rows(op->key_value_gradient, shape, 0, task, dtype).data,
        extras->of_channel[EXTRA_K_WEIGHT], extras->of_channel[EXTRA_K_BIAS]};
    struct side_gradients values = {
        .rows = (unsigned char *)(uintptr_t)key_value_rows(op->key_value_gradient, shape, 1, task, dtype).data};
    float *probabilities = scratch->scores, *slopes = scratch->score_gradients, delta;

    memset(extras, 0, sizeof *extras);
    cls_logits(probabilities, &head, scratch, shape, dtype);
    attention_row_dots(slopes, out_gradient, head.value, tokens, head_dim, dtype);
    attention_row_dots(&delta, out_gradient, cls_row(op->out, shape, task, dtype), 1, head_dim, dtype);
    softmax_backward(probabilities, slopes, scratch->key_factors, scratch->query_factors[0], op->logsumexp[task], delta,
                     tokens);
    query_backward(op, &head, scratch, extras, task, dtype);
    outer(scratch->key_gradients, slopes, head.query.data, tokens, head_dim, dtype);
    attention_normalise_backward(keys, scratch->key_gradients, head.logit_scale, head.key_side, head.raw_key, tokens,
                                 head_dim, dtype);
    outer(scratch->value_gradients, probabilities, out_gradient.data, tokens, head_dim, dtype);
    attention_normalise_backward(values, scratch->value_gradients, 1, as_they_are, head.value, tokens, head_dim, dtype);
}

bool cpu_attention_cls_forward(struct context *ctx, const struct attention_cls_forward *op, struct error *error)
{
    const struct attention_shape *shape = op->shape;
    struct attention_workspace workspace;
    if (!attention_workspace_open(&workspace, ctx, shape, error))
        return false;
#pragma omp parallel num_threads(ctx->threads)
    {
        struct attention_scratch scratch = attention_scratch_of(&workspace, shape, omp_get_thread_num(), ctx->dtype);
#pragma omp for schedule(static)
        for (size_t task = 0; task < shape->batch * shape->heads; task++)
            forward_head(op, &scratch, task, ctx->dtype);
    }
    return true;
}

bool cpu_attention_cls_backward(struct context *ctx, const struct attention_cls_backward *op, struct error *error)
{
    const struct attention_shape *shape = op->shape;
    struct attention_workspace workspace;
    if (!attention_workspace_open(&workspace, ctx, shape, error))
        return false;
#pragma omp parallel num_threads(ctx->threads)
    {
        struct attention_scratch scratch = attention_scratch_of(&workspace, shape, omp_get_thread_num(), ctx->dtype);
#pragma omp for schedule(static)
        for (size_t task = 0; task < shape->batch * shape->heads; task++)
            backward_head(op, &scratch, workspace.extras + task, task, ctx->dtype);
    }
    attention_reduce_extras(op->gradients, workspace.extras, shape);
    return true;
}
