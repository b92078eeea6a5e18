/* uint8 patches to normalised activations, with erasing, mixup and cutmix (kernels.h): a transposition inside each
 * patch, from channels fastest to channels slowest.
 *
 *   one block, PATCHES_PER_BLOCK neighbouring patches of one image, or of two that are mixed with each other:
 *     1. thread 0 reads what was drawn for the image and its partner; of a pair the first image's block does both, the
 *        second's ends here
 *     2. their bytes to shared memory, in 16-byte loads: own[], and partner[] where an image is mixed in
 *     3. thread t writes the packs t, t + blockDim.x, ... of the output, gathering single bytes from shared memory
 *
 * A pack of the output may span channels and patches, so each of its numbers finds its own byte. Noise is computed
 * where it is wanted, ten rounds of Philox a number. Traffic: 1 + sizeof(T) bytes a number, also of pairs; 2 +
 * sizeof(T) of an image whose partner is mixed with a third. Limit on an A100: 2.0 TB/s. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/vector.cuh"
#include "kernels/noise.h"

enum { PATCHES_PER_BLOCK = 4, PATCHES_THREADS = 128, MOST_CHANNELS = 16 };

struct patches_tensors {
    const uint8_t *pixels;
    const float *scale, *shift;
    const pixel_box *erase; /* NULL: nothing is erased */
    const uint64_t *sample;
    uint64_t seed;
    const int32_t *partner; /* NULL: nothing is mixed in */
    const float *weight;
    const pixel_box *box;
    size_t patches;
    unsigned columns, patch, patch_area, channels, patch_dim, height, width;
};

__device__ __forceinline__ bool inside(const pixel_box &box, unsigned y, unsigned x)
{
    return y - (unsigned)box.top < (unsigned)box.height && x - (unsigned)box.left < (unsigned)box.width;
}

/* What was drawn for an image. */
struct drawn_image {
    pixel_box erase, box;
    uint64_t sample;
    float weight;
};

template <bool MIXED, bool ERASED>
__device__ __forceinline__ void load_drawn(drawn_image *drawn, const patches_tensors &t, size_t image)
{
    if (ERASED) {
        *reinterpret_cast<int4 *>(&drawn->erase) = reinterpret_cast<const int4 *>(t.erase)[image];
        drawn->sample = t.sample[image];
    }
    if (MIXED) {
        *reinterpret_cast<int4 *>(&drawn->box) = reinterpret_cast<const int4 *>(t.box)[image];
        drawn->weight = t.weight[image];
    }
}

/* `number`, or noise where the place is erased. */
__device__ __forceinline__ float erased(float number, const drawn_image &drawn, const patches_tensors &t,
                                        unsigned channel, unsigned y, unsigned x)
{
    return inside(drawn.erase, y, x) ? patches_noise(t.seed, drawn.sample, (channel * t.height + y) * t.width + x)
                                     : number;
}

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

/* A block's patches as it has them in shared memory: the bytes of an image, or of it and its partner. */
struct staged {
    const uint8_t *own, *partner;
    const drawn_image *drawn, *partner_drawn;
    unsigned first, bytes; /* number of the first patch; of all patches */
};

template <typename T, int VEC, bool MIXED, bool ERASED>
__device__ __forceinline__ void write_patches(T *out, const patches_tensors &t, const staged &s, const float *scale,
                                              const float *shift)
{
    const pixel_box box = MIXED ? s.drawn->box : pixel_box{};
    const float weight = MIXED ? s.drawn->weight : 1.0f;
    bool cut = box.height > 0 && box.width > 0;
    for (unsigned at = threadIdx.x * VEC; at < s.bytes; at += PATCHES_THREADS * VEC) {
        unsigned patch = at / t.patch_dim, channel = at % t.patch_dim / t.patch_area,
                 pixel = at % t.patch_dim % t.patch_area;
        pack<T, VEC> line;
#pragma unroll
        for (int i = 0; i < VEC; i++) {
            unsigned from = patch * t.patch_dim + pixel * t.channels + channel;
            float value = s.own[from] * scale[channel] + shift[channel];
            if (MIXED || ERASED) {
                unsigned p = s.first + patch, y = p / t.columns * t.patch + pixel / t.patch,
                         x = p % t.columns * t.patch + pixel % t.patch;
                if (ERASED)
                    value = erased(value, *s.drawn, t, channel, y, x);
                if (MIXED && (!cut || inside(box, y, x))) {
                    float mixed_in = s.partner[from] * scale[channel] + shift[channel];
                    if (ERASED)
                        mixed_in = erased(mixed_in, *s.partner_drawn, t, channel, y, x);
                    value = cut ? mixed_in : weight * value + (1.0f - weight) * mixed_in;
                }
            }
            line.value[i] = from_float<T>(value);
            if (++pixel == t.patch_area) {
                pixel = 0;
                if (++channel == t.channels) {
                    channel = 0;
                    patch++;
                }
            }
        }
        store_pack<VEC>(out + at, 0, line);
    }
}

