/* Attention of the CLS query, backward; cls.cuh has the picture. */
#include "kernels/cuda/attention/cls.cuh"

/* By the first warp, from A and S: the gradients of the query and of what is learned. */
template <int LANES, typename T>
static __device__ __forceinline__ void finish_query(const cls_operands<T> &in, const cls_derivatives<T> &derivatives,
                                                    const position<LANES> &at, const cls_query &query, const part &a,
                                                    float s)
{
    const side_transform &queries = in.transform.side[0], &keys = in.transform.side[1];
    part weight = weights_of(queries, at.head, at.element, at.inside), through;
    part key_weight = weights_of(keys, at.head, at.element, at.inside);
    part key_bias = biases_of(keys, at.element, at.inside);
    float *learned = NULL;
    if (derivatives.partials && at.inside && at.group == 0)
        learned = derivatives.partials + ((size_t)at.head * gridDim.y + at.image) * 4 * in.head_dim + at.element;
#pragma unroll
    for (int i = 0; i < LANE_NUMBERS; i++) {
        float dhat = in.scale * (key_weight.value[i] * a.value[i] + key_bias.value[i] * s);
        through.value[i] = dhat * weight.value[i];
        if (learned) {
            learned[i] = dhat * query.normalised.value[i];
            learned[in.head_dim + i] = dhat;
            learned[2 * in.head_dim + i] = query.hat.value[i] * a.value[i];
            learned[3 * in.head_dim + i] = query.hat.value[i] * s;
        }
    }
    float along = query.done.radial ? group_dot<LANES>(through, query.normalised) : 0, mean = 0;
    if (queries.norm == NORM_LAYER) {
        along /= in.head_dim;
        mean = group_mean<LANES>(through, in.head_dim);
    }
#pragma unroll
    for (int i = 0; i < LANE_NUMBERS; i++)
        through.value[i] = query.done.factor * (through.value[i] - mean - query.normalised.value[i] * along);
    if (at.inside && at.group == 0)
        store_part(derivatives.query_gradient + ((size_t)at.image * in.heads + at.head) * in.head_dim, at.element,
                   through);
}

template <typename T, int LANES>
__global__ void __launch_bounds__(CLS_THREADS)
    attention_backward_cls(cls_operands<T> in, cls_derivatives<T> derivatives)
{
    constexpr int GROUPS = position<LANES>::GROUPS;
    __shared__ float rows[GROUPS][LANES * LANE_NUMBERS], slopes[GROUPS];
    position<LANES> at(in.head_dim);
    cls_query query = take_query<LANES>(in, at);
    size_t sequence = (size_t)at.image * in.heads + at.head;
    part out_gradient = load_part(derivatives.out_gradient + sequence * in.head_dim, at.element, at.inside);
    float delta =
        group_dot<LANES>(out_gradient, load_part(derivatives.out + sequence * in.head_dim, at.element, at.inside));
    float logsumexp = derivatives.logsumexp[sequence], mean = 0, s = 0;
    enum attention_norm norm = in.transform.side[1].norm;
    if (norm == NORM_LAYER)
        mean = group_mean<LANES>(query.u, in.head_dim);
    int width = in.heads * in.head_dim;
    part a = {};
    for (int first = 0; first < in.tokens; first += GROUPS) {
        bool valid = first + at.group < in.tokens, here = valid && at.inside;
        size_t row = key_row(in, at, valid ? first + at.group : 0);
        part key = load_part(in.key_value + row, at.element, here);
        part value = load_part(in.key_value + row + width, at.element, here);
        normalisation done = normalise_part<LANES>(key, norm, in.head_dim, at.inside);
        float along = group_dot<LANES>(query.u, key);
        float probability = valid ? expf(along + query.c - logsumexp) : 0;
        float slope = probability * (group_dot<LANES>(out_gradient, value) - delta);
        along = !done.radial ? 0 : norm == NORM_LAYER ? along / in.head_dim : along;
        s += slope;
#pragma unroll
        for (int i = 0; i < LANE_NUMBERS; i++) {
            a.value[i] = fmaf(slope, key.value[i], a.value[i]);
            key.value[i] = slope * done.factor * (query.u.value[i] - mean - key.value[i] * along);
            value.value[i] = probability * out_gradient.value[i];
        }
        if (here) {
            store_part(derivatives.key_value_gradient + row, at.element, key);
            store_part(derivatives.key_value_gradient + row + width, at.element, value);
        }
    }
#pragma unroll
    for (int i = 0; i < LANE_NUMBERS; i++)
        rows[at.group][at.element + i] = a.value[i];
    if (at.element == 0)
        slopes[at.group] = s;
    __syncthreads();
    if (threadIdx.x >= 32)
        return;
    a = {};
    s = 0;
    for (int group = 0; group < GROUPS; group++) {
        s += slopes[group];
#pragma unroll
        for (int i = 0; i < LANE_NUMBERS; i++)
            a.value[i] += rows[group][at.element + i];
    }
    finish_query<LANES>(in, derivatives, at, query, a, s);
}

static bool learns_anything(enum attention_kind kind)
{
    for (int extra = 0; extra < ATTENTION_EXTRAS; extra++)
        if (attention_learns(kind, (enum attention_extra)extra))
            return true;
    return false;
}

bool cuda_attention_cls_backward(struct context *ctx, const struct attention_cls_backward *op, struct error *error)
{
    const struct attention_shape *shape = op->shape;
    void *partials = NULL;
    if (learns_anything(shape->kind) &&
        !cuda_workspace(ctx, &partials, shape->batch * shape->heads * 4 * shape->head_dim * sizeof(float),
                        "attention_cls_backward", error))
        return false;
    auto launch = [&](auto zero, auto n) {
        typedef decltype(zero) T;
        cls_derivatives<T> derivatives = {(T *)op->query_gradient,     (T *)op->key_value_gradient, (float *)partials,
                                          (const T *)op->out_gradient, (const T *)op->out,          op->logsumexp};
        attention_backward_cls<T, n.count><<<dim3(shape->heads, shape->batch), CLS_THREADS, 0, ctx->compute>>>(
            operands_of<T>(op->query, op->key_value, op->parameters, shape), derivatives);
        return cuda_launched(ctx, "attention_backward_cls", error);
    };
    return with_lanes(ctx->dtype, shape, launch, error) &&
           (!partials || attention_add_learned(ctx, op->gradients, (const float *)partials, shape, error));
}
