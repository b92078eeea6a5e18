/* uint8 patches to normalised activations, with mixup and cutmix (kernels.h): a transposition inside each patch, from
 * channels fastest to channels slowest.
 *
 *   one block, PATCHES_PER_BLOCK neighbouring patches of one image:
 *     1. their bytes to shared memory, in 16-byte loads: own[], and partner[] where an image is mixed in
 *     2. thread t writes the packs t, t + blockDim.x, ... of the output, gathering single bytes from shared memory
 *
 * A pack of the output may span channels and patches, so each of its numbers finds its own byte.
 * Traffic: 1 + sizeof(T) bytes a number, 2 + sizeof(T) with a partner. Limit on an A100: 2.0 TB/s. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/vector.cuh"

enum { PATCHES_PER_BLOCK = 4, PATCHES_THREADS = 128, MOST_CHANNELS = 16 };

struct patches_tensors {
    const uint8_t *pixels;
    const float *scale, *shift;
    const int32_t *partner; /* NULL: nothing is mixed in */
    const float *weight;
    size_t patches;
    unsigned patch_area, channels, patch_dim;
};

/* All threads of the block copy `bytes` from `from` to shared memory, where they start at *offset so that both sides
 * have the same alignment; bytes before the first and after the last multiple of 16 are not read. */
__device__ __forceinline__ const uint8_t *stage_bytes(uint8_t *shared, const uint8_t *from, unsigned bytes)
{
    unsigned misaligned = (unsigned)((uintptr_t)from % 16);
    uint8_t *to = shared + misaligned;
    unsigned head = misaligned == 0 ? 0 : min(16 - misaligned, bytes), wide_count = (bytes - head) / 16;
    for (unsigned i = threadIdx.x; i < wide_count; i += blockDim.x)
        reinterpret_cast<uint4 *>(to + head)[i] = reinterpret_cast<const uint4 *>(from + head)[i];
    for (unsigned i = threadIdx.x; i < head; i += blockDim.x)
        to[i] = from[i];
    for (unsigned i = head + 16 * wide_count + threadIdx.x; i < bytes; i += blockDim.x)
        to[i] = from[i];
    return to;
}

template <typename T, int VEC, bool MIXED>
__global__ void __launch_bounds__(PATCHES_THREADS) patches_normalise_kernel(T *out, patches_tensors t)
{
    extern __shared__ uint4 shared[];
    __shared__ float scale[MOST_CHANNELS], shift[MOST_CHANNELS], weight[PATCHES_PER_BLOCK];
    size_t image = blockIdx.y, first = blockIdx.x * (size_t)PATCHES_PER_BLOCK;
    unsigned patches = (unsigned)min((size_t)PATCHES_PER_BLOCK, t.patches - first), bytes = patches * t.patch_dim;
    size_t start = (image * t.patches + first) * t.patch_dim;
    if (threadIdx.x < t.channels) {
        scale[threadIdx.x] = t.scale[threadIdx.x];
        shift[threadIdx.x] = t.shift[threadIdx.x];
    }
    if (MIXED && threadIdx.x < patches)
        weight[threadIdx.x] = t.weight[image * t.patches + first + threadIdx.x];
    const uint8_t *own = stage_bytes((uint8_t *)shared, t.pixels + start, bytes), *partner = NULL;
    if (MIXED)
        partner = stage_bytes((uint8_t *)shared + (PATCHES_PER_BLOCK * t.patch_dim / 16 + 2) * 16,
                              t.pixels + ((size_t)t.partner[image] * t.patches + first) * t.patch_dim, bytes);
    __syncthreads();
    for (unsigned at = threadIdx.x * VEC; at < bytes; at += PATCHES_THREADS * VEC) {
        unsigned patch = at / t.patch_dim, channel = at % t.patch_dim / t.patch_area,
                 pixel = at % t.patch_dim % t.patch_area;
        pack<T, VEC> line;
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            unsigned from = patch * t.patch_dim + pixel * t.channels + channel;
            float value = own[from];
            if (MIXED)
                value = weight[patch] * value + (1.0f - weight[patch]) * partner[from];
            line.value[i] = from_float<T>(value * scale[channel] + shift[channel]);
            if (++pixel == t.patch_area) {
                pixel = 0;
                if (++channel == t.channels) {
                    channel = 0;
                    patch++;
                }
            }
        }
        store_pack<VEC>(out + start + at, 0, line);
    }
}

bool cuda_patches_normalise(struct context *ctx, const struct patches_normalise *op, struct error *error)
{
    size_t patch = op->patch, channels = op->channels;
    size_t patch_dim = patch * patch * channels;
    patches_tensors t = {op->pixels,
                         op->scale,
                         op->shift,
                         op->partner,
                         op->weight,
                         op->patches,
                         (unsigned)(patch * patch),
                         (unsigned)channels,
                         (unsigned)patch_dim};
    size_t staged_bytes = (PATCHES_PER_BLOCK * patch_dim / 16 + 2) * 16 * (op->partner ? 2 : 1);
    if (channels > MOST_CHANNELS || staged_bytes > 48 * 1024)
        return error_input(error,
                           "patches of %zu x %zu pixels with %zu channels are too large for the CUDA backend "
                           "(at most %d channels and 6 KiB a patch)",
                           patch, patch, channels, MOST_CHANNELS);
    return with_access(ctx->dtype, patch_dim, [&](auto a) {
        typedef typename decltype(a)::type T;
        dim3 grid(div_up(op->patches, PATCHES_PER_BLOCK), (unsigned)op->batch);
        if (op->partner)
            patches_normalise_kernel<T, a.width, true>
                <<<grid, PATCHES_THREADS, staged_bytes, ctx->compute>>>((T *)op->out, t);
        else
            patches_normalise_kernel<T, a.width, false>
                <<<grid, PATCHES_THREADS, staged_bytes, ctx->compute>>>((T *)op->out, t);
        return cuda_launched(ctx, "patches_normalise", error);
    });
}
