/* One call of the CUDA attention beside its float64 reference: random tensors on the device, both passes, the results
 * back on the host. */
#ifndef QUEST_TESTS_CUDA_DEVICE_ATTENTION_H
#define QUEST_TESTS_CUDA_DEVICE_ATTENTION_H

#include "kernels/cuda/cuda.h"
#include "tests/unit/attention_test.h"

/* ---- tensors on both sides ---- */

struct tensor {
    enum dtype dtype;
    size_t count;
    void *host, *device;
};

static inline void require(cudaError_t status)
{
    if (status != cudaSuccess)
        fail_msg("CUDA: %s", cudaGetErrorString(status));
}

static inline struct tensor tensor_new(size_t count, enum dtype dtype)
{
    struct tensor tensor = {dtype, count, NULL, NULL};
    tensor.host = malloc(count * dtype_bytes(dtype));
    assert_non_null(tensor.host);
    memset(tensor.host, 0xff, count * dtype_bytes(dtype)); /* NaN: what is not written shows */
    require(cudaMalloc(&tensor.device, count * dtype_bytes(dtype)));
    return tensor;
}

static inline void tensor_free(struct tensor *tensor)
{
    free(tensor->host);
    require(cudaFree(tensor->device));
}

static inline void tensor_up(struct tensor *tensor)
{
    require(
        cudaMemcpy(tensor->device, tensor->host, tensor->count * dtype_bytes(tensor->dtype), cudaMemcpyHostToDevice));
}

static inline void tensor_down(struct tensor *tensor)
{
    require(
        cudaMemcpy(tensor->host, tensor->device, tensor->count * dtype_bytes(tensor->dtype), cudaMemcpyDeviceToHost));
}

static inline double tensor_get(const struct tensor *tensor, size_t i)
{
    if (tensor->dtype == DTYPE_FLOAT32)
        return ((const float *)tensor->host)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)tensor->host)[i] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Rounds to the dtype and returns what is stored, so that the reference sees the numbers that the op sees. */
