/* Forward and backward pass of the one-layer model: its 16 x 16 products by hand, its attention by the CPU backend. */
#include "src/retrieval/model.h"

#include <math.h>
#include <string.h>

#include "src/base/random.h"

enum { DIM = RETRIEVAL_DIM, TOKENS = RETRIEVAL_TOKENS, QKV = 3 * DIM };

/* qknorm_unit is qknorm_hs with its learned scale held at 1. */
static enum attention_kind attention_of(enum retrieval_kind kind)
{
    static const enum attention_kind kinds[RETRIEVAL_KINDS] = {ATTENTION_STANDARD, ATTENTION_QUEST, ATTENTION_QNORM,
                                                               ATTENTION_QKNORM_HS};
    return kinds[kind];
}

/* ---- memory and start ---- */

static bool allocate(struct retrieval_model *model, struct error *error)
{
    size_t samples = model->shape.batch, rows = samples * TOKENS;
    struct {
        void **memory;
        size_t bytes;
    } parts[] = {
        {(void **)&model->weights, sizeof *model->weights},
        {(void **)&model->gradient, sizeof *model->gradient},
        {(void **)&model->first_moment, sizeof *model->first_moment},
        {(void **)&model->second_moment, sizeof *model->second_moment},
        {(void **)&model->qkv, rows * QKV * sizeof(float)},
        {(void **)&model->qkv_gradient, rows * QKV * sizeof(float)},
        {(void **)&model->out, rows * DIM * sizeof(float)},
        {(void **)&model->out_gradient, rows * DIM * sizeof(float)},
        {(void **)&model->logsumexp, rows * sizeof(float)},
        {(void **)&model->pooled, samples * DIM * sizeof(float)},
        {(void **)&model->hidden, samples * DIM * sizeof(float)},
        {(void **)&model->logits, samples * DIM * sizeof(float)},
        {(void **)&model->logits_gradient, samples * DIM * sizeof(float)},
        {(void **)&model->loss, samples * sizeof(float)},
        {(void **)&model->rank, samples * sizeof(int32_t)},
        {(void **)&model->gradient_square, sizeof(double)},
        {(void **)&model->decay, RETRIEVAL_WEIGHTS / 64},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!model->kernels->allocate(model->context, parts[i].memory, parts[i].bytes, "the retrieval model", error))
            return false;
    memset(model->decay, 1, RETRIEVAL_WEIGHTS / 64);
    return true;
}

static void draw_weights(struct retrieval_weights *weights, struct retrieval_start start, uint64_t seed)
{
    float *numbers = (float *)weights;
    for (size_t i = 0; i < RETRIEVAL_WEIGHTS; i += 2) {
        double pair[2];
        random_uniform_pair(pair, seed, random_stream("retrieval weights"), i / 2);
        numbers[i] = (float)(0.5 * pair[0] - 0.25);
        numbers[i + 1] = (float)(0.5 * pair[1] - 0.25);
    }
    memset(weights->output_bias, 0, sizeof weights->output_bias);
    memset(weights->unused, 0, sizeof weights->unused);
    if (!start.biases) {
        memset(weights->query_bias, 0, sizeof weights->query_bias);
        memset(weights->key_bias, 0, sizeof weights->key_bias);
    }
    if (!start.tied)
        return;
    memcpy(weights->key, weights->query, sizeof weights->key);
    for (size_t i = 0; i < DIM; i++)
        for (size_t j = 0; j < DIM; j++)
            weights->output[j][i] = weights->value[i][j];
}

bool retrieval_model_open(struct retrieval_model *model, enum retrieval_kind kind, struct retrieval_start start,
                          size_t samples, uint64_t seed, struct error *error)
{
    *model = (struct retrieval_model){.kernels = kernels_cpu(), .start = start};
    model->shape = (struct attention_shape){attention_of(kind), samples, TOKENS, 1, DIM};
    struct context_options options = {.dtype = DTYPE_FLOAT32, .threads = 1};
    options.workload = (struct workload){.batch = samples,
                                         .patches = TOKENS - 1,
                                         .patch_dim = DIM,
                                         .dim = DIM,
                                         .hidden = DIM,
                                         .heads = 1,
                                         .classes = RETRIEVAL_CLASSES,
                                         .kind = model->shape.kind};
    if (!model->kernels->open(&model->context, &options, error) || !allocate(model, error)) {
        retrieval_model_close(model);
        return false;
    }
    draw_weights(model->weights, start, seed);
    return true;
}

