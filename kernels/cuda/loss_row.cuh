/* What the losses share: a row of logits, read once into shared memory by one block of 128 threads, and its label.
 *
 * A thread reads its packs of the row once, into shared memory as float32, and goes over them there. Rows of more than
 * 12288 classes do not fit and are read again instead (CACHED = false). */
#ifndef QUEST_KERNELS_CUDA_LOSS_ROW_CUH
#define QUEST_KERNELS_CUDA_LOSS_ROW_CUH

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/vector.cuh"

enum { LOSS_THREADS = 128, LOSS_MOST_CACHED = 12288 };

/* Pack `index` of the row as floats: from where read_loss_row put it, or from memory again. */
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

/* The first pack of this thread in the block's row. Rows may start in the middle of a 32-byte sector; the warps then
 * start at the next one, and thread 0 at the end. */
template <typename T, int VEC> __device__ __forceinline__ size_t first_pack(size_t row, size_t packs)
{
    size_t shift = row * packs % (32 / (sizeof(T) * VEC));
    return threadIdx.x >= shift ? threadIdx.x - shift : threadIdx.x + LOSS_THREADS - shift;
}

/* What a thread saw of its row. */
struct row_seen {
    float largest;
    bool finite, nan;
};

template <typename T, int VEC, bool CACHED>
__device__ __forceinline__ void read_loss_row(row_seen *seen, float *cache, const T *row, size_t first, size_t packs)
{
    for (size_t p = first; p < packs; p += LOSS_THREADS) {
        pack<float, VEC> value = row_pack<T, VEC, false>(NULL, row, p);
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            if (CACHED)
                cache[p * VEC + i] = value.value[i];
            seen->largest = fmaxf(seen->largest, value.value[i]);
            seen->finite = seen->finite && isfinite(value.value[i]);
            seen->nan = seen->nan || isnan(value.value[i]);
        }
    }
}

/* A row's labels and the weight of the first; read by thread 0. */
struct row_label {
    int label, partner;
    float weight;
};

/* partner_labels and weights may be NULL. false: one of them is no class; it is then 0, and the row's numbers are to be
 * NaN. */
__device__ __forceinline__ bool read_row_label(row_label *to, const int32_t *labels, const int32_t *partner_labels,
                                               const float *weights, size_t row, size_t classes)
{
    to->label = labels[row];
    to->weight = weights ? weights[row] : 1.0f;
    to->partner = partner_labels ? partner_labels[row] : to->label;
    if ((unsigned)to->label < classes && (unsigned)to->partner < classes)
        return true;
    to->label = to->partner = 0;
    return false;
}

#endif
