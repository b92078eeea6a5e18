/* One call of the CPU's attention beside its float64 reference: random tensors, both passes. */
#ifndef QUEST_TESTS_ATTENTION_TRIAL_H
#define QUEST_TESTS_ATTENTION_TRIAL_H

#include "kernels/bfloat16.h"
#include "kernels/cpu/cpu.h"
#include "tests/unit/attention_test.h"

struct trial {
    struct context ctx;
    struct attention_shape shape;
    void *qkv, *out, *out_gradient, *qkv_gradient; /* T */
    float *logsumexp;
    double *statistics;
    float weights[4][REFERENCE_HEAD_DIM], scale[REFERENCE_HEADS]; /* extras: q, k weight, q, k bias */
    float weight_gradients[4][REFERENCE_HEAD_DIM], scale_gradient[REFERENCE_HEADS];
    struct reference_extras extras, extra_gradients; /* float64 */
    struct reference_head *heads;                    /* [batch][heads] */
};

static inline void *numbers(size_t count, size_t bytes)
{
    void *memory = aligned_alloc(64, cpu_align(count * bytes));
    assert_non_null(memory);
    memset(memory, 0xff, cpu_align(count * bytes)); /* NaN: what is not written shows */
    return memory;
}

static inline void trial_open_context(struct trial *trial, enum dtype dtype, int threads)
{
    const struct attention_shape *shape = &trial->shape;
    struct context_options options = {.dtype = dtype, .threads = threads};
    options.workload = (struct workload){.batch = shape->batch,
                                         .patches = shape->tokens - 1,
                                         .dim = shape->heads * shape->head_dim,
                                         .heads = shape->heads,
                                         .kind = shape->kind};
    trial->ctx = (struct context){.dtype = dtype, .threads = threads, .workload = options.workload};
    trial->ctx.workspace_bytes = cpu_attention_workspace_bytes(&options);
    trial->ctx.workspace = numbers(trial->ctx.workspace_bytes, 1);
}

/* Rounds to T, so that the reference sees the numbers that the op sees. */
static inline double put(const struct trial *trial, void *x, size_t i, double value)
{
    store(x, i, (float)value, trial->ctx.dtype);
    return load(x, i, trial->ctx.dtype);
}

static inline void trial_fill_extras(struct trial *trial)
{
    double *wide[4] = {trial->extras.q_weight, trial->extras.k_weight, trial->extras.q_bias, trial->extras.k_bias};
    memset(&trial->extra_gradients, 0, sizeof trial->extra_gradients);
    for (int which = 0; which < 4; which++)
        for (size_t i = 0; i < REFERENCE_HEAD_DIM; i++) {
            trial->weights[which][i] = (float)((which < 2 ? 1.5 : 0) + 0.3 * normal());
            wide[which][i] = trial->weights[which][i];
            trial->weight_gradients[which][i] = 0;
        }
    for (size_t head = 0; head < REFERENCE_HEADS; head++) {
        trial->scale[head] = (float)(4 * normal()); /* negative ones too */
        trial->extras.scale[head] = trial->scale[head];
        trial->scale_gradient[head] = 0;
    }
}

static inline void trial_new(struct trial *trial, struct attention_shape shape, enum dtype dtype, int threads,
                             double spread)
{
    size_t n = shape.tokens, d = shape.head_dim, rows = shape.batch * n * shape.heads;
    memset(trial, 0, sizeof *trial);
    trial->shape = shape;
    trial_open_context(trial, dtype, threads);
    trial->qkv = numbers(3 * rows * d, dtype_bytes(dtype));
    trial->qkv_gradient = numbers(3 * rows * d, dtype_bytes(dtype));
    trial->out = numbers(rows * d, dtype_bytes(dtype));
    trial->out_gradient = numbers(rows * d, dtype_bytes(dtype));
    trial->logsumexp = numbers(rows, sizeof(float));
    trial->statistics = numbers(shape.heads * ATTENTION_STATISTICS, sizeof(double));
    for (size_t head = 0; head < shape.heads; head++) {
        double *record = trial->statistics + head * ATTENTION_STATISTICS;
        memset(record, 0, ATTENTION_STATISTICS * sizeof(double));
        record[STATISTIC_Q_MIN] = record[STATISTIC_K_MIN] = record[STATISTIC_ENTROPY_MIN] = INFINITY;
        record[STATISTIC_LOGIT_MAX] = -INFINITY;
    }
    trial_fill_extras(trial);
    trial->heads = calloc(shape.batch * shape.heads, sizeof *trial->heads);
    assert_non_null(trial->heads);
    for (size_t image = 0; image < shape.batch; image++)
        for (size_t h = 0; h < shape.heads; h++) {
            struct reference_head *head = &trial->heads[image * shape.heads + h];
            reference_new(head, n, d);
            for (size_t t = 0; t < n; t++)
                for (size_t i = 0; i < d; i++) {
                    for (int part = 0; part < 3; part++)
                        head->x[part][t * d + i] = put(trial, trial->qkv, qkv_index(&shape, image, t, part, h) + i,
                                                       (part < 2 ? spread : 1) * normal());
                    head->out_gradient[t * d + i] =
                        put(trial, trial->out_gradient, out_index(&shape, image, t, h) + i, normal());
                }
        }
}

