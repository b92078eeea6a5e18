/* Sigmoid cross-entropy of every class, its gradient and the label's rank in one pass (kernels.h).
 *
 * One block a row (loss_row.cuh), over which it goes to see whether all is finite; for the sum, the rank and the
 * gradient. Traffic: 2 sizeof(T) bytes a logit (sizeof(T) in evaluation) and up to 20 a row. Limit on an A100:
 * 2.0 TB/s. */
#include "kernels/cuda/loss_row.cuh"

struct binary_cross_entropy_arguments {
    float *loss;
    int32_t *label_rank;
    const int32_t *labels, *partner_labels;
    const float *weights;
    float smoothing, gradient_scale, threshold, share;
    size_t classes;
};

__device__ __forceinline__ float threshold_target(float target, float threshold)
{
    return threshold < 0 ? target : target > threshold ? 1.0f : 0.0f;
}

template <typename T, int VEC, bool CACHED>
__global__ void __launch_bounds__(LOSS_THREADS)
    binary_cross_entropy_kernel(T *gradient, const T *logits, binary_cross_entropy_arguments a)
{
    extern __shared__ float cache[];
    __shared__ float scratch[32], label_logit;
    __shared__ row_label at;
    size_t row = blockIdx.x, packs = a.classes / VEC;
    const T *x = logits + row * a.classes;
    size_t first = first_pack<T, VEC>(row, packs);
    row_seen seen = {-INFINITY, true, false};
    if (threadIdx.x == 0 && !read_row_label(&at, a.labels, a.partner_labels, a.weights, row, a.classes)) {
        seen.finite = false; /* shows as a NaN among the logits */
        seen.nan = true;
    }
    read_loss_row<T, VEC, CACHED>(&seen, cache, x, first, packs);
    bool finite = __syncthreads_and(seen.finite), nan = __syncthreads_or(seen.nan);
    if (threadIdx.x == 0)
        label_logit = CACHED ? cache[at.label] : to_float(x[at.label]);
    __syncthreads();

    float smooth = a.smoothing / a.classes;
    float own = (1 - a.smoothing) * at.weight, other = (1 - a.smoothing) * (1 - at.weight);
    float others = threshold_target(smooth, a.threshold);
    float at_label = threshold_target(smooth + own + (at.label == at.partner ? other : 0.0f), a.threshold);
    float at_partner = threshold_target(smooth + other, a.threshold);
    float scale = finite ? a.gradient_scale * a.share : NAN, sum = 0;
    int larger = 0;
    for (size_t p = first; p < packs; p += LOSS_THREADS) {
        pack<float, VEC> value = row_pack<T, VEC, CACHED>(cache, x, p);
        pack<T, VEC> line;
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            int c = (int)(p * VEC + i);
            float logit = value.value[i], t = c == at.label ? at_label : c == at.partner ? at_partner : others;
            /* e = exp(-|x|), and what does not cancel of log(1 + exp(x)) - x t and of sigmoid - t. */
            float e = expf(-fabsf(logit)), tail = e / (1 + e);
            sum += log1pf(e) + fabsf(logit) * (logit < 0 ? t : 1 - t);
            larger += logit > label_logit || (logit == label_logit && c < at.label);
            line.value[i] = from_float<T>(scale * (logit < 0 ? tail - t : (1 - t) - tail));
        }
        if (gradient)
            store_pack<VEC>(gradient + row * a.classes, p, line);
    }
    sum = block_sum(sum, scratch);
    larger = block_sum(larger, (int *)scratch);
    if (threadIdx.x == 0) {
        a.loss[row] = finite ? sum * a.share : NAN;
        a.label_rank[row] = nan ? (int)a.classes : larger;
    }
}

bool cuda_binary_cross_entropy(struct context *ctx, const struct binary_cross_entropy *op, struct error *error)
{
    size_t classes = op->classes;
    binary_cross_entropy_arguments arguments = {op->loss,
                                                op->label_rank,
                                                op->labels,
                                                op->partner_labels,
                                                op->weights,
                                                op->smoothing,
                                                op->gradient_scale,
                                                op->threshold,
                                                op->sum ? 1.0f : 1.0f / (float)classes,
                                                classes};
    return with_access(ctx->dtype, classes, [&](auto a) {
        typedef typename decltype(a)::type T;
        if (classes <= LOSS_MOST_CACHED)
            binary_cross_entropy_kernel<T, a.width, true>
                <<<(unsigned)op->batch, LOSS_THREADS, classes * sizeof(float), ctx->compute>>>(
                    (T *)op->gradient, (const T *)op->logits, arguments);
        else
            binary_cross_entropy_kernel<T, a.width, false><<<(unsigned)op->batch, LOSS_THREADS, 0, ctx->compute>>>(
                (T *)op->gradient, (const T *)op->logits, arguments);
        return cuda_launched(ctx, "binary_cross_entropy", error);
    });
}