void retrieval_model_close(struct retrieval_model *model)
{
    if (!model->context)
        return;
    void *parts[] = {
        model->weights,         model->gradient, model->first_moment,    model->second_moment, model->qkv,
        model->qkv_gradient,    model->out,      model->out_gradient,    model->logsumexp,     model->pooled,
        model->hidden,          model->logits,   model->logits_gradient, model->loss,          model->rank,
        model->gradient_square, model->decay};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i])
            model->kernels->release(model->context, parts[i]);
    model->kernels->close(model->context);
    *model = (struct retrieval_model){0};
}

/* ---- products with 16 x 16 matrices, in vectors of 16 numbers ---- */

typedef float row_vector __attribute__((vector_size(DIM * sizeof(float)), aligned(4), may_alias));

static inline row_vector *as_row(float *numbers)
{
    return (row_vector *)(void *)numbers;
}

static inline const row_vector *as_const_row(const float *numbers)
{
    return (const row_vector *)(const void *)numbers;
}

/* out = bias + row matrix; no bias where it is NULL. */
static inline void multiply_row(float *out, const float *row, const float (*matrix)[DIM], const float *bias)
{
    row_vector sum = {0};
    if (bias)
        sum = *as_const_row(bias);
    for (size_t i = 0; i < DIM; i++)
        sum += row[i] * *as_const_row(matrix[i]);
    *as_row(out) = sum;
}

/* out = row matrix^T */
static void multiply_row_transposed(float *out, const float *row, const float (*matrix)[DIM])
{
    for (size_t i = 0; i < DIM; i++) {
        row_vector products = *as_const_row(row) * *as_const_row(matrix[i]);
        out[i] = 0;
        for (size_t j = 0; j < DIM; j++)
            out[i] += products[j];
    }
}

/* sum += row^T gradient, over rows that lie row_stride and gradient_stride numbers apart. The local sum is 16 vectors:
 * with AVX-512 it stays in registers. */
static void add_outer_products(float (*sum)[DIM], const float *rows, size_t row_stride, const float *gradients,
                               size_t gradient_stride, size_t count)
{
    row_vector part[DIM] = {{0}};
    for (size_t row = 0; row < count; row++) {
        const float *x = rows + row * row_stride;
        row_vector gradient = *as_const_row(gradients + row * gradient_stride);
#pragma GCC unroll 16
        for (size_t i = 0; i < DIM; i++)
            part[i] += x[i] * gradient;
    }
    for (size_t i = 0; i < DIM; i++)
        *as_row(sum[i]) += part[i];
}

/* sum += rows, `stride` numbers apart. */
static void add_rows(float *sum, const float *rows, size_t stride, size_t count)
{
    row_vector part = *as_const_row(sum);
    for (size_t row = 0; row < count; row++)
        part += *as_const_row(rows + row * stride);
    *as_row(sum) = part;
}

/* ---- forward ---- */

/* The packed queries, keys, and the tokens' classes as one-hot values. */
static void project(struct retrieval_model *model, const struct retrieval_batch *batch)
{
    const struct retrieval_weights *weights = model->weights;
    for (size_t row = 0; row < batch->samples * TOKENS; row++) {
        float *qkv = model->qkv + row * QKV;
        multiply_row(qkv, batch->x + row * DIM, weights->query, weights->query_bias);
        multiply_row(qkv + DIM, batch->x + row * DIM, weights->key, weights->key_bias);
        memset(qkv + 2 * DIM, 0, DIM * sizeof *qkv);
        qkv[2 * DIM + batch->classes[row]] = 1;
    }
}

static void classify(struct retrieval_model *model, size_t samples)
{
    const struct retrieval_weights *weights = model->weights;
    for (size_t sample = 0; sample < samples; sample++) {
        float *pooled = model->pooled + sample * DIM, *hidden = model->hidden + sample * DIM;
        memset(pooled, 0, DIM * sizeof *pooled);
        add_rows(pooled, model->out + sample * TOKENS * DIM, DIM, TOKENS);
        for (size_t j = 0; j < DIM; j++)
            pooled[j] *= 1.0f / TOKENS;
        multiply_row(hidden, pooled, weights->value, NULL);
        multiply_row(model->logits + sample * DIM, hidden, weights->output, weights->output_bias);
    }
}

