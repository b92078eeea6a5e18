/* The gradient of attention, one (image, head) at a time; attention.h has the picture, docs/mathematics.md the
 * formulas.
 *
 * With G = P * (dO V^T - delta), delta_i = dO_i . O_i, the gradient of the logits, and the logits
 * scale * query_factor_i * key_factor_j * (q_i . k_j), what multiplies Q and K below is
 * H_ij = G_ij * query_factor_i * key_factor_j; the scale comes in row by row, so that its own gradient,
 * sum_i q_i . (H K)_i, needs no division by it. */
#include <math.h>
#include <omp.h>

#include "kernels/cpu/attention/attention.h"

/* The arguments of one call. */
struct backward {
    const struct attention_shape *shape;
    const struct attention_parameters *parameters;
    const void *qkv, *out, *out_gradient;
    const float *logsumexp;
    void *qkv_gradient;
    enum dtype dtype;
};

/* One head of one image, ready for its panels. */
struct head {
    struct rows raw_query, raw_key, query, key, value, out, out_gradient; /* query and key enter the product */
    struct side query_side, key_side;
    unsigned char *query_gradient, *key_gradient, *value_gradient; /* first rows, as far apart as the raw ones */
    size_t task;                                                   /* image * heads + head */
    float logit_scale;
    const float *logsumexp; /* [tokens] */
    struct attention_extras *extras;
};

static struct rows out_rows(const void *out, const struct attention_shape *shape, size_t image, size_t index,
                            enum dtype dtype)
{
    size_t first = (image * shape->tokens * shape->heads + index) * shape->head_dim;
    return (struct rows){const_at(out, first, dtype), shape->heads * shape->head_dim};
}

/* Missing queries get factors of 0 and so P = 1, H = 0: nothing that could spoil a sum with their zero rows. */
static void gather_lanes(struct panel_lanes *of, const struct head *head, const struct attention_scratch *scratch,
                         size_t first, size_t queries)
{
    memset(of, 0, sizeof *of);
    for (size_t lane = 0; lane < queries; lane++) {
        of->factor[lane] = scratch->query_factors[first + lane];
        of->scale[lane] = head->logit_scale * of->factor[lane];
        of->logsumexp[lane] = head->logsumexp[first + lane];
        of->delta[lane] = scratch->delta[first + lane];
    }
}

/* dQ of a panel, from its columns of H K. */
static void finish_queries(const struct head *head, const struct attention_scratch *scratch, size_t first,
                           size_t queries, const struct attention_shape *shape, enum dtype dtype)
{
    size_t head_dim = shape->head_dim, width = attention_width(head_dim), from = first * head->raw_query.stride;
    struct rows rows = {const_at(head->raw_query.data, from, dtype), head->raw_query.stride};
    attention_unpack_panel(scratch->panel_rows, scratch->columns, head_dim);
    if (attention_learns(shape->kind, EXTRA_SCALE))
        for (size_t lane = 0; lane < queries; lane++)
            head->extras->scale += attention_scale_gradient(
                scratch->panel_rows + lane * width, const_at(rows.data, lane * rows.stride, dtype), head_dim, dtype);
    struct side_gradients to = {at(head->query_gradient, from, dtype), head->extras->of_channel[EXTRA_Q_WEIGHT],
                                head->extras->of_channel[EXTRA_Q_BIAS]};
    attention_normalise_backward(to, scratch->panel_rows, head->logit_scale, head->query_side, rows, queries, head_dim,
                                 dtype);
}

/* dK and dV of all tokens, once every panel has been collected. */
static void finish_keys(const struct head *head, const struct attention_scratch *scratch,
                        const struct attention_shape *shape, enum dtype dtype)
{
    const struct side as_they_are = {.norm = NORM_NONE};
    struct side_gradients keys = {head->key_gradient, head->extras->of_channel[EXTRA_K_WEIGHT],
                                  head->extras->of_channel[EXTRA_K_BIAS]};
    struct side_gradients values = {.rows = head->value_gradient};
    attention_normalise_backward(keys, scratch->key_gradients, head->logit_scale, head->key_side, head->raw_key,
                                 shape->tokens, shape->head_dim, dtype);
    attention_normalise_backward(values, scratch->value_gradients, 1, as_they_are, head->value, shape->tokens,
                                 shape->head_dim, dtype);
}

