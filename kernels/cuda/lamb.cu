/* LAMB over the flat buffers (kernels/optimisers.h), in four launches:
 *   lamb_moments   m, v, and two sums of each group of 64 numbers, by the 16 threads that have it      24 bytes a
 * number lamb_sums      of each tensor, one block each, over its groups                                    1/8 byte a
 * number lamb_factors   ratio, learning rate and decay of each tensor, two numbers lamb_apply     u again, and the
 * weights                                                            16 + working copy A group's sum is added up in one
 * order and a tensor's in another, whatever the grid: no atomics, the same bits on every GPU. Each launch decides for
 * itself that a step is withheld, by the same numbers. */
#include "kernels/cuda/optimiser.cuh"

enum { GROUP_THREADS = 16, SUMS_THREADS = 512 };

struct lamb_constants {
    float beta1, beta2, eps, clip, weight_decay, lr;
    float m_correction; /* 1 / (1 - beta1^step) */
    float root_factor;  /* 1 / sqrt(1 - beta2^step) */
    double limit;
};

static lamb_constants constants_of(const struct adamw *adamw)
{
    double step = (double)adamw->step;
    return {adamw->beta1,
            adamw->beta2,
            adamw->eps,
            adamw->clip_grad_norm,
            adamw->weight_decay,
            adamw->lr,
            (float)(1.0 / (1.0 - pow((double)adamw->beta1, step))),
            (float)(1.0 / sqrt(1.0 - pow((double)adamw->beta2, step))),
            optimiser_limit(adamw->sum_of_squares_limit)};
}

/* Whether the step is withheld; what every kernel asks first. */
struct lamb_verdict {
    const double *gradient_sum_of_squares, *earlier_sum_of_squares;
    double limit;
};
__device__ __forceinline__ bool withheld(const lamb_verdict &verdict)
{
    return optimiser_withholds(*verdict.gradient_sum_of_squares, verdict.limit, verdict.earlier_sum_of_squares);
}

/* u of one number: the same operations, and so the same bits, in both passes. */
__device__ __forceinline__ float direction(float m, float v, float w, float decay, const lamb_constants &c)
{
    return fmaf(decay, w, __fdiv_rn(m * c.m_correction, fmaf(sqrtf(v), c.root_factor, c.eps)));
}

/* The sum over 16 neighbouring lanes; `lanes` are those of the warp that are here. */
__device__ __forceinline__ float group_sum(unsigned lanes, float x)
{
#pragma unroll
    for (int offset = GROUP_THREADS / 2; offset > 0; offset /= 2)
        x += __shfl_xor_sync(lanes, x, offset);
    return x;
}

__global__ void __launch_bounds__(OPTIMISER_THREADS)
    lamb_moments_kernel(float *m, float *v, float *group_sums, const float *gradient, const float *master,
                        const uint8_t *decay, size_t packs, lamb_verdict verdict, lamb_constants c)
{
    if (withheld(verdict))
        return;
    double norm = sqrt(*verdict.gradient_sum_of_squares);
    float scale = c.clip > 0 && norm > c.clip ? (float)(c.clip / norm) : 1.0f;
    for (size_t p = blockIdx.x * (size_t)OPTIMISER_THREADS + threadIdx.x; p < packs;
         p += gridDim.x * (size_t)OPTIMISER_THREADS) {
        pack<float, 4> g = load_pack<4>(gradient, p), w = load_pack<4>(master, p), first = load_pack<4>(m, p),
                       second = load_pack<4>(v, p);
        float of_weight = decay[p / GROUP_THREADS] ? c.weight_decay : 0.0f;
        float weights = 0, directions = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float slope = g.value[i] * scale;
            first.value[i] = c.beta1 * first.value[i] + (1 - c.beta1) * slope;
            second.value[i] = c.beta2 * second.value[i] + (1 - c.beta2) * slope * slope;
            float u = direction(first.value[i], second.value[i], w.value[i], of_weight, c);
            weights = fmaf(w.value[i], w.value[i], weights);
            directions = fmaf(u, u, directions);
        }
        store_pack<4>(m, p, first);
        store_pack<4>(v, p, second);
        unsigned lanes =
            (p | 31) < packs ? 0xffffffffu : 0xffffu; /* whole groups: at the end half a warp may be left */
        pack<float, 2> sums = {group_sum(lanes, weights), group_sum(lanes, directions)};
        if (p % GROUP_THREADS == 0)
            store_pack<2>(group_sums, p / GROUP_THREADS, sums);
    }
}

/* The groups of a part of the buffers, of which it has from `first` on and `groups`, that belong to a tensor. */
struct group_range {
    size_t begin, end; /* counted from the part's first */
};
__device__ __forceinline__ group_range groups_of(const uint32_t *tensor_first, unsigned tensor, size_t first,
                                                 size_t groups)
{
    size_t from = tensor_first[tensor], to = tensor_first[tensor + 1], last = first + groups;
    from = from < first ? first : from;
    to = to > last ? last : to;
    if (from >= to)
        return {0, 0};
    return {from - first, to - first};
}

