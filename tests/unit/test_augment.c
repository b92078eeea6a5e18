/* Augmentation, resizing and patch cutting against loops that anyone can check by eye. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data_loaders/augment.h"
#include "data_loaders/patches.h"
#include "data_loaders/resample.h"
#include "src/random.h"

static uint32_t dice(uint64_t item, uint32_t below)
{
    return random_below(random_draw(99, RANDOM_SYNTHETIC, item, 0).word[0], below);
}

static uint8_t *noise(size_t bytes, uint64_t seed)
{
    uint8_t *values = malloc(bytes + PIXELS_SLACK_BYTES);
    for (size_t i = 0; i < bytes + PIXELS_SLACK_BYTES; i++)
        values[i] = (uint8_t)random_draw(seed, RANDOM_SYNTHETIC, i, 1).word[0];
    return values;
}

/* The pixel that the picture should have at (y, x). */
static uint8_t expected_pixel(const struct pixels *source, size_t size, ptrdiff_t y, ptrdiff_t x, size_t c,
                              ptrdiff_t shift_y, ptrdiff_t shift_x, bool flip)
{
    ptrdiff_t from_y = y + shift_y, from_x = (flip ? (ptrdiff_t)size - 1 - x : x) + shift_x;
    if (from_y < 0 || from_x < 0 || from_y >= (ptrdiff_t)source->height || from_x >= (ptrdiff_t)source->width)
        return 0;
    return source->bytes[(size_t)from_y * source->stride + (size_t)from_x * source->channels + c];
}

static void patches_match_a_plain_loop(void **state)
{
    (void)state;
    const size_t patch_sizes[] = {1, 2, 4, 7, 8, 14, 16};
    for (uint64_t trial = 0; trial < 300; trial++) {
        size_t patch = patch_sizes[dice(8 * trial, 7)], size = patch * (1 + dice(8 * trial + 1, 4));
        size_t channels = dice(8 * trial + 2, 2) ? 3 : 1, margin = dice(8 * trial + 3, 9);
        bool flip = dice(8 * trial + 4, 2);
        uint32_t places = (uint32_t)size / 2 + 2;
        ptrdiff_t shift_y = (ptrdiff_t)dice(8 * trial + 5, 2 * places) - (ptrdiff_t)places;
        ptrdiff_t shift_x = (ptrdiff_t)dice(8 * trial + 6, 2 * places) - (ptrdiff_t)places;
        size_t stride = (size + margin) * channels;
        uint8_t *bytes = noise(size * stride, trial);
        struct pixels source = {bytes, size, size, channels, stride};
        size_t count = size * size * channels, offset = trial % 20; /* from any alignment */
        uint8_t *memory = malloc(offset + count + 1), *out = memory + offset;
        uint8_t *scratch = malloc(patches_scratch_bytes(size, patch, channels));
        memset(memory, 77, offset + count + 1);
        patches_cut(out, &source, size, patch, shift_y, shift_x, flip, scratch);
        assert_int_equal(out[count], 77);
        assert_true(offset == 0 || out[-1] == 77);
        const uint8_t *next = out;
        for (size_t p = 0; p < (size / patch) * (size / patch); p++)
            for (size_t i = 0; i < patch * patch * channels; i++) {
                size_t y = p / (size / patch) * patch + i / channels / patch;
                size_t x = p % (size / patch) * patch + i / channels % patch;
                assert_int_equal(*next++, expected_pixel(&source, size, (ptrdiff_t)y, (ptrdiff_t)x, i % channels,
                                                         shift_y, shift_x, flip));
            }
        free(bytes);
        free(memory);
        free(scratch);
    }
}

/* Weighted mean under a triangle as wide as the reduction, in float64. */
static double reference(const struct pixels *source, const struct rectangle *part, size_t size, size_t out_y,
                        size_t out_x, size_t c)
{
    double step_y = part->height / (double)size, step_x = part->width / (double)size;
    double centre_y = part->top + ((double)out_y + 0.5) * step_y,
           centre_x = part->left + ((double)out_x + 0.5) * step_x;
    double scale_y = fmax(step_y, 1), scale_x = fmax(step_x, 1), sum = 0, weights = 0;
    for (size_t y = 0; y < source->height; y++)
        for (size_t x = 0; x < source->width; x++) {
            double weight = fmax(0, 1 - fabs((double)y + 0.5 - centre_y) / scale_y) *
                            fmax(0, 1 - fabs((double)x + 0.5 - centre_x) / scale_x);
            sum += weight * source->bytes[y * source->stride + x * source->channels + c];
            weights += weight;
        }
    return sum / weights;
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
        uint8_t *bytes = noise(height * width * channels, trial), *out = malloc(size * size * channels);
        struct pixels source = {bytes, height, width, channels, width * channels};
        assert_true(resample(resampler, out, size, &source, &part));
        for (size_t i = 0; i < size * size * channels; i++) {
            size_t y = i / channels / size, x = i / channels % size;
            assert_true(fabs(out[i] - reference(&source, &part, size, y, x, i % channels)) < 0.6);
        }
        free(bytes);
        free(out);
    }
    resampler_close(resampler);
}