/* P and H of a panel, into slot `panel` of the tile, and dQ. */
static void backward_panel(const struct head *head, const struct attention_scratch *scratch, size_t panel, size_t first,
                           const struct attention_shape *shape, enum dtype dtype)
{
    struct panel_lanes lanes_of;
    size_t tokens = shape->tokens, head_dim = shape->head_dim;
    size_t queries = tokens - first < PANEL ? tokens - first : PANEL;
    size_t lanes = queries <= VECTOR_FLOATS ? VECTOR_FLOATS : PANEL;
    size_t slot = panel * tokens * cells_of(PANEL, dtype);
    struct panel_weights out = {scratch->probabilities + slot, scratch->gradients + slot, scratch->key_pairs};
    float *scores = dtype == DTYPE_FLOAT32 ? out.probabilities : scratch->scores;
    float *gradients = dtype == DTYPE_FLOAT32 ? out.gradients : scratch->score_gradients;

    attention_pack_panel(scratch->query_panel, head->query, first, queries, head_dim, dtype);
    attention_pack_panel(scratch->out_gradient_panel, head->out_gradient, first, queries, head_dim, dtype);
    attention_scores(scores, scratch->key_blocks, scratch->query_panel, tokens, lanes, head_dim, dtype);
    attention_scores(gradients, scratch->value_blocks, scratch->out_gradient_panel, tokens, lanes, head_dim, dtype);
    gather_lanes(&lanes_of, head, scratch, first, queries);
    attention_softmax_backward(&out, scores, gradients, &lanes_of, scratch->key_factors, tokens, lanes, dtype);
    attention_mix(scratch->columns, scratch->key_steps, dtype == DTYPE_FLOAT32 ? gradients : out.key_pairs, tokens,
                  lanes, head_dim, dtype);
    finish_queries(head, scratch, first, queries, shape, dtype);
}

/* Tokens first.. of the next task: as many as a panel has, so that the last panel has asked for all. */
static void prefetch_next(const struct backward *call, size_t task, size_t first)
{
    const struct attention_shape *shape = call->shape;
    size_t image = (task + 1) / shape->heads, index = (task + 1) % shape->heads;
    size_t count = shape->tokens - first < PANEL ? shape->tokens - first : PANEL;
    if (image == shape->batch)
        return;
    for (size_t part = 0; part < 3; part++)
        attention_prefetch(attention_rows(call->qkv, shape, part, image, index, call->dtype), first, count,
                           shape->head_dim, call->dtype);
    attention_prefetch(out_rows(call->out, shape, image, index, call->dtype), first, count, shape->head_dim,
                       call->dtype);
    attention_prefetch(out_rows(call->out_gradient, shape, image, index, call->dtype), first, count, shape->head_dim,
                       call->dtype);
}

static void backward_panels(const struct backward *call, const struct head *head,
                            const struct attention_scratch *scratch)
{
    const struct attention_shape *shape = call->shape;
    enum dtype dtype = call->dtype;
    size_t tokens = shape->tokens, head_dim = shape->head_dim, tile = attention_tile_panels(tokens) * PANEL;
    for (size_t begin = 0; begin < tokens; begin += tile) {
        size_t end = begin + tile < tokens ? begin + tile : tokens;
        size_t steps = cells_of(begin, dtype) * attention_width(head_dim); /* of the queries before the tile */
        for (size_t first = begin; first < end; first += PANEL) {
            prefetch_next(call, head->task, first);
            backward_panel(head, scratch, (first - begin) / PANEL, first, shape, dtype);
        }
        attention_collect(scratch->value_gradients, scratch->probabilities, scratch->out_gradient_steps + steps, tokens,
                          end - begin, head_dim, begin > 0, dtype);
        attention_collect(scratch->key_gradients, scratch->gradients, scratch->query_steps + steps, tokens, end - begin,
                          head_dim, begin > 0, dtype);
    }
}

