/* The sampler: a fresh permutation every epoch, whatever the number of images. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "data_loaders/load/sampler.h"

static void every_epoch_visits_every_image_once(void **state)
{
    (void)state;
    const uint64_t sizes[] = {1, 2, 3, 5, 8, 9, 100, 1023, 1025, 4096, 50000};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        struct sampler sampler = {sizes[s], 7 + s, true, 1, 0};
        for (uint64_t epoch = 0; epoch < 3; epoch++) {
            unsigned char *seen = calloc(sizes[s], 1);
            for (uint64_t i = 0; i < sizes[s]; i++) {
                uint64_t image = sampler_image(&sampler, epoch * sizes[s] + i);
                assert_true(image < sizes[s]);
                assert_int_equal(seen[image]++, 0);
            }
            free(seen);
        }
    }
}

static size_t agreements(const struct sampler *a, uint64_t a_epoch, const struct sampler *b, uint64_t b_epoch)
{
    size_t same = 0;
    for (uint64_t i = 0; i < a->images; i++)
        same += sampler_image(a, a_epoch * a->images + i) == sampler_image(b, b_epoch * b->images + i);
    return same;
}

static void epochs_and_seeds_give_other_orders(void **state)
{
    (void)state;
    struct sampler first = {1000, 1, true, 1, 0}, second = {1000, 2, true, 1, 0}, plain = {1000, 1, false, 1, 0};
    assert_int_equal(agreements(&first, 3, &first, 3), 1000);
    /* Two random orders agree in one place on average. */
    assert_in_range(agreements(&first, 0, &first, 1), 0, 8);
    assert_in_range(agreements(&first, 0, &second, 0), 0, 8);
    assert_in_range(agreements(&first, 0, &plain, 0), 0, 8);
}

static void without_shuffle_the_order_is_the_file_s(void **state)
{
    (void)state;
    struct sampler sampler = {6, 1, false, 1, 0};
    for (uint64_t p = 0; p < 20; p++)
        assert_int_equal(sampler_image(&sampler, p), p % 6);
}

/* Each image should be as likely in each place: 16 images, 4096 epochs, 256 cells with 256 expected in each. Chi-square
 * with 225 degrees of freedom lies under 300 in all but 0.06 % of draws; the seed is fixed. */
static void check_places(uint64_t window)
{
    enum { IMAGES = 16, EPOCHS = 4096 };
    double counts[IMAGES][IMAGES] = {{0}}, expected = (double)EPOCHS / IMAGES, chi_square = 0;
    struct sampler sampler = {IMAGES, 0, true, 1, window};
    for (uint64_t p = 0; p < (uint64_t)IMAGES * EPOCHS; p++)
        counts[p % IMAGES][sampler_image(&sampler, p)]++;
    for (size_t i = 0; i < IMAGES; i++)
        for (size_t j = 0; j < IMAGES; j++)
            chi_square += (counts[i][j] - expected) * (counts[i][j] - expected) / expected;
    assert_true(chi_square < 300);
}

static void places_are_equally_likely(void **state)
{
    (void)state;
    check_places(0);
}

/* Worked out by this code in 2026: in another order a resumed run would see some images twice and others not at all. */
static void orders_are_those_of_earlier_versions(void **state)
{
    (void)state;
    const uint64_t start[] = {375, 739, 990, 516, 76, 178, 141, 648, 544, 423};
    const uint64_t across[] = {663, 947, 135, 756, 123, 568, 133, 339, 635, 955}; /* the end of the first epoch */
    const uint64_t late[] = {1194693, 888947, 492110, 1162715, 1046556, 1262209, 448717, 209923, 1224071, 1192971};
    const uint64_t power[] = {375, 739, 990, 516, 76, 178, 141, 648, 544, 423};
    struct sampler small = {1000, 1, true, 1, 0}, imagenet = {1281167, 42, true, 1, 0}, exact = {1024, 1, true, 1, 0};
    for (uint64_t i = 0; i < 10; i++) {
        assert_int_equal(sampler_image(&small, i), start[i]);
        assert_int_equal(sampler_image(&small, 995 + i), across[i]);
        assert_int_equal(sampler_image(&exact, i), power[i]);
        assert_int_equal(sampler_image(&imagenet, 300 * imagenet.images + i), late[i]);
    }
}

