/* Attention of the CLS query, forward; cls.cuh has the picture. */
#include "kernels/cuda/attention/cls.cuh"

template <typename T, int LANES>
__global__ void __launch_bounds__(CLS_THREADS) attention_forward_cls(T *out, float *logsumexp, cls_operands<T> in)
{
    constexpr int GROUPS = position<LANES>::GROUPS;
    __shared__ float rows[GROUPS][LANES * LANE_NUMBERS], tops[GROUPS], totals[GROUPS];
    position<LANES> at(in.head_dim);
    cls_query query = take_query<LANES>(in, at);
    int width = in.heads * in.head_dim;
    float top = MASKED, total = 0;
    part sum = {};
    for (int first = 0; first < in.tokens; first += GROUPS) {
        bool valid = first + at.group < in.tokens, here = valid && at.inside;
        const T *row = in.key_value + key_row(in, at, valid ? first + at.group : 0);
        part key = load_part(row, at.element, here), value = load_part(row + width, at.element, here);
        normalise_part<LANES>(key, in.transform.side[1].norm, in.head_dim, at.inside);
        float logit = group_dot<LANES>(query.u, key) + query.c;
        float reference = valid ? fmaxf(top, logit) : top, shrink = expf(top - reference);
        float weight = valid ? expf(logit - reference) : 0;
        top = reference;
        total = fmaf(total, shrink, weight);
#pragma unroll
        for (int i = 0; i < LANE_NUMBERS; i++)
            sum.value[i] = fmaf(sum.value[i], shrink, weight * value.value[i]);
    }
#pragma unroll
    for (int i = 0; i < LANE_NUMBERS; i++)
        rows[at.group][at.element + i] = sum.value[i];
    if (at.element == 0) {
        tops[at.group] = top;
        totals[at.group] = total;
    }
    __syncthreads();
    if (threadIdx.x >= in.head_dim)
        return;
    float largest = tops[0], weights = 0, mixed = 0;
    for (int group = 1; group < GROUPS; group++)
        largest = fmaxf(largest, tops[group]);
    for (int group = 0; group < GROUPS; group++) {
        float share = expf(tops[group] - largest);
        weights = fmaf(totals[group], share, weights);
        mixed = fmaf(rows[group][threadIdx.x], share, mixed);
    }
    size_t sequence = (size_t)at.image * in.heads + at.head;
    out[sequence * in.head_dim + threadIdx.x] = from_float<T>(mixed / weights);
    if (threadIdx.x == 0)
        logsumexp[sequence] = largest + logf(weights);
}

bool cuda_attention_cls_forward(struct context *ctx, const struct attention_cls_forward *op, struct error *error)
{
    const struct attention_shape *shape = op->shape;
    auto launch = [&](auto zero, auto n) {
        typedef decltype(zero) T;
        attention_forward_cls<T, n.count><<<dim3(shape->heads, shape->batch), CLS_THREADS, 0, ctx->compute>>>(
            (T *)op->out, op->logsumexp, operands_of<T>(op->query, op->key_value, op->parameters, shape));
        return cuda_launched(ctx, "attention_forward_cls", error);
    };
    return with_lanes(ctx->dtype, shape, launch, error);
}
