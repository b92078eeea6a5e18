/* Augmentation and patch cutting against loops that anyone can check by eye. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data_loaders/load/augment.h"
#include "data_loaders/load/patches.h"
#include "tests/unit/noise.h"

/* The pixel that the picture should have at (y, x). */
static uint8_t expected_pixel(const struct pixels *source, size_t size, ptrdiff_t y, ptrdiff_t x, size_t c,
                              const struct view *view)
{
    ptrdiff_t from_y = y + view->shift_y, from_x = (view->flip ? (ptrdiff_t)size - 1 - x : x) + view->shift_x;
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
        uint32_t places = (uint32_t)size / 2 + 2;
        struct view view = {.shift_y = (ptrdiff_t)dice(8 * trial + 5, 2 * places) - (ptrdiff_t)places,
                            .shift_x = (ptrdiff_t)dice(8 * trial + 6, 2 * places) - (ptrdiff_t)places,
                            .flip = dice(8 * trial + 4, 2)};
        size_t stride = (size + margin) * channels;
        uint8_t *bytes = noise(size * stride, trial);
        struct pixels source = {bytes, size, size, channels, stride};
        size_t count = size * size * channels, offset = trial % 20; /* from any alignment */
        uint8_t *memory = malloc(offset + count + 1), *out = memory + offset;
        uint8_t *scratch = malloc(patches_scratch_bytes(size, patch, channels));
        memset(memory, 77, offset + count + 1);
        patches_cut(out, &source, size, patch, &view, scratch);
        assert_int_equal(out[count], 77);
        assert_true(offset == 0 || out[-1] == 77);
        const uint8_t *next = out;
        for (size_t p = 0; p < (size / patch) * (size / patch); p++)
            for (size_t i = 0; i < patch * patch * channels; i++) {
                size_t y = p / (size / patch) * patch + i / channels / patch;
                size_t x = p % (size / patch) * patch + i / channels % patch;
                assert_int_equal(*next++,
                                 expected_pixel(&source, size, (ptrdiff_t)y, (ptrdiff_t)x, i % channels, &view));
            }
        free(bytes);
        free(memory);
        free(scratch);
    }
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

static void assert_part(const struct rectangle *part, double top, double left, double height, double width)
{
    if (part->top != top || part->left != left || part->height != height || part->width != width)
        fail_msg("{%g, %g, %g, %g}, not {%g, %g, %g, %g}", part->top, part->left, part->height, part->width, top, left,
                 height, width);
}

static void the_centre_is_the_largest_square(void **state)
{
    (void)state;
    const struct {
        size_t height, width;
        double top, left, side;
    } cases[] = {{40, 50, 0, 5, 40}, {50, 40, 5, 0, 40}, {40, 40, 0, 0, 40}, {41, 50, 0, 4, 41}, {50, 41, 4, 0, 41},
                 {1, 9, 0, 4, 1},    {9, 1, 4, 0, 1},    {39, 40, 0, 0, 39}, {40, 39, 0, 0, 39}};
    const struct augment none = {.flip = false};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct view view = view_centred(cases[i].height, cases[i].width);
        assert_part(&view.part, cases[i].top, cases[i].left, cases[i].side, cases[i].side);
        assert_true(view.shift_y == 0 && view.shift_x == 0 && !view.flip);
        view = view_augmented(&none, 5, i, cases[i].height, cases[i].width);
        assert_part(&view.part, cases[i].top, cases[i].left, cases[i].side, cases[i].side);
        assert_true(view.shift_y == 0 && view.shift_x == 0 && !view.flip);
    }
}

/* Worked out by this code in 2026: another draw would make a resumed run see other pictures. */
static void views_are_those_of_earlier_versions(void **state)
{
    (void)state;
    const struct {
        struct rectangle part;
        bool flip;
    } crops[] = {{{51, 294, 100, 106}, true},
                 {{26, 21, 267, 222}, false},
                 {{19, 58, 267, 271}, true},
                 {{6, 8, 269, 248}, true},
                 {{99, 180, 109, 104}, false}};
    const struct {
        ptrdiff_t y, x;
        bool flip;
    } shifts[] = {{0, 3, true}, {3, -3, false}, {-2, 0, true}, {-1, -1, true}, {2, 3, false}};
    const struct augment crop = {
        .flip = true, .random_resized_crop = true, .crop_scale_min = 0.08, .crop_scale_max = 1};
    const struct augment shift = {.flip = true, .crop_padding = 4};
    for (size_t i = 0; i < sizeof crops / sizeof *crops; i++) {
        struct view view = view_augmented(&crop, 1, i << 33 | i, 300, 400);
        const struct rectangle *part = &crops[i].part;
        assert_part(&view.part, part->top, part->left, part->height, part->width);
        assert_int_equal(view.flip, crops[i].flip);
        view = view_augmented(&shift, 1, i << 33 | i, 32, 32);
        assert_part(&view.part, 0, 0, 32, 32);
        assert_true(view.shift_y == shifts[i].y && view.shift_x == shifts[i].x);
        assert_int_equal(view.flip, shifts[i].flip);
    }
}

