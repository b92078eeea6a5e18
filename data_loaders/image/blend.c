/* Pillow's enhancements; loops that the compiler turns into vector code. */
#include "data_loaders/image/blend.h"

#include <math.h>
#include <string.h>

#include "data_loaders/image/lanes.h"

enum { CHANNELS = 3 };

/* Multiplication and addition are rounded one by one, as Pillow's are (-ffp-contract=off is ISO C's default in gcc). */
static inline uint8_t blend(float degenerate, float x, float factor)
{
    float mixed = degenerate + factor * (x - degenerate);
    return (uint8_t)(int32_t)(mixed < 0 ? 0 : mixed > 255 ? 255 : mixed);
}

void blend_greyscale(uint8_t *pixels, size_t count)
{
    for (size_t i = 0; i < CHANNELS * count; i += CHANNELS)
        pixels[i] = pixels[i + 1] = pixels[i + 2] = luminance(pixels[i], pixels[i + 1], pixels[i + 2]);
}

/* All numbers with one. */
static void blend_with(uint8_t *pixels, size_t count, float degenerate, float factor)
{
#ifdef __AVX512VBMI__
    uint8_t table[256];
    for (int level = 0; level < 256; level++)
        table[level] = blend(degenerate, (float)level, factor);
    look_up_bytes(pixels, CHANNELS * count, table);
#else
    for (size_t i = 0; i < CHANNELS * count; i++)
        pixels[i] = blend(degenerate, pixels[i], factor);
#endif
}

void blend_brightness(uint8_t *pixels, size_t count, float factor)
{
    blend_with(pixels, count, 0, factor);
}

void blend_contrast(uint8_t *pixels, size_t count, float factor)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < CHANNELS * count; i += CHANNELS)
        sum += luminance(pixels[i], pixels[i + 1], pixels[i + 2]);
    float mean = (float)floor((double)sum / (double)count + 0.5);
    blend_with(pixels, count, mean, factor);
}

void blend_colour(uint8_t *pixels, size_t count, float factor)
{
    for (size_t i = 0; i < CHANNELS * count; i += CHANNELS) {
        float grey = luminance(pixels[i], pixels[i + 1], pixels[i + 2]);
        for (size_t c = 0; c < CHANNELS; c++)
            pixels[i + c] = blend(grey, pixels[i + c], factor);
    }
}

/* An inner row; `middle` is the picture's row, already copied, as are its neighbours. */
static void sharpen_row(uint8_t *restrict out, const uint8_t *restrict middle, size_t stride, float factor)
{
    const uint8_t *restrict above = middle - stride, *restrict below = middle + stride;
    for (size_t i = CHANNELS; i < stride - CHANNELS; i++) {
        int sum = above[i - CHANNELS] + above[i] + above[i + CHANNELS] + middle[i - CHANNELS] + 5 * middle[i] +
                  middle[i + CHANNELS] + below[i - CHANNELS] + below[i] + below[i + CHANNELS];
        /* sum / 13 rounded to nearest: 13 is odd, so there are no ties. */
        out[i] = blend((float)((sum + 6) / 13), middle[i], factor);
    }
}

void blend_sharpness(uint8_t *pixels, uint8_t *scratch, size_t height, size_t width, float factor)
{
    size_t stride = CHANNELS * width;
    if (height < 3 || width < 3)
        return;
    memcpy(scratch, pixels, height * stride);
    for (size_t y = 1; y + 1 < height; y++)
        sharpen_row(pixels + y * stride, scratch + y * stride, stride, factor);
}
