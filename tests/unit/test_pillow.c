/* Blends, blur and resizing against plain loops in Pillow's arithmetic: sizes that no vector fits, filters of any
 * reach. That the arithmetic is Pillow's the suite fixtures/recipes shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data_loaders/image/blend.h"
#include "data_loaders/image/blur.h"
#include "data_loaders/image/resize.h"
#include "tests/unit/noise.h"

enum { GUARD = 77 };

/* Dense noise with what the functions may read or write behind it. */
static uint8_t *picture(size_t height, size_t width, size_t channels, uint64_t seed)
{
    size_t bytes = height * width * channels;
    uint8_t *pixels = noise(bytes, seed);
    memset(pixels + bytes, GUARD, PIXELS_SLACK_BYTES);
    return pixels;
}

static int blended(float degenerate, int x, float factor)
{
    float mixed = degenerate + factor * ((float)x - degenerate);
    return mixed < 0 ? 0 : mixed > 255 ? 255 : (int)mixed;
}

static void blends_match_a_loop(void **state)
{
    (void)state;
    for (size_t count = 1; count < 70; count++) {
        float factor = 0.01f * (float)dice(count, 200);
        uint64_t sum = 0;
        uint8_t *before = picture(1, count, 3, count), *after[4];
        for (size_t i = 0; i < count; i++)
            sum += luminance(before[3 * i], before[3 * i + 1], before[3 * i + 2]);
        const float mean = (float)floor((double)sum / (double)count + 0.5);
        for (int op = 0; op < 4; op++)
            after[op] = picture(1, count, 3, count);
        blend_greyscale(after[0], count);
        blend_brightness(after[1], count, factor);
        blend_contrast(after[2], count, factor);
        blend_colour(after[3], count, factor);
        for (size_t i = 0; i < 3 * count; i++) {
            const uint8_t *pixel = before + i / 3 * 3;
            float grey = luminance(pixel[0], pixel[1], pixel[2]);
            assert_int_equal(after[0][i], (int)grey);
            assert_int_equal(after[1][i], blended(0, before[i], factor));
            assert_int_equal(after[2][i], blended(mean, before[i], factor));
            assert_int_equal(after[3][i], blended(grey, before[i], factor));
        }
        for (int op = 0; op < 4; op++) {
            assert_int_equal(after[op][3 * count], GUARD);
            free(after[op]);
        }
        free(before);
    }
}

/* One box pass over `count` groups of numbers, `step` apart. */
static void box_loop(uint8_t *line, ptrdiff_t count, size_t step, float sigma)
{
    float variance = sigma * sigma / 3, low = (float)floor((sqrt(12.0 * (double)variance + 1.0) - 1) / 2);
    float radius = low + (2 * low + 1) * (low * (low + 1) - 3 * variance) / (6 * (variance - (low + 1) * (low + 1)));
    const ptrdiff_t whole_radius = (ptrdiff_t)radius;
    const uint64_t whole = (uint64_t)((float)(1 << 24) / (radius * 2 + 1));
    const uint64_t part = ((1u << 24) - (uint64_t)(2 * whole_radius + 1) * whole) / 2;
    uint8_t before[count];
    for (ptrdiff_t i = 0; i < count; i++)
        before[i] = line[(size_t)i * step];
    for (ptrdiff_t i = 0; i < count; i++) {
        uint64_t sum = 1u << 23;
        for (ptrdiff_t k = -whole_radius - 1; k <= whole_radius + 1; k++) {
            ptrdiff_t at = i + k < 0 ? 0 : i + k >= count ? count - 1 : i + k;
            sum += before[at] * (k < -whole_radius || k > whole_radius ? part : whole);
        }
        line[(size_t)i * step] = (uint8_t)(sum >> 24);
    }
}