static inline void trial_free(struct trial *trial)
{
    for (size_t i = 0; i < trial->shape.batch * trial->shape.heads; i++)
        free(trial->heads[i].memory);
    free(trial->heads);
    free(trial->qkv);
    free(trial->qkv_gradient);
    free(trial->out);
    free(trial->out_gradient);
    free(trial->logsumexp);
    free(trial->statistics);
    free(trial->ctx.workspace);
}

static inline struct attention_parameters parameters_of(const struct trial *trial)
{
    struct attention_parameters parameters = {.extra = {[EXTRA_Q_WEIGHT] = trial->weights[0],
                                                        [EXTRA_K_WEIGHT] = trial->weights[1],
                                                        [EXTRA_Q_BIAS] = trial->weights[2],
                                                        [EXTRA_K_BIAS] = trial->weights[3],
                                                        [EXTRA_SCALE] = trial->scale}};
    for (int extra = 0; extra < ATTENTION_EXTRAS; extra++)
        if (!attention_learns(trial->shape.kind, (enum attention_extra)extra))
            parameters.extra[extra] = NULL;
    return parameters;
}

static inline struct attention_gradients gradients_of(struct trial *trial)
{
    struct attention_gradients gradients = {.extra = {[EXTRA_Q_WEIGHT] = trial->weight_gradients[0],
                                                      [EXTRA_K_WEIGHT] = trial->weight_gradients[1],
                                                      [EXTRA_Q_BIAS] = trial->weight_gradients[2],
                                                      [EXTRA_K_BIAS] = trial->weight_gradients[3],
                                                      [EXTRA_SCALE] = trial->scale_gradient}};
    for (int extra = 0; extra < ATTENTION_EXTRAS; extra++)
        if (!attention_learns(trial->shape.kind, (enum attention_extra)extra))
            gradients.extra[extra] = NULL;
    return gradients;
}

static inline void trial_run(struct trial *trial, bool with_statistics)
{
    struct error error = {0};
    struct attention_parameters parameters = parameters_of(trial);
    struct attention_gradients gradients = gradients_of(trial);
    assert_true(cpu_attention_forward(&trial->ctx, trial->out, trial->logsumexp, trial->qkv, &parameters,
                                      with_statistics ? trial->statistics : NULL, &trial->shape, &error));
    memset(trial->ctx.workspace, 0xff, trial->ctx.workspace_bytes); /* nothing in it may be relied upon */
    struct attention_backward backward = {.qkv_gradient = trial->qkv_gradient,
                                          .gradients = &gradients,
                                          .out_gradient = trial->out_gradient,
                                          .out = trial->out,
                                          .logsumexp = trial->logsumexp,
                                          .qkv = trial->qkv,
                                          .parameters = &parameters,
                                          .shape = &trial->shape};
    assert_true(cpu_attention_backward(&trial->ctx, &backward, &error));
}

/* The extras' gradients beside the reference's. */
static inline void check_extras(const struct trial *trial, double tolerance)
{
    const struct attention_shape *s = &trial->shape;
    const double *expected[4] = {trial->extra_gradients.q_weight, trial->extra_gradients.k_weight,
                                 trial->extra_gradients.q_bias, trial->extra_gradients.k_bias};
    static const char *names[4] = {"q weight gradient", "k weight gradient", "q bias gradient", "k bias gradient"};
    static const enum attention_extra extras[4] = {EXTRA_Q_WEIGHT, EXTRA_K_WEIGHT, EXTRA_Q_BIAS, EXTRA_K_BIAS};
    struct distance distance[4] = {{0}};
    for (int which = 0; which < 4; which++)
        for (size_t i = 0; i < s->head_dim; i++)
            compare(&distance[which], trial->weight_gradients[which][i], expected[which][i]);
    if (s->tokens == 1)
        return;
    /* The bias of the keys shifts all logits of a query: its gradient is zero but for rounding. */
    distance[3].size = distance[2].size;
    for (int which = 0; which < 4; which++)
        if (attention_learns(s->kind, extras[which]))
            assert_near(s, trial->ctx.dtype, names[which], distance[which], tolerance);
    for (size_t head = 0; head < s->heads && attention_learns(s->kind, EXTRA_SCALE); head++) {
        double difference = trial->scale_gradient[head] - trial->extra_gradients.scale[head];
        assert_true(fabs(difference) <= tolerance * trial->extra_gradients.scale_terms[head]);
    }
}

#endif
