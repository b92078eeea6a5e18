/* SGD with momentum over the flat buffers (kernels/optimisers.h). */
#include "kernels/cuda/optimiser.cuh"

struct sgd_constants {
    float lr, momentum, weight_decay, clip;
    float of_gradient, of_momentum; /* the direction is so much of each */
    double limit;
};

/* A thread takes four numbers at a time with a stride of the whole grid. Traffic: 20 + sizeof(T) bytes a number (20
 * without a working copy), 1/64 for the decay table and 4/64 for that of learning rates, where there is one. */
template <typename T>
__global__ void __launch_bounds__(OPTIMISER_THREADS)
    sgd_kernel(float *master, float *m, T *working, const float *gradient, const uint8_t *decay, const float *lr_scale,
               const double *gradient_sum_of_squares, const double *earlier_sum_of_squares, size_t packs,
               sgd_constants c)
{
    double sum = *gradient_sum_of_squares;
    if (optimiser_withholds(sum, c.limit, earlier_sum_of_squares))
        return;
    float scale = optimiser_clip(c.clip, sum);
    for (size_t p = blockIdx.x * (size_t)OPTIMISER_THREADS + threadIdx.x; p < packs;
         p += gridDim.x * (size_t)OPTIMISER_THREADS) {
        pack<float, 4> g = load_pack<4>(gradient, p), w = load_pack<4>(master, p), carried = load_pack<4>(m, p);
        float weight_decay = decay[p / 16] ? c.weight_decay : 0.0f; /* one flag covers 64 numbers */
        float lr = lr_scale ? c.lr * lr_scale[p / 16] : c.lr;
        pack<T, 4> rounded;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float slope = fmaf(weight_decay, w.value[i], g.value[i] * scale);
            carried.value[i] = fmaf(c.momentum, carried.value[i], slope);
            w.value[i] = fmaf(-lr, fmaf(c.of_momentum, carried.value[i], c.of_gradient * slope), w.value[i]);
            rounded.value[i] = from_float<T>(w.value[i]);
        }
        store_pack<4>(m, p, carried);
        store_pack<4>(master, p, w);
        if (working)
            store_pack<4>(working, p, rounded);
    }
}

bool cuda_sgd_update(struct context *ctx, const struct sgd_update *op, struct error *error)
{
    const struct sgd *sgd = op->sgd;
    sgd_constants c = {sgd->lr,
                       sgd->momentum,
                       sgd->weight_decay,
                       sgd->clip_grad_norm,
                       sgd->nesterov ? 1.0f : 0.0f,
                       sgd->nesterov ? sgd->momentum : 1.0f,
                       optimiser_limit(sgd->sum_of_squares_limit)};
    size_t packs = op->count / 4;
    void *working = op->working == op->master ? NULL : op->working;
    return with_type(ctx->dtype, [&](auto type) {
        typedef decltype(type) T;
        sgd_kernel<T><<<optimiser_blocks(ctx, packs), OPTIMISER_THREADS, 0, ctx->compute>>>(
            op->master, op->m, (T *)working, op->gradient, op->decay, op->lr_scale, op->gradient_sum_of_squares,
            sgd->earlier_sum_of_squares, packs, c);
        return cuda_launched(ctx, "sgd", error);
    });
}