/* Crops of either shape, from one edge to the other. */
static void crops_reach_every_edge_and_shape(void **state)
{
    (void)state;
    const struct augment augment = {.random_resized_crop = true, .crop_scale_min = 0.2, .crop_scale_max = 0.5};
    size_t wide = 0, upper = 0, left = 0, touched[4] = {0};
    double narrowest = 2, widest = 0, area = 0;
    enum { DRAWS = 20000 };
    for (uint64_t p = 0; p < DRAWS; p++) {
        struct rectangle part = view_augmented(&augment, 5, p, 60, 60).part;
        narrowest = fmin(narrowest, part.width / part.height);
        widest = fmax(widest, part.width / part.height);
        area += part.height * part.width / 3600 / DRAWS;
        wide += part.width > part.height;
        upper += 2 * part.top + part.height < 60;
        left += 2 * part.left + part.width < 60;
        touched[0] += part.top == 0;
        touched[1] += part.left == 0;
        touched[2] += part.top + part.height == 60;
        touched[3] += part.left + part.width == 60;
        assert_true(part.top >= 0 && part.top + part.height <= 60 && part.left >= 0 && part.left + part.width <= 60);
    }
    assert_true(narrowest < 0.76 && narrowest > 0.72 && widest > 1.32 && widest < 1.38);
    assert_true(area > 0.34 && area < 0.36);
    assert_in_range(wide, 0.45 * DRAWS, 0.51 * DRAWS);
    assert_in_range(upper, 0.46 * DRAWS, 0.5 * DRAWS);
    assert_in_range(left, 0.46 * DRAWS, 0.5 * DRAWS);
    for (size_t i = 0; i < 4; i++) /* about one place of 26 */
        assert_in_range(touched[i], 0.034 * DRAWS, 0.046 * DRAWS);
}

/* Ten tries: of crops nearly as large as a picture of 7 : 5 each fits with a probability of 0.035. The centre is cut to
 * 4 : 3 or 3 : 4. */
static void crops_that_do_not_fit_are_centred(void **state)
{
    (void)state;
    const struct augment augment = {
        .flip = true, .random_resized_crop = true, .crop_scale_min = 0.9, .crop_scale_max = 1};
    size_t centred = 0;
    for (uint64_t p = 0; p < 10000; p++) {
        struct rectangle part = view_augmented(&augment, 5, p, 100, 140).part;
        centred += part.height == 100 && part.width == 133 && part.left == 3;
        struct view view = view_augmented(&augment, 5, p, 300, 10);
        assert_part(&view.part, 143, 0, 13, 10);
    }
    assert_in_range(centred, 6920, 7120); /* 9 tries: 7270, 11: 6770 */
}

static void crops_may_fill_the_picture_but_not_vanish(void **state)
{
    (void)state;
    const struct augment most = {.random_resized_crop = true, .crop_scale_min = 0.9, .crop_scale_max = 1};
    const struct augment least = {.random_resized_crop = true, .crop_scale_min = 0.01, .crop_scale_max = 0.2};
    size_t full_height = 0, full_width = 0;
    for (uint64_t p = 0; p < 2000; p++) {
        struct rectangle wide = view_augmented(&most, 5, p, 100, 125).part;
        struct rectangle high = view_augmented(&most, 5, p, 125, 100).part;
        full_height += wide.height == 100 && wide.width > 100;
        full_width += high.width == 100 && high.height > 100;
        struct rectangle part = view_augmented(&least, 5, p, 3, 2).part;
        assert_true(part.height >= 1 && part.width >= 1);
    }
    assert_true(full_height > 100 && full_width > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patches_match_a_plain_loop),
        cmocka_unit_test(the_centre_is_the_largest_square),
        cmocka_unit_test(views_are_those_of_earlier_versions),
        cmocka_unit_test(crops_stay_inside_and_keep_their_range),
        cmocka_unit_test(crops_reach_every_edge_and_shape),
        cmocka_unit_test(crops_that_do_not_fit_are_centred),
        cmocka_unit_test(crops_may_fill_the_picture_but_not_vanish),
        cmocka_unit_test(padded_crops_reach_every_shift),
        cmocka_unit_test(a_view_depends_on_seed_and_position_alone),
    };
    return cmocka_run_group_tests_name("augment", tests, NULL, NULL);
}