static void backward_head(const struct backward *call, const struct attention_scratch *scratch,
                          struct attention_extras *extras, size_t image, size_t index)
{
    const struct attention_shape *shape = call->shape;
    enum dtype dtype = call->dtype;
    size_t tokens = shape->tokens, head_dim = shape->head_dim;
    struct head head = {
        .raw_query = attention_rows(call->qkv, shape, 0, image, index, dtype),
        .raw_key = attention_rows(call->qkv, shape, 1, image, index, dtype),
        .value = attention_rows(call->qkv, shape, 2, image, index, dtype),
        .out = out_rows(call->out, shape, image, index, dtype),
        .out_gradient = out_rows(call->out_gradient, shape, image, index, dtype),
        .query_side = attention_query_side(shape->kind, call->parameters),
        .key_side = attention_key_side(shape->kind, call->parameters),
        .query_gradient = (void *)attention_rows(call->qkv_gradient, shape, 0, image, index, dtype).data,
        .key_gradient = (void *)attention_rows(call->qkv_gradient, shape, 1, image, index, dtype).data,
        .value_gradient = (void *)attention_rows(call->qkv_gradient, shape, 2, image, index, dtype).data,
        .task = image * shape->heads + index,
        .logit_scale = attention_logit_scale(shape, call->parameters, index),
        .logsumexp = call->logsumexp + (image * shape->heads + index) * tokens,
        .extras = extras};

    memset(extras, 0, sizeof *extras);
    head.query = attention_normalise(scratch->query_factors, scratch->query_copy, head.query_side, head.raw_query,
                                     tokens, head_dim, dtype);
    head.key = attention_normalise(scratch->key_factors, scratch->key_copy, head.key_side, head.raw_key, tokens,
                                   head_dim, dtype);
    attention_pack_blocks(scratch->key_blocks, head.key, tokens, head_dim, dtype);
    attention_pack_blocks(scratch->value_blocks, head.value, tokens, head_dim, dtype);
    attention_pack_steps(scratch->key_steps, head.key, tokens, head_dim, dtype);
    attention_pack_steps(scratch->query_steps, head.query, tokens, head_dim, dtype);
    attention_pack_steps(scratch->out_gradient_steps, head.out_gradient, tokens, head_dim, dtype);
    attention_row_dots(scratch->delta, head.out, head.out_gradient, tokens, head_dim, dtype);
    backward_panels(call, &head, scratch);
    finish_keys(&head, scratch, shape, dtype);
}

bool cpu_attention_backward(struct context *ctx, const struct attention_backward *op, struct error *error)
{
    const struct attention_shape *shape = op->shape;
    struct attention_workspace workspace;
    struct backward call = {.shape = shape,
                            .parameters = op->parameters,
                            .qkv = op->qkv,
                            .out = op->out,
                            .out_gradient = op->out_gradient,
                            .logsumexp = op->logsumexp,
                            .qkv_gradient = op->qkv_gradient,
                            .dtype = ctx->dtype};
    size_t tasks = shape->batch * shape->heads;
    if (!attention_workspace_open(&workspace, ctx, shape, error))
        return false;
#pragma omp parallel num_threads(ctx->threads)
    {
        struct attention_scratch scratch = attention_scratch_of(&workspace, shape, omp_get_thread_num(), ctx->dtype);
#pragma omp for schedule(static)
        for (size_t task = 0; task < tasks; task++)
            backward_head(&call, &scratch, workspace.extras + task, task / shape->heads, task % shape->heads);
    }
    attention_reduce_extras(op->gradients, workspace.extras, shape);
    return true;
}
