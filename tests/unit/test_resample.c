/* Resizing against a float64 loop that anyone can check by eye. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "tests/unit/noise.h"
#include "tests/unit/resample_reference.h"

/* Rounded twice: to 7 bits behind the point between the passes, then to a byte. */
static void assert_resized(struct resampler *resampler, const struct pixels *source, const struct rectangle *part,
                           size_t size)
{
    const size_t count = size * size * source->channels;
    uint8_t *out = malloc(count + 1);
    memset(out, 77, count + 1);
    assert_true(resample(resampler, out, size, source, part));
    assert_int_equal(out[count], 77);
    for (size_t i = 0; i < count; i++) {
        size_t y = i / source->channels / size, x = i / source->channels % size;
        double expected = resample_reference(source, part, size, y, x, i % source->channels);
        if (!(fabs(out[i] - expected) < 0.6))
            fail_msg("%zu x %zu x %zu, part %g %g %g %g to %zu: [%zu, %zu] is %d, not %.2f", source->height,
                     source->width, source->channels, part->top, part->left, part->height, part->width, size, y, x,
                     out[i], expected);
    }
    free(out);
}

static void resizing_matches_float64(void **state)
{
    (void)state;
    struct resampler *resampler = resampler_open();
    for (uint64_t trial = 0; trial < 60; trial++) {
        size_t height = 1 + dice(1000 + 8 * trial, 60), width = 1 + dice(1001 + 8 * trial, 60);
        size_t channels = dice(1002 + 8 * trial, 2) ? 3 : 1, size = 1 + dice(1003 + 8 * trial, 32);
        double top = 0.5 * dice(1004 + 8 * trial, (uint32_t)height);
        double left = 0.5 * dice(1005 + 8 * trial, (uint32_t)width);
        struct rectangle part = {top, left, (double)height - top, (double)width - left};
        uint8_t *bytes = noise(height * width * channels, trial);
        struct pixels source = {bytes, height, width, channels, width * channels};
        assert_resized(resampler, &source, &part, size);
        free(bytes);
    }
    resampler_close(resampler);
}

/* Away from all four edges, where pixels beside the part count too, out of rows that lie further apart than they are
 * long. */
static void inner_parts_look_beyond_their_edges(void **state)
{
    (void)state;
    struct resampler *resampler = resampler_open();
    for (uint64_t trial = 0; trial < 60; trial++) {
        size_t height = 40 + dice(5000 + 8 * trial, 40), width = 40 + dice(5001 + 8 * trial, 40);
        size_t channels = dice(5002 + 8 * trial, 2) ? 3 : 1, size = 1 + dice(5003 + 8 * trial, 24);
        size_t stride = (width + dice(5006 + 8 * trial, 9)) * channels;
        struct rectangle part = {6 + 0.25 * dice(5004 + 8 * trial, 24), 6 + 0.25 * dice(5005 + 8 * trial, 24), 0, 0};
        part.height = 1 + 0.5 * dice(5007 + 8 * trial, (uint32_t)(2 * (height - 6 - (size_t)part.top - 2)));
        part.width = 1 + 0.5 * dice(5107 + 8 * trial, (uint32_t)(2 * (width - 6 - (size_t)part.left - 2)));
        uint8_t *bytes = noise(height * stride, trial);
        struct pixels source = {bytes, height, width, channels, stride};
        assert_resized(resampler, &source, &part, size);
        free(bytes);
    }
    resampler_close(resampler);
}

/* 2, 3, 4 and more pixels under the triangle of an output pixel have code of their own, and so have 8 and 9. */
static void every_reduction_matches_float64(void **state)
{
    (void)state;
    enum { SIZE = 13 };
    const double reductions[] = {0.3, 0.99, 1, 1.01, 1.5, 1.51, 2, 2.01, 3, 4, 4.01, 5, 7.3};
    struct resampler *resampler = resampler_open();
    for (size_t i = 0; i < sizeof reductions / sizeof *reductions; i++)
        for (size_t channels = 1; channels <= 3; channels += 2) {
            uint8_t *bytes = noise(100 * 98 * channels, i);
            struct pixels source = {bytes, 100, 98, channels, 98 * channels};
            double extent = SIZE * reductions[i];
            assert_resized(resampler, &source, &(struct rectangle){1.5, 2, extent, extent}, SIZE);
            assert_resized(resampler, &source, &(struct rectangle){1.5, 2, extent, 20}, SIZE);
            assert_resized(resampler, &source, &(struct rectangle){3, 2.5, 20, extent}, SIZE);
            free(bytes);
        }
    resampler_close(resampler);
}

static void a_flat_picture_stays_flat(void **state)
{
    (void)state;
    struct resampler *resampler = resampler_open();
    uint8_t bytes[50 * 70 * 3 + PIXELS_SLACK_BYTES], out[32 * 32 * 3];
    for (int value = 0; value <= 255; value += 51) {
        memset(bytes, value, sizeof bytes);
        struct pixels source = {bytes, 50, 70, 3, 210};
        for (double extent = 10.3; extent < 50; extent += 3.1) {
            assert_true(resample(resampler, out, 32, &source, &(struct rectangle){0.3, 1.7, extent, extent + 18.2}));
            for (size_t i = 0; i < sizeof out; i++)
                assert_int_equal(out[i], value);
        }
        /* So many pixels under one triangle that most of its weights round to nothing. */
        uint8_t *strip = malloc(40000 + PIXELS_SLACK_BYTES);
        memset(strip, value, 40000 + PIXELS_SLACK_BYTES);
        assert_true(
            resample(resampler, out, 1, &(struct pixels){strip, 40000, 1, 1, 1}, &(struct rectangle){0, 0, 40000, 1}));
        assert_int_equal(out[0], value);
        assert_true(resample(resampler, out, 1, &(struct pixels){strip, 1, 40000, 1, 40000},
                             &(struct rectangle){0, 0, 1, 40000}));
        assert_int_equal(out[0], value);
        free(strip);
    }
    resampler_close(resampler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resizing_matches_float64),
        cmocka_unit_test(inner_parts_look_beyond_their_edges),
        cmocka_unit_test(every_reduction_matches_float64),
        cmocka_unit_test(a_flat_picture_stays_flat),
    };
    return cmocka_run_group_tests_name("resample", tests, NULL, NULL);
}
