/* Pillow's enhancements; loops that the compiler turns into vector code. */
#include "data_loaders/image/blend.h"

#include <math.h>
#include <string.h>

#include "data_loaders/image/rgb_lanes.h"

enum { CHANNELS = 3, LUMINANCES_OF_A_SUM = 1 << 20 /* of 8 bits each: a lane's 32 hold them */ };

/* Multiplication and addition are rounded one by one, as Pillow's are (-ffp-contract=off is ISO C's default in gcc). */
static inline uint8_t blend(float degenerate, float x, float factor)
{
    float mixed = degenerate + factor * (x - degenerate);
    return (uint8_t)(int32_t)(mixed < 0 ? 0 : mixed > 255 ? 255 : mixed);
}

/* By way of int32, for which there are vector conversions everywhere. */
static inline __attribute__((always_inline)) floats8 floats_of(words8 numbers)
{
    return __builtin_convertvector((integers8)numbers, floats8);
}

void blend_greyscale(uint8_t *pixels, size_t count)
{
    size_t i = 0;
    for (; i + RGB_LANES_READ <= count; i += RGB_LANES) {
        floats8 numbers[CHANNELS];
        spread_rgb8(numbers, floats_of(luminance8(pixels + CHANNELS * i)));
        store_rgb8(pixels + CHANNELS * i, numbers);
    }
    for (i *= CHANNELS; i < CHANNELS * count; i += CHANNELS)
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
    const size_t numbers = CHANNELS * count, step = CHANNELS * RGB_LANES;
    size_t i = 0;
    for (; i + step <= numbers; i += step) {
        floats8 mixed[CHANNELS];
        for (size_t part = 0; part < CHANNELS; part++)
            mixed[part] = degenerate + factor * (floats_of(load_words8(pixels + i + RGB_LANES * part)) - degenerate);
        store_rgb8(pixels + i, mixed);
    }
    for (; i < numbers; i++)
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
    size_t i = 0;
    while (i + RGB_LANES_READ <= count) {
        words8 part = {0};
        size_t end = i + LUMINANCES_OF_A_SUM < count ? i + LUMINANCES_OF_A_SUM : count;
        for (; i + RGB_LANES_READ <= end; i += RGB_LANES)
            part += luminance8(pixels + CHANNELS * i);
        for (int lane = 0; lane < RGB_LANES; lane++)
            sum += part[lane];
    }
    for (i *= CHANNELS; i < CHANNELS * count; i += CHANNELS)
        sum += luminance(pixels[i], pixels[i + 1], pixels[i + 2]);
    float mean = (float)floor((double)sum / (double)count + 0.5);
    blend_with(pixels, count, mean, factor);
}

void blend_colour(uint8_t *pixels, size_t count, float factor)
{
    size_t i = 0;
    for (; i + RGB_LANES_READ <= count; i += RGB_LANES) {
        uint8_t *at = pixels + CHANNELS * i;
        floats8 mixed[CHANNELS];
        spread_rgb8(mixed, floats_of(luminance8(at)));
        for (size_t part = 0; part < CHANNELS; part++)
            mixed[part] += factor * (floats_of(load_words8(at + RGB_LANES * part)) - mixed[part]);
        store_rgb8(at, mixed);
    }
    for (i *= CHANNELS; i < CHANNELS * count; i += CHANNELS) {
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
