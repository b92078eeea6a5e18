/* softmax(Q K^T) V of one (image, head) at a time, a panel of queries at a time; attention.h has the picture. */
#include <math.h>
#include <omp.h>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/vector_math.h"

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
    struct rows query, key, value, out; /* query and key as they enter the product */
    float logit_scale;
    float *logsumexp; /* [tokens] */
    double *record;   /* NULL without statistics */
};

/* What softmax knows of each query of a panel. */
struct panel_sums {
    float maximum[PANEL];
    float sum[PANEL];      /* of exp(logit - maximum) */
    float weighted[PANEL]; /* of exp(logit - maximum) * (logit - maximum); with statistics only */
};

/* scores [tokens][PANEL] from raw products to exp(logit - maximum). The logits are computed twice: two products cost
 * less than a store and a load. */
ALWAYS_INLINE void softmax_lanes(float *scores, struct panel_sums *sums, const float *key_factors,
                                 const float *lane_scale, size_t tokens, size_t lanes, bool statistics)
{
    for (size_t lane = 0; lane < lanes; lane++) {
        sums->maximum[lane] = -INFINITY;
        sums->sum[lane] = sums->weighted[lane] = 0;
    }
    for (size_t key = 0; key < tokens; key++)
#pragma omp simd
        for (size_t lane = 0; lane < lanes; lane++) {
            float logit = scores[key * PANEL + lane] * key_factors[key] * lane_scale[lane];
            sums->maximum[lane] = logit > sums->maximum[lane] ? logit : sums->maximum[lane];
        }
    for (size_t key = 0; key < tokens; key++)
#pragma omp simd
        for (size_t lane = 0; lane < lanes; lane++) {
            float logit = scores[key * PANEL + lane] * key_factors[key] * lane_scale[lane];
            float below = logit - sums->maximum[lane], exponential = vector_exp(below);
            scores[key * PANEL + lane] = exponential;
            sums->sum[lane] += exponential;
            if (statistics)
                sums->weighted[lane] += exponential * below;
        }
}

static void softmax_panel(float *scores, struct panel_sums *sums, const float *key_factors, const float *lane_scale,
                          size_t tokens, size_t lanes, bool statistics)
{
    if (lanes == PANEL) {
        if (statistics)
            softmax_lanes(scores, sums, key_factors, lane_scale, tokens, PANEL, true);
        else
            softmax_lanes(scores, sums, key_factors, lane_scale, tokens, PANEL, false);
    } else {
        softmax_lanes(scores, sums, key_factors, lane_scale, tokens, VECTOR_FLOATS, statistics);
    }
}

/* With p = e^below / sum: entropy = -sum p ln p = ln sum - sum p * below. Both terms are positive. */
static void record_panel(double *record, const struct panel_sums *sums, size_t queries)
{
    for (size_t lane = 0; lane < queries; lane++) {
        double sum = sums->sum[lane], entropy = log(sum) - sums->weighted[lane] / sum;
        record[STATISTIC_LOGIT_MAX] = fmax(record[STATISTIC_LOGIT_MAX], sums->maximum[lane]);
        record[STATISTIC_ENTROPY_SUM] += entropy;
        record[STATISTIC_ENTROPY_MIN] = fmin(record[STATISTIC_ENTROPY_MIN], entropy);
    }
}

/* Rows of the output and the logsumexp of a panel's queries, from O^T before it is divided by the sums. */
static void write_panel(const struct head *head, const struct attention_scratch *scratch, const struct panel_sums *sums,
                        size_t first, size_t queries, size_t head_dim, enum dtype dtype)
{
    attention_unpack_panel(scratch->panel_rows, scratch->columns, head_dim);
    for (size_t lane = 0; lane < queries; lane++) {
        float share = 1 / sums->sum[lane];
        const float *row = scratch->panel_rows + lane * head_dim;
        void *out = at((void *)head->out.data, (first + lane) * head->out.stride, dtype);
        if (dtype == DTYPE_FLOAT32)
            for (size_t i = 0; i < head_dim; i++)
                store(out, i, row[i] * share, DTYPE_FLOAT32);
        else
            for (size_t i = 0; i < head_dim; i++)
                store(out, i, row[i] * share, DTYPE_BFLOAT16);
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
    const float *weights = scratch->scores;

    attention_pack_panel(scratch->query_panel, head->query, first, queries, head_dim, dtype);
    attention_scores(scratch->scores, scratch->key_blocks, scratch->query_panel, tokens, lanes, head_dim, dtype);
    for (size_t lane = 0; lane < PANEL; lane++)
        lane_scale[lane] = lane < queries ? head->logit_scale * scratch->query_factors[first + lane] : 0;
    softmax_panel(scratch->scores, &sums, scratch->key_factors, lane_scale, tokens, lanes, head->record);
    if (head->record)
        record_panel(head->record, &sums, queries);
    if (dtype != DTYPE_FLOAT32) {
        attention_round_keys(scratch->key_pairs, scratch->scores, tokens);
        weights = scratch->key_pairs;
    }
    attention_mix(scratch->columns, scratch->value_steps, weights, tokens, lanes, head_dim, dtype);
    write_panel(head, scratch, &sums, first, queries, head_dim, dtype);
}

static void forward_head(const struct forward *call, const struct attention_scratch *scratch, double *record,
                         size_t image, size_t index)
{
    const struct attention_shape *shape = call->shape;
    size_t tokens = shape->tokens, head_dim = shape->head_dim;
    struct rows query = attention_rows(call->qkv, shape, 0, image, index, call->dtype);
    struct rows key = attention_rows(call->qkv, shape, 1, image, index, call->dtype);
    struct head head = {.value = attention_rows(call->qkv, shape, 2, image, index, call->dtype),
                        .out = {at(call->out, (image * tokens * shape->heads + index) * head_dim, call->dtype),
                                shape->heads * head_dim},
                        .logit_scale = attention_logit_scale(shape, call->parameters, index),
                        .logsumexp = call->logsumexp + (image * shape->heads + index) * tokens,
                        .record = call->statistics ? record : NULL};
    if (call->statistics) {
        attention_statistics_begin(record);
        attention_norm_statistics(record, STATISTIC_Q_SUM, query, tokens, head_dim, call->dtype);
        attention_norm_statistics(record, STATISTIC_K_SUM, key, tokens, head_dim, call->dtype);
    }
    head.query =
        attention_normalise(scratch->query_factors, scratch->query_copy,
                            attention_query_side(shape->kind, call->parameters), query, tokens, head_dim, call->dtype);
    head.key =
        attention_normalise(scratch->key_factors, scratch->key_copy, attention_key_side(shape->kind, call->parameters),
                            key, tokens, head_dim, call->dtype);
    attention_pack_blocks(scratch->key_blocks, head.key, tokens, head_dim, call->dtype);
    attention_pack_steps(scratch->value_steps, head.value, tokens, head_dim, call->dtype);
    for (size_t first = 0; first < tokens; first += PANEL)
        forward_panel(&head, scratch, first, shape, call->dtype);
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