static inline double tensor_put(struct tensor *tensor, size_t i, double x)
{
    float value = (float)x;
    if (tensor->dtype == DTYPE_FLOAT32) {
        ((float *)tensor->host)[i] = value;
    } else {
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        ((uint16_t *)tensor->host)[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
    return tensor_get(tensor, i);
}

/* ---- a trial ---- */

enum { WEIGHTS = 4 }; /* q weight, k weight, q bias, k bias */

struct trial {
    struct context ctx;
    struct attention_shape shape;
    struct tensor qkv, out, out_gradient, qkv_gradient; /* T */
    struct tensor logsumexp, weights[WEIGHTS], weight_gradients[WEIGHTS], scale, scale_gradient;
    double statistics[REFERENCE_HEADS][ATTENTION_STATISTICS], *device_statistics;
    struct reference_extras extras, extra_gradients;
    struct reference_head *heads; /* [batch][heads] */
};

static inline void trial_fill_extras(struct trial *trial)
{
    double *wide[WEIGHTS] = {trial->extras.q_weight, trial->extras.k_weight, trial->extras.q_bias,
                             trial->extras.k_bias};
    size_t d = trial->shape.head_dim, heads = trial->shape.heads;
    for (int which = 0; which < WEIGHTS; which++) {
        trial->weights[which] = tensor_new(d, DTYPE_FLOAT32);
        trial->weight_gradients[which] = tensor_new(d, DTYPE_FLOAT32);
        for (size_t i = 0; i < d; i++) {
            wide[which][i] = tensor_put(&trial->weights[which], i, (which < 2 ? 1.5 : 0) + 0.3 * normal());
            tensor_put(&trial->weight_gradients[which], i, 0);
        }
        tensor_up(&trial->weights[which]);
        tensor_up(&trial->weight_gradients[which]);
    }
    trial->scale = tensor_new(heads, DTYPE_FLOAT32);
    trial->scale_gradient = tensor_new(heads, DTYPE_FLOAT32);
    for (size_t head = 0; head < heads; head++) {
        trial->extras.scale[head] = tensor_put(&trial->scale, head, 4 * normal()); /* negative ones too */
        tensor_put(&trial->scale_gradient, head, 0);
    }
    tensor_up(&trial->scale);
    tensor_up(&trial->scale_gradient);
}

static inline void trial_fill_head(struct trial *trial, size_t image, size_t h, double spread)
{
    const struct attention_shape *shape = &trial->shape;
    struct reference_head *head = &trial->heads[image * shape->heads + h];
    reference_new(head, shape->tokens, shape->head_dim);
    for (size_t t = 0; t < shape->tokens; t++)
        for (size_t i = 0; i < shape->head_dim; i++) {
            size_t at = t * shape->head_dim + i;
            for (int part = 0; part < 3; part++)
                head->x[part][at] = tensor_put(&trial->qkv, qkv_index(shape, image, t, part, h) + i,
                                               (part < 2 ? spread : 1) * normal());
            head->out_gradient[at] = tensor_put(&trial->out_gradient, out_index(shape, image, t, h) + i, normal());
        }
}

/* `spread` multiplies the standard deviation of queries and keys. */
static inline void trial_new(struct trial *trial, struct attention_shape shape, enum dtype dtype, double spread)
{
    size_t vectors = shape.batch * shape.tokens * shape.heads, d = shape.head_dim;
    memset(trial, 0, sizeof *trial);
    trial->shape = shape;
    trial->ctx.dtype = dtype;
    int shared_bytes;
    require(cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    trial->ctx.properties.shared_bytes_per_block = (size_t)shared_bytes;
    require(cudaStreamCreate(&trial->ctx.compute));
    struct context_options options = {.dtype = dtype,
                                      .workload = {.batch = shape.batch,
                                                   .patches = shape.tokens - 1,
                                                   .dim = shape.heads * d,
                                                   .heads = shape.heads,
                                                   .kind = shape.kind}};
    trial->ctx.workspace_bytes = cuda_attention_workspace_bytes(&options);
    require(cudaMalloc(&trial->ctx.workspace, trial->ctx.workspace_bytes));
    trial->qkv = tensor_new(3 * vectors * d, dtype);
    trial->qkv_gradient = tensor_new(3 * vectors * d, dtype);
    trial->out = tensor_new(vectors * d, dtype);
    trial->out_gradient = tensor_new(vectors * d, dtype);
    trial->logsumexp = tensor_new(vectors, DTYPE_FLOAT32);
    trial->heads = calloc(shape.batch * shape.heads, sizeof *trial->heads);
    assert_non_null(trial->heads);
    for (size_t image = 0; image < shape.batch; image++)
        for (size_t h = 0; h < shape.heads; h++)
            trial_fill_head(trial, image, h, spread);
    tensor_up(&trial->qkv);
    tensor_up(&trial->out_gradient);
    trial_fill_extras(trial);
    require(cudaMalloc((void **)&trial->device_statistics, sizeof trial->statistics));
    for (size_t head = 0; head < REFERENCE_HEADS; head++) {
        double *record = trial->statistics[head];
        memset(record, 0, sizeof trial->statistics[head]);
        record[STATISTIC_Q_MIN] = record[STATISTIC_K_MIN] = record[STATISTIC_ENTROPY_MIN] = INFINITY;
        record[STATISTIC_LOGIT_MAX] = -INFINITY;
    }
    require(cudaMemcpy(trial->device_statistics, trial->statistics, sizeof trial->statistics, cudaMemcpyHostToDevice));
}

static inline void trial_free(struct trial *trial)
{
    struct tensor *tensors[] = {&trial->qkv,       &trial->qkv_gradient, &trial->out,           &trial->out_gradient,
                                &trial->logsumexp, &trial->scale,        &trial->scale_gradient};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        tensor_free(tensors[i]);
    for (int which = 0; which < WEIGHTS; which++) {
        tensor_free(&trial->weights[which]);
        tensor_free(&trial->weight_gradients[which]);
    }
    for (size_t i = 0; i < trial->shape.batch * trial->shape.heads; i++)
        free(trial->heads[i].memory);
    free(trial->heads);
    require(cudaFree(trial->device_statistics));
    require(cudaFree(trial->ctx.workspace));
    require(cudaStreamDestroy(trial->ctx.compute));
}

static inline struct attention_parameters parameters_of(const struct trial *trial)
{
    struct attention_parameters parameters = {.extra = {[EXTRA_Q_WEIGHT] = trial->weights[0].device,
                                                        [EXTRA_K_WEIGHT] = trial->weights[1].device,
                                                        [EXTRA_Q_BIAS] = trial->weights[2].device,
                                                        [EXTRA_K_BIAS] = trial->weights[3].device,
                                                        [EXTRA_SCALE] = trial->scale.device}};
    for (int extra = 0; extra < ATTENTION_EXTRAS; extra++)
        if (!attention_learns(trial->shape.kind, (enum attention_extra)extra))
            parameters.extra[extra] = NULL;
    return parameters;
}

static inline struct attention_gradients gradients_of(struct trial *trial)
{
    struct attention_gradients gradients = {.extra = {[EXTRA_Q_WEIGHT] = trial->weight_gradients[0].device,
                                                      [EXTRA_K_WEIGHT] = trial->weight_gradients[1].device,
                                                      [EXTRA_Q_BIAS] = trial->weight_gradients[2].device,
                                                      [EXTRA_K_BIAS] = trial->weight_gradients[3].device,
                                                      [EXTRA_SCALE] = trial->scale_gradient.device}};
    for (int extra = 0; extra < ATTENTION_EXTRAS; extra++)
        if (!attention_learns(trial->shape.kind, (enum attention_extra)extra))
            gradients.extra[extra] = NULL;
    return gradients;
}

static inline void trial_forward(struct trial *trial, bool with_statistics)
{
    struct error error = {0};
    struct attention_parameters parameters = parameters_of(trial);
    if (!cuda_attention_forward(&trial->ctx, trial->out.device, trial->logsumexp.device, trial->qkv.device, &parameters,
                                with_statistics ? trial->device_statistics : NULL, &trial->shape, &error))
        fail_msg("%s", error.message);
    require(cudaStreamSynchronize(trial->ctx.compute));
    tensor_down(&trial->out);
    tensor_down(&trial->logsumexp);
    require(cudaMemcpy(trial->statistics, trial->device_statistics, sizeof trial->statistics, cudaMemcpyDeviceToHost));
}

static inline void trial_backward(struct trial *trial)
{
    struct error error = {0};
    struct attention_parameters parameters = parameters_of(trial);
    struct attention_gradients gradients = gradients_of(trial);
    struct attention_backward backward = {.qkv_gradient = trial->qkv_gradient.device,
                                          .gradients = &gradients,
                                          .out_gradient = trial->out_gradient.device,
                                          .out = trial->out.device,
                                          .logsumexp = trial->logsumexp.device,
                                          .qkv = trial->qkv.device,
                                          .parameters = &parameters,
                                          .shape = &trial->shape};
    if (!cuda_attention_backward(&trial->ctx, &backward, &error))
        fail_msg("%s", error.message);
    require(cudaStreamSynchronize(trial->ctx.compute));
    tensor_down(&trial->qkv_gradient);
    tensor_down(&trial->scale_gradient);
    for (int which = 0; which < WEIGHTS; which++)
        tensor_down(&trial->weight_gradients[which]);
}

/* The extras' gradients beside the reference's. */
static inline void check_extras(const struct trial *trial, double tolerance)
{
    static const char *const names[WEIGHTS] = {"q weight gradient", "k weight gradient", "q bias gradient",
                                               "k bias gradient"};
    static const enum attention_extra extras[WEIGHTS] = {EXTRA_Q_WEIGHT, EXTRA_K_WEIGHT, EXTRA_Q_BIAS, EXTRA_K_BIAS};
    const struct attention_shape *s = &trial->shape;
    const double *expected[WEIGHTS] = {trial->extra_gradients.q_weight, trial->extra_gradients.k_weight,
                                       trial->extra_gradients.q_bias, trial->extra_gradients.k_bias};
    struct distance distance[WEIGHTS] = {{0}}, scale = {0};
    if (s->tokens == 1)
        return;
    for (int which = 0; which < WEIGHTS; which++)
        for (size_t i = 0; i < s->head_dim; i++)
            compare(&distance[which], tensor_get(&trial->weight_gradients[which], i), expected[which][i]);
    for (size_t head = 0; head < s->heads; head++)
        compare(&scale, tensor_get(&trial->scale_gradient, head), trial->extra_gradients.scale[head]);
    /* The bias of the keys shifts all logits of a query: its gradient is zero but for rounding. */
    distance[3].size = distance[2].size;
    for (int which = 0; which < WEIGHTS; which++)
        if (attention_learns(s->kind, extras[which]))
            assert_near(s, trial->ctx.dtype, names[which], distance[which], tolerance);
    if (attention_learns(s->kind, EXTRA_SCALE))
        assert_near(s, trial->ctx.dtype, "scale gradient", scale,
                    3 * tolerance); /* one sum of all queries, which cancel */
}

#endif