/* DeiT's sampler: a permutation whose every image comes three times in a row, cut to a multiple of 256. */
static void repeats_come_in_a_row(void **state)
{
    (void)state;
    enum { IMAGES = 1000, SAMPLES = 768 };
    struct sampler once = {IMAGES, 4, true, 1, 0}, thrice = {IMAGES, 4, true, 3, 0};
    assert_int_equal(sampler_epoch_samples(IMAGES, 3), SAMPLES);
    assert_int_equal(sampler_epoch_samples(1281167, 3), 1281024); /* 8 ranks of 160,128 */
    assert_int_equal(sampler_epoch_samples(IMAGES, 1), IMAGES);
    assert_int_equal(sampler_epoch_samples(200, 3), 200);
    for (uint64_t epoch = 0; epoch < 3; epoch++)
        for (uint64_t p = 0; p < SAMPLES; p++)
            assert_int_equal(sampler_image(&thrice, epoch * SAMPLES + p), sampler_image(&once, epoch * IMAGES + p / 3));
}

/* Every image once an epoch, whatever does not divide what; epochs and seeds give other orders. */
static void windows_visit_every_image_once(void **state)
{
    (void)state;
    const uint64_t sizes[] = {2, 3, 255, 256, 1000, 5003}, windows[] = {1, 2, 7, 255, 256, 257, 512, 1000, 2000, 5002};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (size_t w = 0; w < sizeof windows / sizeof *windows; w++) {
            struct sampler sampler = {sizes[s], 7 + s, true, 1, windows[w]};
            for (uint64_t epoch = 0; epoch < 3; epoch++) {
                unsigned char *seen = calloc(sizes[s], 1);
                for (uint64_t i = 0; i < sizes[s]; i++) {
                    uint64_t image = sampler_image(&sampler, epoch * sizes[s] + i);
                    assert_true(image < sizes[s]);
                    assert_int_equal(seen[image]++, 0);
                }
                free(seen);
            }
        }
    struct sampler first = {5003, 1, true, 1, 1024}, second = {5003, 2, true, 1, 1024};
    assert_in_range(agreements(&first, 0, &first, 1), 0, 10);
    assert_in_range(agreements(&first, 0, &second, 0), 0, 10);
    struct sampler all = {1000, 1, true, 1, 0}, wide = {1000, 1, true, 1, 1000};
    assert_int_equal(agreements(&all, 2, &wide, 2), 1000);
}

static int ascending(const void *a, const void *b)
{
    uint64_t first = *(const uint64_t *)a, second = *(const uint64_t *)b;
    return (first > second) - (first < second);
}

/* Runs of images side by side that a window's positions read: few, though the order within is random. */
static void a_window_reads_few_places(void **state)
{
    (void)state;
    enum { IMAGES = 100003, WINDOW = 4096 };
    struct sampler sampler = {IMAGES, 3, true, 1, WINDOW};
    for (uint64_t first = 0; first + WINDOW <= IMAGES; first += WINDOW) {
        uint64_t images[WINDOW], runs = 1, beside = 0;
        for (uint64_t i = 0; i < WINDOW; i++) {
            images[i] = sampler_image(&sampler, 5 * (uint64_t)IMAGES + first + i);
            beside += i > 0 && images[i] == images[i - 1] + 1;
        }
        qsort(images, WINDOW, sizeof *images, ascending);
        for (uint64_t i = 1; i < WINDOW; i++)
            runs += images[i] != images[i - 1] + 1;
        assert_true(runs <= SAMPLER_BLOCKS + 2);
        assert_true(beside < 20); /* one on average */
    }
}

/* A block of a window of four is one image. */
static void places_are_equally_likely_with_a_window(void **state)
{
    (void)state;
    check_places(4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_epoch_visits_every_image_once),     cmocka_unit_test(epochs_and_seeds_give_other_orders),
        cmocka_unit_test(without_shuffle_the_order_is_the_file_s), cmocka_unit_test(places_are_equally_likely),
        cmocka_unit_test(orders_are_those_of_earlier_versions),    cmocka_unit_test(repeats_come_in_a_row),
        cmocka_unit_test(windows_visit_every_image_once),          cmocka_unit_test(a_window_reads_few_places),
        cmocka_unit_test(places_are_equally_likely_with_a_window),
    };
    return cmocka_run_group_tests_name("sampler", tests, NULL, NULL);
}