static void blur_matches_a_loop(void **state)
{
    (void)state;
    const float radii[] = {0.1f, 0.7f, 1.3f, 1.5f, 2, 3.3f, 9, 70};
    for (uint64_t trial = 0; trial < 64; trial++) {
        const float radius = radii[trial % (sizeof radii / sizeof *radii)];
        size_t height = 1 + dice(2 * trial, 40), width = 1 + dice(2 * trial + 1, 40), stride = 3 * width;
        uint8_t *expected = picture(height, width, 3, trial), *blurred = picture(height, width, 3, trial);
        uint8_t *scratch = malloc(height * stride);
        for (int pass = 0; pass < 3; pass++)
            for (size_t i = 0; i < 3 * height; i++)
                box_loop(expected + i / 3 * stride + i % 3, (ptrdiff_t)width, 3, radius);
        for (int pass = 0; pass < 3; pass++)
            for (size_t i = 0; i < stride; i++)
                box_loop(expected + i, (ptrdiff_t)height, stride, radius);
        blur_gaussian(blurred, scratch, height, width, radius);
        assert_memory_equal(blurred, expected, height * stride + 1);
        free(expected);
        free(blurred);
        free(scratch);
    }
}

static double bicubic(double x)
{
    x = fabs(x);
    return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

/* `count` numbers, `step` apart, of which those from `start` on are resized to `size` numbers, `to_step` apart. */
static void resize_loop(uint8_t *to, size_t to_step, size_t size, const uint8_t *from, size_t step, size_t count,
                        double start)
{
    double scale = ((double)count - start) / (double)size, wide = scale > 1 ? scale : 1;
    for (size_t i = 0; i < size; i++) {
        double centre = start + ((double)i + 0.5) * scale, total = 0;
        long first = (long)(centre - 2 * wide + 0.5), end = (long)(centre + 2 * wide + 0.5);
        first = first < 0 ? 0 : first;
        end = end > (long)count ? (long)count : end;
        for (long at = first; at < end; at++)
            total += bicubic(((double)at - centre + 0.5) * (1 / wide));
        int64_t sum = 1 << 21;
        for (long at = first; at < end; at++) {
            double weight = bicubic(((double)at - centre + 0.5) * (1 / wide)) / total * (1 << 22);
            sum += (int64_t)(weight < 0 ? weight - 0.5 : weight + 0.5) * from[(size_t)at * step];
        }
        sum >>= 22;
        to[i * to_step] = (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
    }
}

static void assert_resized(struct resizer *resizer, size_t height, size_t width, size_t size, size_t channels,
                           double start)
{
    uint8_t *source = picture(height, width, channels, height + width), *out = picture(size, size, channels, 1);
    uint8_t *rows = malloc(height * size * channels), *expected = malloc(size * size * channels);
    struct pixels pixels = {source, height, width, channels, width * channels};
    struct resize_window window = resize_window_whole(size, size);
    if (start > 0)
        window.part = (struct rectangle){start, start, (double)height - start, (double)width - start};
    for (size_t i = 0; i < height * channels; i++) {
        size_t y = i / channels, c = i % channels;
        const uint8_t *from = source + y * width * channels + c;
        if (width == size && start == 0)
            memcpy(rows + y * size * channels, source + y * width * channels, width * channels);
        else
            resize_loop(rows + y * size * channels + c, channels, size, from, channels, width, start);
    }
    for (size_t i = 0; i < size * channels; i++)
        if (height == size && start == 0)
            memcpy(expected, rows, size * size * channels);
        else
            resize_loop(expected + i, size * channels, size, rows + i, size * channels, height, start);
    assert_true(resize(resizer, out, &window, &pixels, RESIZE_BICUBIC));
    assert_memory_equal(out, expected, size * size * channels);
    free(source);
    free(out);
    free(rows);
    free(expected);
}

/* From a twentieth to twenty times the size: few taps and many, in reach of a shuffle and beyond. */
static void resizing_matches_a_loop(void **state)
{
    (void)state;
    struct resizer *resizer = resizer_open();
    for (uint64_t trial = 0; trial < 150; trial++) {
        size_t size = 1 + dice(9 * trial, 50), most = trial % 3 ? 3 * size : 20 * size;
        size_t height = 1 + dice(9 * trial + 1, (uint32_t)most), width = 1 + dice(9 * trial + 2, (uint32_t)most);
        assert_resized(resizer, height, width, size, trial % 5 ? 3 : 1, trial % 4 ? 0 : 0.375);
    }
    resizer_close(resizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blends_match_a_loop),
        cmocka_unit_test(blur_matches_a_loop),
        cmocka_unit_test(resizing_matches_a_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
