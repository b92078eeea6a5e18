/* softmax(Q K^T) V of one (image, head) at a time, a panel of queries at a time; attention.h has the picture. */
#include <math.h>
#include <omp.h>

#include "kernels/cpu/attention/attention.h"

/* The arguments of one call. */
struct forward {
    const struct attention_shape *shape;
    const struct attention_parameters *parameters;
    const void *qkv;
    void *out;
    float *logsumexp;
    bool statistics;
    enum dtype dtype;
};

/* One head of one image, ready for its panels. */
struct head {
    struct rows query; /* as they enter the product */
    void *out;         /* the first row, the others out_stride numbers apart */
    size_t out_stride;
    float logit_scale;
    float *logsumexp; /* [tokens] */
    double *record;   /* NULL without statistics */
};

/* Rows of the output and the logsumexp of a panel's queries, from O^T before it is divided by the sums. */
static void write_panel(const struct head *head, const struct attention_scratch *scratch, const struct panel_sums *sums,
                        size_t first, size_t queries, size_t head_dim, enum dtype dtype)
{
    size_t width = attention_width(head_dim), whole = head_dim - head_dim % VECTOR_FLOATS;
    attention_unpack_panel(scratch->panel_rows, scratch->columns, head_dim);
    for (size_t lane = 0; lane < queries; lane++) {
        float share = 1 / sums->sum[lane];
        const float *row = scratch->panel_rows + lane * width;
        void *out = at(head->out, (first + lane) * head->out_stride, dtype);
        for (size_t i = 0; i < whole; i += VECTOR_FLOATS)
            vector_store_as(out, i, vector_load(row + i) * share, dtype);
        if (whole < head_dim)
            vector_store_half_as(out, whole, vector_load(row + whole) * share, dtype);
        head->logsumexp[first + lane] = sums->maximum[lane] + logf(sums->sum[lane]);
    }
}

static void forward_panel(const struct head *head, const struct attention_scratch *scratch, size_t first,
                          const struct attention_shape *shape, enum dtype dtype)
{
    struct panel_sums sums;
    float lane_scale[PANEL];
    size_t tokens = shape->tokens, head_dim = shape->head_dim;
    size_t queries = tokens - first < PANEL ? tokens - first : PANEL;
    size_t lanes = queries <= VECTOR_FLOATS ? VECTOR_FLOATS : PANEL;
    float *weights = dtype == DTYPE_FLOAT32 ? scratch->scores : scratch->key_pairs;

    attention_pack_panel(scratch->query_panel, head->query, first, queries, head_dim, dtype);
    attention_scores(scratch->scores, scratch->key_blocks, scratch->query_panel, tokens, lanes, head_dim, dtype);
    for (size_t lane = 0; lane < PANEL; lane++)
        lane_scale[lane] = lane < queries ? head->logit_scale * scratch->query_factors[first + lane] : 0;
    attention_softmax(weights, scratch->scores, &sums, scratch->key_factors, lane_scale, tokens, lanes,
                      head->record != NULL, dtype);
    if (head->record)
        attention_panel_statistics(head->record, &sums, queries);
    attention_mix(scratch->columns, scratch->value_steps, weights, tokens, lanes, head_dim, dtype);
    write_panel(head, scratch, &sums, first, queries, head_dim, dtype);
}

static void record_norms(double *record, float *norms, struct rows query, struct rows key,
                         const struct attention_shape *shape, enum dtype dtype)
{
    attention_statistics_begin(record);
    attention_row_norms(norms, query, shape->tokens, shape->head_dim, dtype);
    attention_norm_statistics(record, STATISTIC_Q_SUM, norms, shape->tokens);
    attention_row_norms(norms, key, shape->tokens, shape->head_dim, dtype);
    attention_norm_statistics(record, STATISTIC_K_SUM, norms, shape->tokens);
}

/* Tokens first.. of the next task: as many as a panel has, so that the last panel has asked for all. */
static void prefetch_next(const struct forward *call, size_t image, size_t index, size_t first)
{
    const struct attention_shape *shape = call->shape;
    size_t next = image * shape->heads + index + 1;
    size_t count = shape->tokens - first < PANEL ? shape->tokens - first : PANEL;
    if (next == shape->batch * shape->heads)
        return;
    for (size_t part = 0; part < 3; part++)
        attention_prefetch(
            attention_rows(call->qkv, shape, part, next / shape->heads, next % shape->heads, call->dtype), first, count,
            shape->head_dim, call->dtype);
}

static void forward_head(const struct forward *call, const struct attention_scratch *scratch, double *record,
                         size_t image, size_t index)
{
    const struct attention_shape *shape = call->shape;
    size_t tokens = shape->tokens, head_dim = shape->head_dim;
    struct rows query = attention_rows(call->qkv, shape, 0, image, index, call->dtype);
    struct rows key = attention_rows(call->qkv, shape, 1, image, index, call->dtype);
    struct rows value = attention_rows(call->qkv, shape, 2, image, index, call->dtype);
    struct head head = {.out = at(call->out, (image * tokens * shape->heads + index) * head_dim, call->dtype),
                        .out_stride = shape->heads * head_dim,
                        .logit_scale = attention_logit_scale(shape, call->parameters, index),
                        .logsumexp = call->logsumexp + (image * shape->heads + index) * tokens,
                        .record = call->statistics ? record : NULL};
    if (call->statistics)
        record_norms(record, scratch->delta, query, key, shape, call->dtype);
    head.query =
        attention_normalise(scratch->query_factors, scratch->query_copy,
                            attention_query_side(shape->kind, call->parameters), query, tokens, head_dim, call->dtype);
    key = attention_normalise(scratch->key_factors, scratch->key_copy,
                              attention_key_side(shape->kind, call->parameters), key, tokens, head_dim, call->dtype);
    attention_pack_blocks(scratch->key_blocks, key, tokens, head_dim, call->dtype);
    attention_pack_steps(scratch->value_steps, value, tokens, head_dim, call->dtype);
    for (size_t first = 0; first < tokens; first += PANEL) {
        prefetch_next(call, image, index, first);
        forward_panel(&head, scratch, first, shape, call->dtype);
    }
}

bool cpu_attention_forward(struct context *ctx, void *out, float *logsumexp, const void *qkv,
                           const struct attention_parameters *parameters, double *statistics,
                           const struct attention_shape *shape, struct error *error)
{
    struct attention_workspace workspace;
    struct forward call = {shape, parameters, qkv, out, logsumexp, statistics != NULL, ctx->dtype};
    size_t tasks = shape->batch * shape->heads;
    if (!attention_workspace_open(&workspace, ctx, shape, error))
        return false;
#pragma omp parallel num_threads(ctx->threads)
    {
        struct attention_scratch scratch = attention_scratch_of(&workspace, shape, omp_get_thread_num(), ctx->dtype);
#pragma omp for schedule(static)
        for (size_t task = 0; task < tasks; task++)
            forward_head(&call, &scratch, workspace.records + task * ATTENTION_STATISTICS, task / shape->heads,
                         task % shape->heads);
    }
    if (statistics)
        attention_statistics_combine(statistics, workspace.records, shape->batch, shape->heads);
    return true;
}
