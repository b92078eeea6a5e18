/* The two attention ops of kernels.h: cut the scratch, let the kinds that need it transform queries and keys, run the
 * kernels of the dtype. */
#include "kernels/attention_kinds.h"
#include "kernels/cuda/attention/attention.cuh"

/* Scratch of one pass, cut from the context's workspace. */
struct scratch {
    void *prepared;      /* T [batch, tokens, 2, heads, head_dim]; NULL where Q and K are used as they are */
    float *delta;        /* [batch, heads, tokens]: dO . O of each query */
    float4 *dq_partials; /* of attention_backward_bf16 */
    unsigned *turns;
    float *partials;           /* [heads, batch, 4, head_dim] */
    attention_record *records; /* of the forward kernel */
    attention_record *norms;   /* of attention_prepare: [heads, batch] */
    size_t bytes;
};

static bool is_wide(const struct attention_shape *shape, enum dtype dtype)
{
    return dtype == DTYPE_BFLOAT16 && shape->head_dim > ATTENTION_NARROW;
}

/* Whether queries and keys are transformed before the kernels see them. The bfloat16 kernels up to a head_dim of 128
 * normalise QUEST's keys themselves, in float32; the others are kept simple. */
static bool is_prepared(const struct attention_shape *shape, enum dtype dtype)
{
    const struct attention_kind_row *row = &attention_kinds[shape->kind];
    bool normalises_keys = dtype == DTYPE_BFLOAT16 && !is_wide(shape, dtype);
    for (int extra = 0; extra < ATTENTION_EXTRAS; extra++)
        if (attention_learns(shape->kind, (enum attention_extra)extra))
            return true;
    return row->query != NORM_NONE || !(row->key == NORM_NONE || (row->key == NORM_UNIT && normalises_keys));
}

static void *cut(uint8_t *base, size_t *used, size_t bytes)
{
    size_t at = *used;
    *used = (at + bytes + 255) / 256 * 256;
    return base ? base + at : NULL;
}

/* Where everything lies in a workspace at `base`; with NULL only `bytes` means something. */
static struct scratch lay_out(uint8_t *base, const struct attention_shape *shape, enum dtype dtype)
{
    struct scratch scratch = {};
    size_t vectors = shape->batch * shape->heads * shape->tokens, sequences = shape->batch * shape->heads;
    if (is_prepared(shape, dtype) || is_wide(shape, dtype))
        scratch.norms = (attention_record *)cut(base, &scratch.bytes, sequences * sizeof(attention_record));
    if (is_prepared(shape, dtype)) {
        scratch.prepared = cut(base, &scratch.bytes, 2 * vectors * shape->head_dim * dtype_bytes(dtype));
        scratch.partials = (float *)cut(base, &scratch.bytes, sequences * 4 * shape->head_dim * sizeof(float));
    }
    size_t records = sequences * div_up(shape->tokens, ATTENTION_LEAST_BLOCK);
    scratch.records = (attention_record *)cut(base, &scratch.bytes, records * sizeof(attention_record));
    scratch.delta = (float *)cut(base, &scratch.bytes, vectors * sizeof(float));
    if (dtype == DTYPE_BFLOAT16 && !is_wide(shape, dtype)) {
        struct attention_backward_scratch backward = attention_backward_scratch_bf16(shape);
        scratch.dq_partials = (float4 *)cut(base, &scratch.bytes, backward.partials * sizeof(float));
        scratch.turns = (unsigned *)cut(base, &scratch.bytes, backward.turns * sizeof(unsigned));
    }
    return scratch;
}

size_t cuda_attention_workspace_bytes(const struct context_options *options)
{
    const struct workload *workload = &options->workload;
    struct attention_shape shape = {workload->kind, workload->batch, workload->patches + 1, workload->heads,
                                    workload->dim / workload->heads};
    return lay_out(NULL, &shape, options->dtype).bytes;
}

static bool take_scratch(struct scratch *scratch, struct context *ctx, const struct attention_shape *shape,
                         const char *op, struct error *error)
{
    if (!attention_head_dim_fits(shape->head_dim))
        return error_input(error, "%s: a head dimension of %zu; multiples of %d up to %d are possible", op,
                           shape->head_dim, ATTENTION_HEAD_DIM_STEP, ATTENTION_MOST_HEAD_DIM);
    /* The kernels count elements in 32 bits, and form addresses of up to 255 rows past the end that they do not use. */
    size_t row = 3 * shape->heads * shape->head_dim, elements = shape->batch * shape->tokens * row;
    if (256 * row > INT32_MAX || elements > INT32_MAX - 256 * row)
        return error_input(error, "%s: a batch of %zu images has %zu numbers in q, k and v; %zu are the most", op,
                           shape->batch, elements, 256 * row > INT32_MAX ? 0 : INT32_MAX - 256 * row);
    void *base;
    if (!cuda_workspace(ctx, &base, lay_out(NULL, shape, ctx->dtype).bytes, op, error))
        return false;
    *scratch = lay_out((uint8_t *)base, shape, ctx->dtype);
    return true;
}