bool retrieval_forward(struct retrieval_model *model, const struct retrieval_batch *batch, double *statistics,
                       struct error *error)
{
    const float one = 1;
    const struct attention_parameters parameters = {.extra[EXTRA_SCALE] = &one};
    struct attention_shape shape = model->shape;
    shape.batch = batch->samples;
    project(model, batch);
    if (!model->kernels->attention_forward(model->context, model->out, model->logsumexp, model->qkv, &parameters,
                                           statistics, &shape, error))
        return false;
    classify(model, batch->samples);
    struct cross_entropy loss = {.loss = model->loss,
                                 .label_rank = model->rank,
                                 .gradient = model->logits_gradient,
                                 .logits = model->logits,
                                 .labels = batch->labels,
                                 .gradient_scale = 1.0f / (float)batch->samples,
                                 .batch = batch->samples,
                                 .classes = RETRIEVAL_CLASSES};
    return model->kernels->cross_entropy(model->context, &loss, error);
}

/* ---- backward ---- */

/* From the logits' gradient to that of attention's output: every query row of a sample has the same, 1/16 of the
 * pooled one's. */
static void classify_backward(struct retrieval_model *model, size_t samples)
{
    const struct retrieval_weights *weights = model->weights;
    struct retrieval_weights *gradient = model->gradient;
    for (size_t sample = 0; sample < samples; sample++) {
        float hidden[DIM], pooled[DIM], *out = model->out_gradient + sample * TOKENS * DIM;
        const float *logits = model->logits_gradient + sample * DIM;
        multiply_row_transposed(hidden, logits, weights->output);
        multiply_row_transposed(pooled, hidden, weights->value);
        add_outer_products(gradient->output, model->hidden + sample * DIM, DIM, logits, DIM, 1);
        add_outer_products(gradient->value, model->pooled + sample * DIM, DIM, hidden, DIM, 1);
        add_rows(gradient->output_bias, logits, DIM, 1);
        for (size_t row = 0; row < TOKENS; row++)
            for (size_t j = 0; j < DIM; j++)
                out[row * DIM + j] = pooled[j] * (1.0f / TOKENS);
    }
}

static void project_backward(struct retrieval_model *model, const struct retrieval_batch *batch)
{
    struct retrieval_weights *gradient = model->gradient;
    size_t rows = batch->samples * TOKENS;
    add_outer_products(gradient->query, batch->x, DIM, model->qkv_gradient, QKV, rows);
    add_outer_products(gradient->key, batch->x, DIM, model->qkv_gradient + DIM, QKV, rows);
    if (!model->start.biases)
        return;
    add_rows(gradient->query_bias, model->qkv_gradient, QKV, rows);
    add_rows(gradient->key_bias, model->qkv_gradient + DIM, QKV, rows);
}

bool retrieval_backward(struct retrieval_model *model, const struct retrieval_batch *batch, struct error *error)
{
    const float one = 1;
    float ignored = 0;
    const struct attention_parameters parameters = {.extra[EXTRA_SCALE] = &one};
    const struct attention_gradients gradients = {.extra[EXTRA_SCALE] = &ignored};
    struct attention_shape shape = model->shape;
    shape.batch = batch->samples;
    memset(model->gradient, 0, sizeof *model->gradient);
    classify_backward(model, batch->samples);
    struct attention_backward backward = {.qkv_gradient = model->qkv_gradient,
                                          .gradients = &gradients,
                                          .out_gradient = model->out_gradient,
                                          .out = model->out,
                                          .logsumexp = model->logsumexp,
                                          .qkv = model->qkv,
                                          .parameters = &parameters,
                                          .shape = &shape};
    if (!model->kernels->attention_backward(model->context, &backward, error))
        return false;
    project_backward(model, batch);
    return model->kernels->sum_of_squares(model->context, model->gradient_square, (const float *)model->gradient,
                                          RETRIEVAL_WEIGHTS, error);
}

bool retrieval_update(struct retrieval_model *model, const struct adamw *adamw, struct error *error)
{
    struct adamw_update update = {.master = (float *)model->weights,
                                  .m = (float *)model->first_moment,
                                  .v = (float *)model->second_moment,
                                  .gradient = (const float *)model->gradient,
                                  .decay = model->decay,
                                  .gradient_sum_of_squares = model->gradient_square,
                                  .count = RETRIEVAL_WEIGHTS,
                                  .adamw = adamw};
    return model->kernels->adamw_update(model->context, &update, error);
}
