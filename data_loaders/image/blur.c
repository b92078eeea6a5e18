/* Box filters by running sums: each output adds what comes in and takes off what goes out. */
#include "data_loaders/image/blur.h"

#include <math.h>
#include <string.h>

#include "data_loaders/image/lanes.h"

enum { CHANNELS = 3, PASSES = 3, STRIP_ROWS = 16 };

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

/* Along an axis of `extent` groups of `width` numbers, one group after the other. */
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
    const uint32_t whole = box->whole, part = box->part;
    for (ptrdiff_t at = 0; at < extent; at++) {
        const uint8_t *before = in + (size_t)inside(at - box->radius - 1, extent) * width;
        const uint8_t *behind = in + (size_t)inside(at + box->radius + 1, extent) * width;
        const uint8_t *leaves = in + (size_t)inside(at - box->radius, extent) * width;
        uint8_t *to = out + (size_t)at * width;
        size_t i = 0;
        for (; i + 8 <= width; i += 8) {
            words8 sum, comes = load_words8(behind + i), edges = load_words8(before + i) + comes;
            memcpy(&sum, sums + i, sizeof sum);
            store_words8(to + i, (sum * whole + edges * part + (1u << 23)) >> 24);
            sum += comes - load_words8(leaves + i);
            memcpy(sums + i, &sum, sizeof sum);
        }
        for (; i < width; i++) {
            uint32_t edges = (uint32_t)before[i] + behind[i];
            to[i] = (uint8_t)((sums[i] * whole + edges * part + (1u << 23)) >> 24);
            sums[i] += (uint32_t)behind[i] - leaves[i];
        }
    }
}

/* strip [width, STRIP_ROWS, 3] = rows of a picture, so that a pass along the rows has whole vectors. */
static void rows_to_strip(uint8_t *restrict strip, const uint8_t *restrict rows, size_t count, size_t width)
{
    for (size_t y = 0; y < count; y++)
        for (size_t x = 0; x < width; x++)
            memcpy(strip + (x * STRIP_ROWS + y) * CHANNELS, rows + (y * width + x) * CHANNELS, CHANNELS);
}

static void strip_to_rows(uint8_t *restrict rows, const uint8_t *restrict strip, size_t count, size_t width)
{
    for (size_t y = 0; y < count; y++)
        for (size_t x = 0; x < width; x++)
            memcpy(rows + (y * width + x) * CHANNELS, strip + (x * STRIP_ROWS + y) * CHANNELS, CHANNELS);
}

static void blur_rows(uint8_t *out, const uint8_t *pixels, size_t height, size_t width, const struct box *box)
{
    enum { ACROSS = STRIP_ROWS * CHANNELS };
    uint32_t sums[ACROSS];
    uint8_t strip[width * ACROSS], other[width * ACROSS];
    memset(strip, 0, sizeof strip);
    for (size_t y = 0; y < height; y += STRIP_ROWS) {
        size_t count = height - y < STRIP_ROWS ? height - y : STRIP_ROWS, at = y * width * CHANNELS;
        rows_to_strip(strip, pixels + at, count, width);
        box_pass(other, strip, (ptrdiff_t)width, ACROSS, sums, box);
        box_pass(strip, other, (ptrdiff_t)width, ACROSS, sums, box);
        box_pass(other, strip, (ptrdiff_t)width, ACROSS, sums, box);
        strip_to_rows(out + at, other, count, width);
    }
}

void blur_gaussian(uint8_t *pixels, uint8_t *scratch, size_t height, size_t width, float radius)
{
    if (!(radius > 0))
        return;
    const struct box box = box_of(radius);
    const size_t stride = CHANNELS * width;
    uint32_t sums[stride];
    blur_rows(scratch, pixels, height, width, &box);
    box_pass(pixels, scratch, (ptrdiff_t)height, stride, sums, &box);
    box_pass(scratch, pixels, (ptrdiff_t)height, stride, sums, &box);
    box_pass(pixels, scratch, (ptrdiff_t)height, stride, sums, &box);
}