template <typename T>
static attention_operands<T> operands_of(const void *qkv, const void *prepared, const struct attention_shape *shape)
{
    size_t width = shape->heads * shape->head_dim;
    const T *packed = static_cast<const T *>(qkv), *transformed = static_cast<const T *>(prepared);
    attention_operands<T> operands = {};
    operands.query = prepared ? transformed : packed;
    operands.key = operands.query + width;
    operands.value = packed + 2 * width;
    operands.row = (int)((prepared ? 2 : 3) * width);
    operands.value_row = (int)(3 * width);
    operands.tokens = (int)shape->tokens;
    operands.heads = (int)shape->heads;
    const struct attention_kind_row *row = &attention_kinds[shape->kind];
    operands.scale = row->scaled ? 1.0f / sqrtf((float)shape->head_dim) : 1.0f;
    operands.normalise_keys = row->key == NORM_UNIT && !prepared;
    return operands;
}

template <typename T>
static attention_derivatives<T> derivatives_of(void *qkv_gradient, const void *out_gradient, const void *out,
                                               const float *logsumexp, const struct scratch *scratch,
                                               const struct attention_shape *shape)
{
    size_t width = shape->heads * shape->head_dim;
    T *packed = static_cast<T *>(qkv_gradient);
    return {packed,
            packed + width,
            packed + 2 * width,
            (int)(3 * width),
            static_cast<const T *>(out),
            static_cast<const T *>(out_gradient),
            logsumexp,
            scratch->delta,
            scratch->dq_partials,
            scratch->turns};
}

bool cuda_attention_forward(struct context *ctx, void *out, float *logsumexp, const void *qkv,
                            const struct attention_parameters *parameters, double *statistics,
                            const struct attention_shape *shape, struct error *error)
{
    struct scratch scratch = {};
    if (!take_scratch(&scratch, ctx, shape, "attention_forward", error))
        return false;
    struct attention_record_list records = {statistics ? scratch.records : NULL, 0};
    struct attention_record_list norms = {statistics ? scratch.norms : NULL, 0};
    if ((scratch.prepared || norms.record) &&
        !attention_prepare(ctx, scratch.prepared, &norms, qkv, parameters, shape, error))
        return false;
    bool done;
    if (ctx->dtype == DTYPE_BFLOAT16) {
        attention_operands<bfloat16> operands = operands_of<bfloat16>(qkv, scratch.prepared, shape);
        auto forward = is_wide(shape, ctx->dtype) ? attention_forward_wide : attention_forward_bf16;
        done = forward(ctx, (bfloat16 *)out, logsumexp, &records, &operands, shape, error);
    } else {
        attention_operands<float> operands = operands_of<float>(qkv, scratch.prepared, shape);
        done = attention_forward_float32(ctx, (float *)out, logsumexp, &records, &operands, shape, error);
    }
    if (!done || !statistics)
        return done;
    return attention_combine_statistics(ctx, statistics, norms.record ? &norms : &records, &records, shape->heads,
                                        error);
}

bool cuda_attention_backward(struct context *ctx, const struct attention_backward *op, struct error *error)
{
    const struct attention_shape *shape = op->shape;
    struct scratch scratch = {};
    if (!take_scratch(&scratch, ctx, shape, "attention_backward", error))
        return false;
    struct attention_record_list norms = {NULL, 0};
    if (scratch.prepared && !attention_prepare(ctx, scratch.prepared, &norms, op->qkv, op->parameters, shape, error))
        return false;
    bool done;
    if (ctx->dtype == DTYPE_BFLOAT16) {
        attention_operands<bfloat16> operands = operands_of<bfloat16>(op->qkv, scratch.prepared, shape);
        attention_derivatives<bfloat16> derivatives =
            derivatives_of<bfloat16>(op->qkv_gradient, op->out_gradient, op->out, op->logsumexp, &scratch, shape);
        auto backward = is_wide(shape, ctx->dtype) ? attention_backward_wide : attention_backward_bf16;
        done = backward(ctx, &operands, &derivatives, shape, error);
    } else {
        attention_operands<float> operands = operands_of<float>(op->qkv, scratch.prepared, shape);
        attention_derivatives<float> derivatives =
            derivatives_of<float>(op->qkv_gradient, op->out_gradient, op->out, op->logsumexp, &scratch, shape);
        done = attention_backward_float32(ctx, &operands, &derivatives, shape, error);
    }
    if (!done || !scratch.prepared)
        return done;
    return attention_finish_gradient(ctx, op->qkv_gradient, op->gradients, scratch.partials, op->qkv, op->parameters,
                                     shape, error);
}
