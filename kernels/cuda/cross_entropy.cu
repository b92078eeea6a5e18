/* Softmax cross-entropy, its gradient and the label's rank in one pass (kernels.h).
 *
 * One block of 128 threads a row. A thread reads its packs of the row once, into shared memory as float32, and goes
 * over them there: maximum; sums of exp and of the logits, and the rank; gradient. Rows of more than 12288 classes do
 * not fit and are read again instead (CACHED = false). Traffic: 2 sizeof(T) bytes a logit (sizeof(T) in evaluation) and
 * up to 20 a row. Limit on an A100: 2.0 TB/s. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/vector.cuh"

enum { ENTROPY_THREADS = 128, MOST_CACHED = 12288 };

struct cross_entropy_arguments {
    float *loss;
    int32_t *label_rank;
    const int32_t *labels, *partner_labels;
    const float *weights;
    float smoothing, gradient_scale;
    size_t classes;
};

/* Pack `index` of the row as floats: from where `remember` put it, or from memory again. */
template <typename T, int VEC, bool CACHED>
__device__ __forceinline__ pack<float, VEC> row_pack(const float *cache, const T *row, size_t index)
{
    pack<float, VEC> x;
    if (CACHED) {
#pragma unroll
        for (int i = 0; i < VEC; i++)
            x.value[i] = cache[index * VEC + i];
    } else {
        pack<T, VEC> raw = load_pack<VEC>(row, index);
#pragma unroll
        for (int i = 0; i < VEC; i++)
            x.value[i] = to_float(raw.value[i]);
    }
    return x;
}

template <typename T, int VEC, bool CACHED>
__global__ void __launch_bounds__(ENTROPY_THREADS)
    cross_entropy_kernel(T *gradient, const T *logits, cross_entropy_arguments a)
{
    extern __shared__ float cache[];
    __shared__ float scratch[32], label_logit, partner_logit;
    __shared__ int label, partner_label;
    __shared__ float weight;
    size_t row = blockIdx.x, packs = a.classes / VEC;
    const T *x = logits + row * a.classes;
    /* Rows may start in the middle of a 32-byte sector; the warps then start at the next one, and thread 0 at the end.
     */
    size_t shift = row * packs % (32 / (sizeof(T) * VEC));
    size_t first = threadIdx.x >= shift ? threadIdx.x - shift : threadIdx.x + ENTROPY_THREADS - shift;
    bool finite = true, nan = false;
    if (threadIdx.x == 0) {
        label = a.labels[row];
        weight = a.weights ? a.weights[row] : 1.0f;
        partner_label = a.partner_labels ? a.partner_labels[row] : label;
        if ((unsigned)label >= a.classes ||
            (unsigned)partner_label >= a.classes) { /* shows as a NaN among the logits */
            label = partner_label = 0;
            finite = false;
            nan = true;
        }
    }
    float largest = -INFINITY;
    for (size_t p = first; p < packs; p += ENTROPY_THREADS) {
        pack<float, VEC> value = row_pack<T, VEC, false>(NULL, x, p);
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            if (CACHED)
                cache[p * VEC + i] = value.value[i];
            largest = fmaxf(largest, value.value[i]);
            finite = finite && isfinite(value.value[i]);
            nan = nan || isnan(value.value[i]);
        }
    }
    finite = __syncthreads_and(finite);
    nan = __syncthreads_or(nan);
    if (threadIdx.x == 0) {
        label_logit = CACHED ? cache[label] : to_float(x[label]);
        partner_logit = CACHED ? cache[partner_label] : to_float(x[partner_label]);
    }
    largest = block_max(largest, scratch);

    float exponentials = 0, shifted = 0;
    int larger = 0;
    for (size_t p = first; p < packs; p += ENTROPY_THREADS) {
        pack<float, VEC> value = row_pack<T, VEC, CACHED>(cache, x, p);
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            exponentials += expf(value.value[i] - largest);
            shifted += value.value[i] - largest;
            larger += value.value[i] > label_logit || (value.value[i] == label_logit && (int)(p * VEC + i) < label);
        }
    }
    exponentials = block_sum(exponentials, scratch);
    shifted = block_sum(shifted, scratch);
    larger = block_sum(larger, (int *)scratch);
    float uniform = a.smoothing / a.classes, own = (1 - a.smoothing) * weight, other = 1 - a.smoothing - own;
    if (threadIdx.x == 0) {
        float expected = uniform * shifted + own * (label_logit - largest) + other * (partner_logit - largest);
        a.loss[row] = finite ? logf(exponentials) - expected : NAN;
        a.label_rank[row] = nan ? (int)a.classes : larger;
    }
    if (!gradient)
        return;
    float normaliser = finite ? 1 / exponentials : NAN;
    for (size_t p = first; p < packs; p += ENTROPY_THREADS) {
        pack<float, VEC> value = row_pack<T, VEC, CACHED>(cache, x, p);
        pack<T, VEC> line;
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            int c = (int)(p * VEC + i);
            float target = uniform + (c == label ? own : 0.0f) + (c == partner_label ? other : 0.0f);
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
        if (classes <= MOST_CACHED)
            cross_entropy_kernel<T, a.width, true>
                <<<(unsigned)op->batch, ENTROPY_THREADS, classes * sizeof(float), ctx->compute>>>(
                    (T *)op->gradient, (const T *)op->logits, arguments);
        else
            cross_entropy_kernel<T, a.width, false><<<(unsigned)op->batch, ENTROPY_THREADS, 0, ctx->compute>>>(
                (T *)op->gradient, (const T *)op->logits, arguments);
        return cuda_launched(ctx, "cross_entropy", error);
    });
}
