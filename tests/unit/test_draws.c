/* What a batch draws beside its pixels: the same for any split of the sequence over batches and ranks, mixed only
 * inside its group, and never with a copy of itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/input/draws.h"

enum { SAMPLES = 96, GROUP = 8, SIDE = 32 };

static const struct draw_options everything = {
    .drop_path = {DROP_PATH_LINEAR, 0.5, 3},
    .erase = {0.25, 0.02, 1.0 / 3},
    .mix = {0.8, 1.0, 1.0, 0.5, CUTMIX_RULE_CURRENT},
    .mix_group = GROUP,
};

/* The draws of samples first ... first + count - 1, as one batch; *block is to be freed. */
static struct model_draws draw(const struct draw_options *options, size_t first, size_t count, void **block)
{
    uint64_t positions[SAMPLES];
    int32_t labels[SAMPLES];
    struct loader_options loader = {.batch = count, .image_size = SIDE, .seed = 11};
    struct batch batch = {.positions = positions, .labels = labels, .count = count};
    for (size_t i = 0; i < count; i++) {
        positions[i] = first + i;
        labels[i] = (int32_t)(1000 + first + i);
    }
    *block = calloc(1, draws_bytes(options, count));
    assert_non_null(*block);
    draws_make(options, &loader, &batch, *block);
    return draws_in(options, &loader, *block);
}

static void any_split_gives_the_same(void **state)
{
    (void)state;
    for (int per_image = 0; per_image < 2; per_image++)
        for (size_t count = GROUP; count <= SAMPLES / 2; count += GROUP) {
            struct draw_options options = everything;
            options.mix_per_image = per_image;
            void *all_block, *block;
            struct model_draws all = draw(&options, 0, SAMPLES, &all_block);
            for (size_t first = 0; first + count <= SAMPLES; first += count) {
                struct model_draws part = draw(&options, first, count, &block);
                for (size_t i = 0; i < count; i++) {
                    size_t at = first + i;
                    assert_memory_equal(&part.erase[i], &all.erase[at], sizeof *part.erase);
                    assert_memory_equal(&part.box[i], &all.box[at], sizeof *part.box);
                    assert_true(part.sample[i] == at && part.weight[i] == all.weight[at]);
                    assert_int_equal((size_t)part.partner[i] + first, all.partner[at]);
                    assert_int_equal(part.partner_labels[i], all.partner_labels[at]);
                    for (size_t branch = 0; branch < 2 * options.drop_path.depth; branch++)
                        assert_true(part.path_scale[branch * count + i] == all.path_scale[branch * SAMPLES + at]);
                }
                free(block);
            }
            free(all_block);
        }
}

static void partners_are_pairs_inside_a_group(void **state)
{
    (void)state;
    void *block;
    struct model_draws draws = draw(&everything, 0, SAMPLES, &block);
    for (int32_t i = 0; i < SAMPLES; i++) {
        int32_t other = draws.partner[i];
        assert_int_equal(other / GROUP, i / GROUP);
        assert_int_equal(draws.partner[other], i);
        assert_int_equal(abs(other - i), GROUP / 2); /* copies of an image lie closer together */
        assert_int_equal(draws.partner_labels[i], 1000 + other);
    }
    free(block);
}

/* A group shares its numbers or each image has its own; a weight is the part of the image that is its own. */
static void weights_say_what_is_mixed(void **state)
{
    (void)state;
    for (int per_image = 0; per_image < 2; per_image++) {
        struct draw_options options = everything;
        options.mix_per_image = per_image;
        void *block;
        struct model_draws draws = draw(&options, 0, SAMPLES, &block);
        size_t alike = 0, cut = 0;
        for (size_t i = 0; i < SAMPLES; i++) {
            alike += i % GROUP > 0 && draws.weight[i] == draws.weight[i - 1];
            const struct pixel_box *box = &draws.box[i];
            assert_true(draws.weight[i] >= 0 && draws.weight[i] <= 1);
            assert_true(box->top >= 0 && box->top + box->height <= SIDE && box->left + box->width <= SIDE);
            double kept = 1 - (double)(box->height * box->width) / (SIDE * SIDE);
            if (box->height > 0) {
                cut++;
                assert_float_equal(draws.weight[i], kept, 1e-6);
            }
        }
        assert_int_equal(alike, per_image ? 0 : SAMPLES - SAMPLES / GROUP);
        assert_true(cut > 0 && cut < SAMPLES);
        free(block);
    }
}

static void nothing_asked_for_takes_no_memory(void **state)
{
    (void)state;
    const struct draw_options nothing = {.drop_path.depth = 12};
    char block;
    const struct loader_options loader = {.batch = 8};
    assert_int_equal(draws_bytes(&nothing, 8), 0);
    struct model_draws draws = draws_in(&nothing, &loader, &block);
    assert_true(!draws.path_scale && !draws.erase && !draws.sample && !draws.partner && !draws.box && !draws.weight);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_split_gives_the_same), cmocka_unit_test(partners_are_pairs_inside_a_group),
        cmocka_unit_test(weights_say_what_is_mixed), cmocka_unit_test(nothing_asked_for_takes_no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
