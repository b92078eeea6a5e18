/* Softmax cross-entropy, its gradient and the label's rank in one pass (kernels.h).
 *
 * One block a row (loss_row.cuh), over which it goes for the maximum; for sums of exp and of the logits, and the rank;
 * for the gradient. Traffic: 2 sizeof(T) bytes a logit (sizeof(T) in evaluation) and up to 20 a row. Limit on an A100:
 * 2.0 TB/s. */
#include "kernels/cuda/loss_row.cuh"

struct cross_entropy_arguments {
    float *loss;
    int32_t *label_rank;
    const int32_t *labels, *partner_labels;
    const float *weights;
    float smoothing, gradient_scale;
    size_t classes;
};

template <typename T, int VEC, bool CACHED>
__global__ void __launch_bounds__(LOSS_THREADS)
    cross_entropy_kernel(T *gradient, const T *logits, cross_entropy_arguments a)
{
    extern __shared__ float cache[];
    __shared__ float scratch[32], label_logit, partner_logit;
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
    if (threadIdx.x == 0) {
        label_logit = CACHED ? cache[at.label] : to_float(x[at.label]);
        partner_logit = CACHED ? cache[at.partner] : to_float(x[at.partner]);
    }
    float largest = block_max(seen.largest, scratch);

    float exponentials = 0, shifted = 0;
    int larger = 0;
    for (size_t p = first; p < packs; p += LOSS_THREADS) {
        pack<float, VEC> value = row_pack<T, VEC, CACHED>(cache, x, p);
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            exponentials += expf(value.value[i] - largest);
            shifted += value.value[i] - largest;
            larger += value.value[i] > label_logit || (value.value[i] == label_logit && (int)(p * VEC + i) < at.label);
        }
    }
    exponentials = block_sum(exponentials, scratch);
    shifted = block_sum(shifted, scratch);
    larger = block_sum(larger, (int *)scratch);
    float uniform = a.smoothing / a.classes, own = (1 - a.smoothing) * at.weight, other = 1 - a.smoothing - own;
    if (threadIdx.x == 0) {
        float expected = uniform * shifted + own * (label_logit - largest) + other * (partner_logit - largest);
        a.loss[row] = finite ? logf(exponentials) - expected : NAN;
        a.label_rank[row] = nan ? (int)a.classes : larger;
    }
    if (!gradient)
        return;
    float normaliser = finite ? 1 / exponentials : NAN;
    for (size_t p = first; p < packs; p += LOSS_THREADS) {
        pack<float, VEC> value = row_pack<T, VEC, CACHED>(cache, x, p);
        pack<T, VEC> line;
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            int c = (int)(p * VEC + i);
            float target = uniform + (c == at.label ? own : 0.0f) + (c == at.partner ? other : 0.0f);
            line.value[i] = from_float<T>(a.gradient_scale * (expf(value.value[i] - largest) * normaliser - target));
        }
        store_pack<VEC>(gradient + row * a.classes, p, line);
    }
}

bool cuda_cross_entropy(struct context *ctx, const struct cross_entropy *op, struct error *error)
{
    size_t classes = op->classes;
    cross_entropy_arguments arguments = {op->loss,    op->label_rank, op->labels,         op->partner_labels,
                                         op->weights, op->smoothing,  op->gradient_scale, classes};
    return with_access(ctx->dtype, classes, [&](auto a) {
        typedef typename decltype(a)::type T;
        if (classes <= LOSS_MOST_CACHED)
            cross_entropy_kernel<T, a.width, true>
                <<<(unsigned)op->batch, LOSS_THREADS, classes * sizeof(float), ctx->compute>>>(
                    (T *)op->gradient, (const T *)op->logits, arguments);
        else
            cross_entropy_kernel<T, a.width, false><<<(unsigned)op->batch, LOSS_THREADS, 0, ctx->compute>>>(
                (T *)op->gradient, (const T *)op->logits, arguments);
        return cuda_launched(ctx, "cross_entropy", error);
    });
}