static void a_flat_picture_stays_flat(void **state)
{
    (void)state;
    struct resampler *resampler = resampler_open();
    uint8_t bytes[50 * 70 * 3 + PIXELS_SLACK_BYTES], out[32 * 32 * 3];
    memset(bytes, 201, sizeof bytes);
    struct pixels source = {bytes, 50, 70, 3, 210};
    assert_true(resample(resampler, out, 32, &source, &(struct rectangle){3.3, 1.7, 41.9, 60.1}));
    for (size_t i = 0; i < sizeof out; i++)
        assert_int_equal(out[i], 201);
    resampler_close(resampler);
}

static void crops_stay_inside_and_keep_their_range(void **state)
{
    (void)state;
    struct augment augment = {.flip = true, .random_resized_crop = true, .crop_scale_min = 0.2, .crop_scale_max = 0.9};
    size_t flips = 0;
    double smallest = 1, largest = 0;
    for (uint64_t p = 0; p < 4000; p++) {
        struct view view = view_augmented(&augment, 5, p, 120, 200);
        double area = view.part.height * view.part.width / (120.0 * 200.0);
        assert_true(view.part.top >= 0 && view.part.top + view.part.height <= 120);
        assert_true(view.part.left >= 0 && view.part.left + view.part.width <= 200);
        assert_true(view.part.width / view.part.height < 4.0 / 3.0 * 1.05);
        assert_true(view.part.height / view.part.width < 4.0 / 3.0 * 1.05);
        assert_int_equal(view.shift_y, 0);
        smallest = fmin(smallest, area);
        largest = fmax(largest, area);
        flips += view.flip;
    }
    assert_true(smallest > 0.19 && smallest < 0.25 && largest < 0.91 && largest > 0.6);
    assert_in_range(flips, 1850, 2150);
}

static void padded_crops_reach_every_shift(void **state)
{
    (void)state;
    struct augment augment = {.crop_padding = 4};
    size_t seen[9][9] = {{0}};
    for (uint64_t p = 0; p < 8100; p++) {
        struct view view = view_augmented(&augment, 5, p, 32, 32);
        assert_in_range(view.shift_y + 4, 0, 8);
        assert_in_range(view.shift_x + 4, 0, 8);
        assert_false(view.flip);
        seen[view.shift_y + 4][view.shift_x + 4]++;
    }
    for (size_t i = 0; i < 81; i++)
        assert_in_range(seen[i / 9][i % 9], 50, 150); /* 100 expected */
}

static void a_view_depends_on_seed_and_position_alone(void **state)
{
    (void)state;
    struct augment augment = {.flip = true, .crop_padding = 4};
    struct view a = view_augmented(&augment, 5, 77, 32, 32), b = view_augmented(&augment, 5, 77, 32, 32);
    assert_memory_equal(&a.part, &b.part, sizeof a.part);
    assert_true(a.shift_y == b.shift_y && a.shift_x == b.shift_x && a.flip == b.flip);
    size_t same = 0;
    for (uint64_t p = 0; p < 1000; p++) {
        a = view_augmented(&augment, 5, p, 32, 32);
        b = view_augmented(&augment, 6, p, 32, 32);
        same += a.shift_y == b.shift_y && a.shift_x == b.shift_x && a.flip == b.flip;
    }
    assert_in_range(same, 0, 25); /* 1 in 162 by chance */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patches_match_a_plain_loop),     cmocka_unit_test(resizing_matches_float64),
        cmocka_unit_test(a_flat_picture_stays_flat),      cmocka_unit_test(crops_stay_inside_and_keep_their_range),
        cmocka_unit_test(padded_crops_reach_every_shift), cmocka_unit_test(a_view_depends_on_seed_and_position_alone),
    };
    return cmocka_run_group_tests_name("augment", tests, NULL, NULL);
}
