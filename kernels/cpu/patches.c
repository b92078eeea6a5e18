/* From bytes of patches to normalised activations, channels last to channels first; erased and mixed on the way. */
#include "kernels/bfloat16.h"
#include "kernels/cpu/cpu.h"
#include "kernels/noise.h"

/* One patch of an image that is neither erased nor cut there. `other` NULL: no mixing. */
ALWAYS_INLINE void normalise_patch(void *out, const uint8_t *pixels, const uint8_t *other, float weight,
                                   const struct patches_normalise *op, enum dtype dtype)
{
    size_t area = op->patch * op->patch, channels = op->channels;
    for (size_t c = 0; c < channels; c++) {
        float scale = op->scale[c], shift = op->shift[c];
        for (size_t i = 0; i < area; i++) {
            float value = (float)pixels[i * channels + c] * scale + shift;
            if (other)
                value = weight * value + (1.0f - weight) * ((float)other[i * channels + c] * scale + shift);
            store(out, c * area + i, value, dtype);
        }
    }
}

static bool inside(const struct pixel_box *box, size_t y, size_t x)
{
    return (size_t)(y - (size_t)box->top) < (size_t)box->height && (size_t)(x - (size_t)box->left) < (size_t)box->width;
}

/* The patch whose first pixel is (y, x) has a pixel in the box. */
static bool touches(const struct pixel_box *boxes, size_t image, size_t y, size_t x, size_t patch)
{
    if (!boxes)
        return false;
    const struct pixel_box *box = &boxes[image];
    return box->height > 0 && box->width > 0 && y < (size_t)box->top + (size_t)box->height &&
           x < (size_t)box->left + (size_t)box->width && y + patch > (size_t)box->top && x + patch > (size_t)box->left;
}

/* A number of an image, erased where it is. */
static float number_of(const struct patches_normalise *op, size_t image, size_t from, size_t channel, size_t y,
                       size_t x)
{
    if (op->erase && inside(&op->erase[image], y, x)) {
        size_t side_x = op->columns * op->patch, side_y = op->patches / op->columns * op->patch;
        return patches_noise(op->seed, op->sample[image], (uint32_t)((channel * side_y + y) * side_x + x));
    }
    size_t image_bytes = op->patches * op->patch * op->patch * op->channels;
    return (float)op->pixels[image * image_bytes + from] * op->scale[channel] + op->shift[channel];
}

/* One patch with a box in it, number by number. */
static void compose_patch(void *out, const struct patches_normalise *op, size_t image, size_t p, enum dtype dtype)
{
    size_t area = op->patch * op->patch, first_y = p / op->columns * op->patch, first_x = p % op->columns * op->patch;
    const struct pixel_box *box = op->partner ? &op->box[image] : NULL;
    for (size_t c = 0; c < op->channels; c++)
        for (size_t i = 0; i < area; i++) {
            size_t y = first_y + i / op->patch, x = first_x + i % op->patch, from = (p * area + i) * op->channels + c;
            size_t partner = op->partner ? (size_t)op->partner[image] : image;
            float value;
            if (!box)
                value = number_of(op, image, from, c, y, x);
            else if (box->height > 0 && box->width > 0)
                value = number_of(op, inside(box, y, x) ? partner : image, from, c, y, x);
            else
                value = op->weight[image] * number_of(op, image, from, c, y, x) +
                        (1.0f - op->weight[image]) * number_of(op, partner, from, c, y, x);
            store(out, c * area + i, value, dtype);
        }
}

static void make_patch(const struct patches_normalise *op, size_t image, size_t p, enum dtype dtype)
{
    size_t patch_dim = op->patch * op->patch * op->channels, at_patch = image * op->patches + p;
    size_t y = p / op->columns * op->patch, x = p % op->columns * op->patch;
    size_t partner = op->partner ? (size_t)op->partner[image] : image;
    bool cut = op->partner && op->box[image].height > 0 && op->box[image].width > 0;
    void *out = at(op->out, at_patch * patch_dim, dtype);
    if (touches(op->erase, image, y, x, op->patch) || (op->partner && touches(op->erase, partner, y, x, op->patch)) ||
        (cut && touches(op->box, image, y, x, op->patch))) {
        compose_patch(out, op, image, p, dtype);
        return;
    }
    const uint8_t *own = op->pixels + at_patch * patch_dim, *other = NULL;
    float weight = 1.0f;
    if (op->partner && !cut) {
        other = op->pixels + (partner * op->patches + p) * patch_dim;
        weight = op->weight[image];
    }
    if (dtype == DTYPE_FLOAT32)
        normalise_patch(out, own, other, weight, op, DTYPE_FLOAT32);
    else
        normalise_patch(out, own, other, weight, op, DTYPE_BFLOAT16);
}

bool cpu_patches_normalise(struct context *ctx, const struct patches_normalise *op, struct error *error)
{
    (void)error;
#pragma omp parallel for schedule(static) num_threads(ctx->threads) if (ctx->threads > 1)
    for (size_t i = 0; i < op->batch * op->patches; i++)
        make_patch(op, i / op->patches, i % op->patches, ctx->dtype);
    return true;
}
