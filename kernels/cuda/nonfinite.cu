/* Finds the first NaN or infinity of a tensor, for the search after a step whose gradient is not finite. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/vector.cuh"

/* *first = min(*first, index) over the numbers that are not finite; an integer minimum, so the order does not matter.
 * A thread takes every grid-th pack and stops at its first hit. Reads the tensor once. */
template <typename T, int VEC>
__global__ void find_nonfinite_kernel(unsigned long long *first, const T *x, size_t packs)
{
    for (size_t p = blockIdx.x * (size_t)blockDim.x + threadIdx.x; p < packs; p += gridDim.x * (size_t)blockDim.x) {
        pack<T, VEC> value = load_pack<VEC>(x, p);
        for (int i = 0; i < VEC; i++) {
            if (!isfinite(to_float(value.value[i]))) {
                atomicMin(first, (unsigned long long)(p * VEC + i));
                return;
            }
        }
    }
}

bool cuda_find_nonfinite(struct context *ctx, size_t *first, const void *x, enum dtype dtype, size_t count,
                         struct error *error)
{
    void *found;
    unsigned long long index = count;
    if (!cuda_workspace(ctx, &found, sizeof index, "find_nonfinite", error) ||
        !CUDA_TRY(cudaMemcpyAsync(found, &index, sizeof index, cudaMemcpyHostToDevice, ctx->compute), error))
        return false;
    bool launched = with_access(dtype, count, [&](auto a) {
        typedef typename decltype(a)::type T;
        size_t packs = count / a.width;
        unsigned blocks = (unsigned)maximum(1, minimum(div_up(packs, 256), 8 * ctx->properties.multiprocessors));
        find_nonfinite_kernel<T, a.width>
            <<<blocks, 256, 0, ctx->compute>>>((unsigned long long *)found, (const T *)x, packs);
        return cuda_launched(ctx, "find_nonfinite", error);
    });
    if (!launched ||
        !CUDA_TRY(cudaMemcpyAsync(&index, found, sizeof index, cudaMemcpyDeviceToHost, ctx->compute), error) ||
        !CUDA_TRY(cudaStreamSynchronize(ctx->compute), error))
        return false;
    *first = index;
    return true;
}