template <typename T, int VEC, bool MIXED, bool ERASED>
__global__ void __launch_bounds__(PATCHES_THREADS) patches_normalise_kernel(T *out, patches_tensors t)
{
    extern __shared__ uint4 shared[];
    __shared__ float scale[MOST_CHANNELS], shift[MOST_CHANNELS];
    __shared__ drawn_image drawn[2];
    __shared__ int partners[2]; /* of the image, and of that */
    size_t image = blockIdx.y, first = blockIdx.x * (size_t)PATCHES_PER_BLOCK;
    if (threadIdx.x == 0 && MIXED) {
        partners[0] = t.partner[image];
        partners[1] = t.partner[partners[0]];
    }
    if (threadIdx.x < t.channels) {
        scale[threadIdx.x] = t.scale[threadIdx.x];
        shift[threadIdx.x] = t.shift[threadIdx.x];
    }
    if (MIXED)
        __syncthreads();
    size_t other = MIXED ? (size_t)partners[0] : image;
    bool pair = MIXED && other != image && (size_t)partners[1] == image;
    if (pair && other < image)
        return;
    if (threadIdx.x == 0) {
        load_drawn<MIXED, ERASED>(&drawn[0], t, image);
        if (MIXED)
            load_drawn<MIXED, ERASED>(&drawn[1], t, other);
    }
    unsigned patches = (unsigned)min((size_t)PATCHES_PER_BLOCK, t.patches - first), bytes = patches * t.patch_dim;
    size_t start = (image * t.patches + first) * t.patch_dim, other_start = (other * t.patches + first) * t.patch_dim;
    const uint8_t *own = stage_bytes((uint8_t *)shared, t.pixels + start, bytes), *partner = own;
    if (MIXED)
        partner = stage_bytes((uint8_t *)shared + (PATCHES_PER_BLOCK * t.patch_dim / 16 + 2) * 16,
                              t.pixels + other_start, bytes);
    __syncthreads();
    const staged mine = {own, partner, &drawn[0], &drawn[1], (unsigned)first, bytes};
    write_patches<T, VEC, MIXED, ERASED>(out + start, t, mine, scale, shift);
    if (pair) {
        const staged theirs = {partner, own, &drawn[1], &drawn[0], (unsigned)first, bytes};
        write_patches<T, VEC, MIXED, ERASED>(out + other_start, t, theirs, scale, shift);
    }
}

template <typename T, int VEC, bool MIXED>
static void launch(struct context *ctx, T *out, const patches_tensors &t, dim3 grid, size_t staged_bytes)
{
    if (t.erase)
        patches_normalise_kernel<T, VEC, MIXED, true><<<grid, PATCHES_THREADS, staged_bytes, ctx->compute>>>(out, t);
    else
        patches_normalise_kernel<T, VEC, MIXED, false><<<grid, PATCHES_THREADS, staged_bytes, ctx->compute>>>(out, t);
}

bool cuda_patches_normalise(struct context *ctx, const struct patches_normalise *op, struct error *error)
{
    size_t patch = op->patch, channels = op->channels;
    size_t patch_dim = patch * patch * channels;
    patches_tensors t = {op->pixels,
                         op->scale,
                         op->shift,
                         op->erase,
                         op->sample,
                         op->seed,
                         op->partner,
                         op->weight,
                         op->box,
                         op->patches,
                         (unsigned)op->columns,
                         (unsigned)patch,
                         (unsigned)(patch * patch),
                         (unsigned)channels,
                         (unsigned)patch_dim,
                         (unsigned)(op->patches / op->columns * patch),
                         (unsigned)(op->columns * patch)};
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
            launch<T, a.width, true>(ctx, (T *)op->out, t, grid, staged_bytes);
        else
            launch<T, a.width, false>(ctx, (T *)op->out, t, grid, staged_bytes);
        return cuda_launched(ctx, "patches_normalise", error);
    });
}
