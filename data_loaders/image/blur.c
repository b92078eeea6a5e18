/* Box filters by running sums: each output adds what comes in and takes off what goes out. */
#include "data_loaders/image/blur.h"

#include <math.h>
#include <string.h>

enum { CHANNELS = 3, PASSES = 3 };

/* A box of 2 radius + 1 pixels of weight `whole` and one more on each side of weight `part`, 24 bits of fraction. */
struct box {
    ptrdiff_t radius;
    uint32_t whole, part;
};

/* The box whose three passes have the variance of the Gaussian (Gwosdek et al., 2011), rounded where Pillow rounds. */
static struct box box_of(float sigma)
{
    float variance = sigma * sigma / PASSES;
    float length = (float)sqrt(12.0 * (double)variance + 1.0);
    float low = (float)floor(((double)length - 1.0) / 2.0);
    float part = (2 * low + 1) * (low * (low + 1) - 3 * variance);
    part /= 6 * (variance - (low + 1) * (low + 1));
    float radius = low + part;
    struct box box = {.radius = (ptrdiff_t)radius};
    box.whole = (uint32_t)((float)(1 << 24) / (radius * 2 + 1));
    box.part = ((1u << 24) - (uint32_t)(2 * box.radius + 1) * box.whole) / 2;
    return box;
}

static inline ptrdiff_t inside(ptrdiff_t at, ptrdiff_t extent)
{
    return at < 0 ? 0 : at >= extent ? extent - 1 : at;
}

/* Along an axis of `extent` groups of `width` numbers, one after the other `stride` bytes apart: of a row the groups
 * are pixels, of a picture whole rows. `sums` holds `width` numbers. */
static void box_pass(uint8_t *restrict out, const uint8_t *restrict in, ptrdiff_t extent, size_t width,
                     uint32_t *restrict sums, const struct box *box)
{
    for (size_t i = 0; i < width; i++)
        sums[i] = 0;
    for (ptrdiff_t at = -box->radius; at <= box->radius; at++) {
        const uint8_t *from = in + (size_t)inside(at, extent) * width;
        for (size_t i = 0; i < width; i++)
            sums[i] += from[i];
    }
    for (ptrdiff_t at = 0; at < extent; at++) {
        const uint8_t *before = in + (size_t)inside(at - box->radius - 1, extent) * width;
        const uint8_t *behind = in + (size_t)inside(at + box->radius + 1, extent) * width;
        const uint8_t *leaves = in + (size_t)inside(at - box->radius, extent) * width;
        uint8_t *to = out + (size_t)at * width;
        for (size_t i = 0; i < width; i++) {
            uint32_t edges = (uint32_t)before[i] + behind[i];
            to[i] = (uint8_t)((sums[i] * box->whole + edges * box->part + (1u << 23)) >> 24);
            sums[i] += (uint32_t)behind[i] - leaves[i];
        }
    }
}

void blur_gaussian(uint8_t *pixels, uint8_t *scratch, size_t height, size_t width, float radius)
{
    if (!(radius > 0))
        return;
    struct box box = box_of(radius);
    size_t stride = CHANNELS * width;
    uint32_t sums[stride];
    for (size_t y = 0; y < height; y++) {
        uint8_t *row = pixels + y * stride, *other = scratch + y * stride;
        box_pass(other, row, (ptrdiff_t)width, CHANNELS, sums, &box);
        box_pass(row, other, (ptrdiff_t)width, CHANNELS, sums, &box);
        box_pass(other, row, (ptrdiff_t)width, CHANNELS, sums, &box);
    }
    box_pass(pixels, scratch, (ptrdiff_t)height, stride, sums, &box);
    box_pass(scratch, pixels, (ptrdiff_t)height, stride, sums, &box);
    box_pass(pixels, scratch, (ptrdiff_t)height, stride, sums, &box);
}
