/* The optimiser over the flat buffers (kernels.h). */
#include "kernels/cuda/optimiser.cuh"

enum { SQUARES_BLOCKS = 512 };

size_t cuda_optimiser_workspace_bytes(const struct context_options *options)
{
    (void)options;
    return SQUARES_BLOCKS * sizeof(double);
}

/* partial[block] = sum of the squares of every SQUARES_BLOCKS-th stretch of 4 * 256 numbers. The grid does not depend
 * on the device: the same sum on every GPU. Reads 4 bytes a number. */
__global__ void __launch_bounds__(OPTIMISER_THREADS)
    sum_of_squares_kernel(double *partial, const float *x, size_t packs, size_t count)
{
    __shared__ double scratch[32];
    double sum = 0;
#pragma unroll 4
    for (size_t p = blockIdx.x * (size_t)OPTIMISER_THREADS + threadIdx.x; p < packs;
         p += gridDim.x * (size_t)OPTIMISER_THREADS) {
        pack<float, 4> value = load_pack<4>(x, p);
#pragma unroll
        for (int i = 0; i < 4; i++)
            sum += (double)value.value[i] * value.value[i];
    }
    if (blockIdx.x == 0)
        for (size_t i = packs * 4 + threadIdx.x; i < count; i += OPTIMISER_THREADS)
            sum += (double)x[i] * x[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

/* *sum = partial[0] + ... + partial[blocks - 1], one block. */
__global__ void sum_of_squares_finish_kernel(double *sum, const double *partial, int blocks)
{
    __shared__ double scratch[32];
    double total = 0;
    for (int i = threadIdx.x; i < blocks; i += OPTIMISER_THREADS)
        total += partial[i];
    total = block_sum(total, scratch);
    if (threadIdx.x == 0)
        *sum = total;
}

bool cuda_sum_of_squares(struct context *ctx, double *sum, const float *x, size_t count, struct error *error)
{
    void *partial;
    if (!cuda_workspace(ctx, &partial, SQUARES_BLOCKS * sizeof(double), "sum_of_squares", error))
        return false;
    size_t packs = count / 4;
    int blocks = (int)minimum(SQUARES_BLOCKS, div_up(maximum(packs, 1), OPTIMISER_THREADS));
    sum_of_squares_kernel<<<blocks, OPTIMISER_THREADS, 0, ctx->compute>>>((double *)partial, x, packs, count);
    if (!cuda_launched(ctx, "sum_of_squares", error))
        return false;
    sum_of_squares_finish_kernel<<<1, OPTIMISER_THREADS, 0, ctx->compute>>>(sum, (double *)partial, blocks);
    return cuda_launched(ctx, "sum_of_squares_finish", error);
}

struct adamw_constants {
    float beta1, beta2, eps, clip;
    float keep;        /* 1 - lr * weight_decay */
    float lr_decay;    /* lr * weight_decay */
    float step_size;   /* lr / (1 - beta1^step) */
    float root_factor; /* 1 / sqrt(1 - beta2^step) */
    double limit;      /* of the gradient's sum of squares; infinite = none */
    bool nesterov;
};

/* A thread takes four numbers at a time with a stride of the whole grid; nothing is changed where the gradient's norm
 * or the earlier one is not finite, or over the limit. Traffic: 28 + sizeof(T) bytes a number (28 without a working
 * copy) and 1/64 for the decay table, 4/64 for SCALED's. Limit on an A100: 2.0 TB/s. */
template <typename T, bool SCALED>
__global__ void __launch_bounds__(OPTIMISER_THREADS)
    adamw_kernel(float *master, float *m, float *v, T *working, const float *gradient, const uint8_t *decay,
                 const float *lr_scale, const double *gradient_sum_of_squares, const double *earlier_sum_of_squares,
                 size_t packs, adamw_constants c)
{
    double sum = *gradient_sum_of_squares;
    if (optimiser_withholds(sum, c.limit, earlier_sum_of_squares))
        return;
    float scale = optimiser_clip(c.clip, sum);
    for (size_t p = blockIdx.x * (size_t)OPTIMISER_THREADS + threadIdx.x; p < packs;
         p += gridDim.x * (size_t)OPTIMISER_THREADS) {
        pack<float, 4> g = load_pack<4>(gradient, p), w = load_pack<4>(master, p), first = load_pack<4>(m, p),
                       second = load_pack<4>(v, p);
        float keep = c.keep, step_size = c.step_size;
        if (SCALED) {
            step_size *= lr_scale[p / 16];
            keep = fmaf(-lr_scale[p / 16], c.lr_decay, 1.0f);
        }
        if (!decay[p / 16]) /* one decay flag covers 64 numbers */
            keep = 1.0f;
        pack<T, 4> rounded;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float slope = g.value[i] * scale;
            first.value[i] = c.beta1 * first.value[i] + (1 - c.beta1) * slope;
            second.value[i] = c.beta2 * second.value[i] + (1 - c.beta2) * slope * slope;
            float root = sqrtf(second.value[i]) * c.root_factor + c.eps;
            float mean = first.value[i];
            if (c.nesterov)
                mean = c.beta1 * mean + (1 - c.beta1) * slope;
            w.value[i] = w.value[i] * keep - step_size * mean / root;
            rounded.value[i] = from_float<T>(w.value[i]);
        }
        store_pack<4>(m, p, first);
        store_pack<4>(v, p, second);
        store_pack<4>(master, p, w);
        if (working)
            store_pack<4>(working, p, rounded);
    }
}

bool cuda_adamw_update(struct context *ctx, const struct adamw_update *op, struct error *error)
{
    const struct adamw *adamw = op->adamw;
    adamw_constants c = {adamw->beta1,
                         adamw->beta2,
                         adamw->eps,
                         adamw->clip_grad_norm,
                         (float)(1.0 - (double)adamw->lr * adamw->weight_decay),
                         (float)((double)adamw->lr * adamw->weight_decay),
                         (float)(adamw->lr / (1.0 - pow(adamw->beta1, (double)adamw->step))),
                         (float)(1.0 / sqrt(1.0 - pow(adamw->beta2, (double)adamw->step))),
                         optimiser_limit(adamw->sum_of_squares_limit),
                         adamw->nesterov};
    size_t packs = op->count / 4;
    void *working = op->working == op->master ? NULL : op->working;
    unsigned blocks = optimiser_blocks(ctx, packs);
    return with_type(ctx->dtype, [&](auto type) {
        typedef decltype(type) T;
        auto kernel = op->lr_scale ? adamw_kernel<T, true> : adamw_kernel<T, false>;
        kernel<<<blocks, OPTIMISER_THREADS, 0, ctx->compute>>>(op->master, op->m, op->v, (T *)working, op->gradient,
                                                               op->decay, op->lr_scale, op->gradient_sum_of_squares,
                                                               adamw->earlier_sum_of_squares, packs, c);
        return cuda_launched(ctx, "adamw", error);
    });
}

/* 4 + sizeof(T) bytes a number. */
template <typename T>
__global__ void __launch_bounds__(OPTIMISER_THREADS) round_kernel(T *working, const float *master, size_t packs)
{
    for (size_t p = blockIdx.x * (size_t)OPTIMISER_THREADS + threadIdx.x; p < packs;
         p += gridDim.x * (size_t)OPTIMISER_THREADS) {
        pack<float, 4> value = load_pack<4>(master, p);
        pack<T, 4> rounded;
#pragma unroll
        for (int i = 0; i < 4; i++)
            rounded.value[i] = from_float<T>(value.value[i]);
        store_pack<4>(working, p, rounded);
    }
}

bool cuda_round_parameters(struct context *ctx, void *working, const float *master, size_t count, struct error *error)
{
    if (working == master)
        return true;
    return with_type(ctx->dtype, [&](auto type) {
        typedef decltype(type) T;
        round_kernel<T>
            <<<optimiser_blocks(ctx, count / 4), OPTIMISER_THREADS, 0, ctx->compute>>>((T *)working, master, count / 4);
        return cuda_launched(ctx, "round_parameters", error);
    });
}

/* A thread a pack: 4 bytes a number that is not kept, and a byte for every 64. */
__global__ void __launch_bounds__(OPTIMISER_THREADS) zero_groups_kernel(float *x, const uint8_t *keep, size_t packs)
{
    for (size_t p = blockIdx.x * (size_t)OPTIMISER_THREADS + threadIdx.x; p < packs;
         p += gridDim.x * (size_t)OPTIMISER_THREADS)
        if (!keep[p / 16])
            store_pack<4>(x, p, pack<float, 4>{});
}

bool cuda_zero_groups(struct context *ctx, float *x, const uint8_t *keep, size_t count, struct error *error)
{
    zero_groups_kernel<<<optimiser_blocks(ctx, count / 4), OPTIMISER_THREADS, 0, ctx->compute>>>(x, keep, count / 4);
    return cuda_launched(ctx, "zero_groups", error);
}
