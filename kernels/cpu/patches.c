/* From bytes of patches to normalised activations, channels last to channels first, with another image mixed in. */
#include "kernels/bfloat16.h"
#include "kernels/cpu/cpu.h"

struct patch_layout {
    size_t patch, channels;
    const float *scale, *shift;
};

/* One patch: from channels last to channels first. `other` NULL: no mixing. */
ALWAYS_INLINE void normalise_patch(void *out, const uint8_t *pixels, const uint8_t *other, float weight,
                                   const struct patch_layout *layout, enum dtype dtype)
{
    size_t area = layout->patch * layout->patch, channels = layout->channels;
    for (size_t c = 0; c < channels; c++) {
        float scale = layout->scale[c], shift = layout->shift[c];
        for (size_t i = 0; i < area; i++) {
            float value = pixels[i * channels + c];
            if (other)
                value = weight * value + (1.0f - weight) * (float)other[i * channels + c];
            store(out, c * area + i, value * scale + shift, dtype);
        }
    }
}

bool cpu_patches_normalise(struct context *ctx, const struct patches_normalise *op, struct error *error)
{
    (void)error;
    size_t patches = op->patches, patch = op->patch;
    struct patch_layout layout = {patch, op->channels, op->scale, op->shift};
    size_t patch_dim = patch * patch * op->channels;
#pragma omp parallel for schedule(static) num_threads(ctx->threads) if (ctx->threads > 1)
    for (size_t i = 0; i < op->batch * patches; i++) {
        const uint8_t *from = op->pixels + i * patch_dim, *other = NULL;
        float keep = 1.0f;
        if (op->partner) {
            other = op->pixels + ((size_t)op->partner[i / patches] * patches + i % patches) * patch_dim;
            keep = op->weight[i];
        }
        if (ctx->dtype == DTYPE_FLOAT32)
            normalise_patch(at(op->out, i * patch_dim, DTYPE_FLOAT32), from, other, keep, &layout, DTYPE_FLOAT32);
        else
            normalise_patch(at(op->out, i * patch_dim, DTYPE_BFLOAT16), from, other, keep, &layout, DTYPE_BFLOAT16);
    }
    return true;
}