__global__ void __launch_bounds__(SUMS_THREADS)
    lamb_sums_kernel(double *tensor_sums, const float *group_sums, const uint32_t *tensor_first, size_t first,
                     size_t groups, lamb_verdict verdict)
{
    __shared__ double scratch[32];
    if (withheld(verdict))
        return;
    group_range range = groups_of(tensor_first, blockIdx.x, first, groups);
    double weights = 0, directions = 0;
#pragma unroll 4
    for (size_t group = range.begin + threadIdx.x; group < range.end; group += SUMS_THREADS) {
        pack<float, 2> sums = load_pack<2>(group_sums, group);
        weights += sums.value[0];
        directions += sums.value[1];
    }
    weights = block_sum(weights, scratch);
    directions = block_sum(directions, scratch);
    if (threadIdx.x == 0) {
        tensor_sums[2 * blockIdx.x] = weights;
        tensor_sums[2 * blockIdx.x + 1] = directions;
    }
}

bool cuda_lamb_moments(struct context *ctx, const struct lamb_update *op, struct error *error)
{
    lamb_constants c = constants_of(op->adamw);
    lamb_verdict verdict = {op->gradient_sum_of_squares, op->adamw->earlier_sum_of_squares, c.limit};
    size_t packs = op->count / 4;
    lamb_moments_kernel<<<optimiser_blocks(ctx, packs), OPTIMISER_THREADS, 0, ctx->compute>>>(
        op->m, op->v, op->group_sums, op->gradient, op->master, op->decay, packs, verdict, c);
    if (!cuda_launched(ctx, "lamb_moments", error))
        return false;
    lamb_sums_kernel<<<(unsigned)op->tensors, SUMS_THREADS, 0, ctx->compute>>>(
        op->tensor_sums, op->group_sums, op->tensor_first, op->first / 64, op->count / 64, verdict);
    return cuda_launched(ctx, "lamb_sums", error);
}

/* A thread a tensor: factors[0] = lr * lr_scale * ratio, factors[1] = the weight decay. */
__global__ void __launch_bounds__(OPTIMISER_THREADS)
    lamb_factors_kernel(float *factors, const double *tensor_sums, const uint32_t *tensor_first, const uint8_t *decay,
                        const float *lr_scale, size_t first, size_t groups, unsigned tensors, bool trust_clip,
                        lamb_verdict verdict, lamb_constants c)
{
    unsigned tensor = blockIdx.x * OPTIMISER_THREADS + threadIdx.x;
    if (tensor >= tensors || withheld(verdict))
        return;
    group_range range = groups_of(tensor_first, tensor, first, groups);
    if (range.begin == range.end)
        return;
    bool decays = decay[range.begin] && c.weight_decay > 0;
    double weights = tensor_sums[2 * tensor], directions = tensor_sums[2 * tensor + 1], ratio = 1;
    if (decays && weights > 0 && directions > 0)
        ratio = sqrt(weights) / sqrt(directions);
    if (trust_clip)
        ratio = fmin(ratio, 1.0);
    double scale = lr_scale ? lr_scale[range.begin] : 1;
    pack<float, 2> result = {(float)(c.lr * scale * ratio), decays ? c.weight_decay : 0.0f};
    store_pack<2>(factors, tensor, result);
}

template <typename T>
__global__ void __launch_bounds__(OPTIMISER_THREADS)
    lamb_apply_kernel(float *master, T *working, const float *m, const float *v, const uint16_t *tensor_of,
                      const float *factors, size_t packs, lamb_verdict verdict, lamb_constants c)
{
    if (withheld(verdict))
        return;
    for (size_t p = blockIdx.x * (size_t)OPTIMISER_THREADS + threadIdx.x; p < packs;
         p += gridDim.x * (size_t)OPTIMISER_THREADS) {
        pack<float, 4> w = load_pack<4>(master, p), first = load_pack<4>(m, p), second = load_pack<4>(v, p);
        pack<float, 2> factor = load_pack<2>(factors, tensor_of[p / GROUP_THREADS]);
        pack<T, 4> rounded;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float u = direction(first.value[i], second.value[i], w.value[i], factor.value[1], c);
            w.value[i] = fmaf(-factor.value[0], u, w.value[i]);
            rounded.value[i] = from_float<T>(w.value[i]);
        }
        store_pack<4>(master, p, w);
        if (working)
            store_pack<4>(working, p, rounded);
    }
}

bool cuda_lamb_apply(struct context *ctx, const struct lamb_update *op, struct error *error)
{
    lamb_constants c = constants_of(op->adamw);
    lamb_verdict verdict = {op->gradient_sum_of_squares, op->adamw->earlier_sum_of_squares, c.limit};
    size_t packs = op->count / 4;
    void *working = op->working == op->master ? NULL : op->working;
    lamb_factors_kernel<<<div_up(op->tensors, OPTIMISER_THREADS), OPTIMISER_THREADS, 0, ctx->compute>>>(
        op->tensor_factors, op->tensor_sums, op->tensor_first, op->decay, op->lr_scale, op->first / 64, op->count / 64,
        (unsigned)op->tensors, op->trust_clip, verdict, c);
    if (!cuda_launched(ctx, "lamb_factors", error))
        return false;
    return with_type(ctx->dtype, [&](auto type) {
        typedef decltype(type) T;
        lamb_apply_kernel<T><<<optimiser_blocks(ctx, packs), OPTIMISER_THREADS, 0, ctx->compute>>>(
            op->master, (T *)working, op->m, op->v, op->tensor_of, op->tensor_factors, packs, verdict, c);
        return cuda_launched(ctx, "lamb_apply", error);
    });
}
