/* The modelled floor of a training step, beside a table that was worked out by hand from the ops' shapes (bytes of a
 * block in units of one activation tensor; products by their FLOP), and its parts beside sums that one can check by
 * eye. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/bench/step_floor.h"
#include "src/config/load.h"

static struct step_floor floor_of(const char *preset, size_t batch)
{
    struct config config;
    struct step_floor floor = {0};
    struct error error;
    char text[128];
    snprintf(text, sizeof text, "model: {preset: %s, classes: 1000}\n", preset);
    if (!config_parse_model(&config, text, strlen(text), "test", &error) || !step_floor(&floor, &config, batch, &error))
        fail_msg("%s", error.message);
    return floor;
}

static void assert_about(double value, double expected, double relative)
{
    if (fabs(value - expected) > relative * expected)
        fail_msg("%g is not within %g %% of %g", value, 100 * relative, expected);
}

enum { TOKENS = 197, DIM = 384, DEPTH = 12, BATCH = 512 };

/* Seconds that `tensors` of [tokens, dim] of ViT-S take. */
static double tensors_s(double tensors)
{
    return tensors * BATCH * TOKENS * DIM * 2 / FLOOR_BYTES_PER_S;
}

/* What was worked out by hand for the step before its last block had CLS rows alone, before activations were made again
 * in the backward pass and before delta was inside attention's: a table in milliseconds. */
static void beside_the_table_of_the_step_as_it_was(void **state)
{
    static const struct {
        const char *preset;
        size_t batch;
        double depth, products_ms, optimiser_ms, ms;
    } table[] = {{"vit_tiny", 512, 12, 7.4, 0.07, 15.5},
                 {"vit_small", 512, 12, 18.5, 0.28, 34.6},
                 {"vit_base", 512, 12, 73.5, 1.1, 106},
                 {"vit_large", 256, 24, 131, 3.9, 176}};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct step_floor floor = floor_of(table[i].preset, table[i].batch);
        /* Of a block's 12 dim^2 the last one keeps the 2 of keys and values. */
        double products = (table[i].depth - 1 + 2.0 / 12) / table[i].depth;
        assert_about(1e3 * floor.group_s[FLOOR_PRODUCTS], products * table[i].products_ms, 0.03);
        assert_about(1e3 * floor.group_s[FLOOR_OPTIMISER], table[i].optimiser_ms * 34 / 38,
                     0.05); /* nothing is zeroed */
        assert_true(1e3 * floor.seconds < 0.99 * table[i].ms);
    }
}

/* Tensors of [tokens, dim] that pass over the memory, by hand; a CLS row is a 197th of one. */
static void what_is_not_a_product_moves(void **state)
{
    struct step_floor floor = floor_of("vit_small", BATCH);
    const double cls = 1.0 / TOKENS, blocks = DEPTH - 1;
    (void)state;
    assert_about(floor.group_s[FLOOR_NORMS], tensors_s(blocks * (8 + 8) + 4 + 2 + cls * (8 + 8)), 1e-6);
    assert_about(floor.group_s[FLOOR_GELU], tensors_s((blocks + cls) * 4 * (2 + 3)), 1e-6);
    assert_about(floor.group_s[FLOOR_ATTENTION], tensors_s(blocks * (4 + 8) + 2 + 4), 1e-6);
}

/* A block moves 96 tensors without its weights: norms 8 and 8, qkv 4 and 8, attention 4 and 8, proj 2 and 4, fc1 and
 * fc2 5 and 10 each, GELU 8 and 12. */
static void a_block_moves_96_tensors(void **state)
{
    const double tensor = (double)BATCH * TOKENS * DIM * 2, weights = 12.0 * DIM * DIM * (2 + 2 + 4);
    struct step_floor floor = floor_of("vit_small", BATCH);
    double bytes = 0;
    (void)state;
    for (size_t i = 0; i < floor.count; i++)
        if (floor.rows[i].calls >= DEPTH - 1)
            bytes += floor.rows[i].bytes / (DEPTH - 1);
    /* The first norm's backward pass is counted with the others. */
    assert_about(bytes, 96 * tensor + weights + 4 * tensor / (DEPTH - 1), 1e-6);
}

/* 7 % fewer FLOP than with a last block over all tokens at depth 12, 3.5 % at depth 24. */
static void the_last_block_saves(void **state)
{
    (void)state;
    assert_about(floor_of("vit_small", 512).flop, 0.930 * 14.25e12, 0.002);
    assert_about(floor_of("vit_large", 256).flop, 0.965 * 94.96e12, 0.002);
}

static void rows_add_up(void **state)
{
    struct step_floor floor = floor_of("vit_base", 64);
    double seconds = 0, groups_s = 0;
    (void)state;
    assert_true(floor.count > 20 && floor.count <= FLOOR_ROWS_MAX);
    for (size_t i = 0; i < floor.count; i++) {
        const struct floor_row *row = &floor.rows[i];
        double longer = fmax(row->bytes / FLOOR_BYTES_PER_S, row->flop / FLOOR_FLOP_PER_S);
        assert_true(row->name[0] && row->calls > 0);
        assert_about(row->seconds, longer, 1e-9);
        seconds += row->seconds;
    }
    for (int group = 0; group < FLOOR_GROUPS; group++)
        groups_s += floor.group_s[group];
    assert_about(seconds, floor.seconds, 1e-9);
    assert_about(groups_s, floor.seconds, 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(beside_the_table_of_the_step_as_it_was),
                                       cmocka_unit_test(what_is_not_a_product_moves),
                                       cmocka_unit_test(a_block_moves_96_tensors),
                                       cmocka_unit_test(the_last_block_saves), cmocka_unit_test(rows_add_up)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
