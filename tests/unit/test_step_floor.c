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

/* GB, ms by memory alone, ms of the products, of norms and GELU, of attention, of the optimiser, ms of all. */
static void the_table_of_the_review(void **state)
{
    static const struct {
        const char *preset;
        size_t batch;
        double gb, tflop, products_ms, elementwise_ms, attention_ms, optimiser_ms, ms;
    } table[] = {{"vit_tiny", 512, 46.6, 3.85, 7.4, 5.6, 2.0, 0.07, 15.5},
                 {"vit_small", 512, 93.1, 14.1, 18.5, 11.2, 4.1, 0.28, 34.6},
                 {"vit_base", 512, 187, 54.0, 73.5, 22.3, 8.1, 1.1, 106},
                 {"vit_large", 256, 254, 94.8, 131, 29.7, 10.8, 3.9, 176}};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct step_floor floor = floor_of(table[i].preset, table[i].batch);
        assert_about(1e-9 * floor.bytes, table[i].gb, 0.02);
        assert_about(1e-12 * floor.flop, table[i].tflop, 0.02);
        assert_about(1e3 * floor.group_s[FLOOR_PRODUCTS], table[i].products_ms, 0.03);
        assert_about(1e3 * (floor.group_s[FLOOR_NORMS] + floor.group_s[FLOOR_GELU]), table[i].elementwise_ms, 0.02);
        assert_about(1e3 * floor.group_s[FLOOR_ATTENTION], table[i].attention_ms, 0.02);
        assert_about(1e3 * floor.group_s[FLOOR_OPTIMISER], table[i].optimiser_ms, 0.05);
        assert_about(1e3 * floor.seconds, table[i].ms, 0.01);
    }
}

/* One block of ViT-S as the review counts it: 97 tensors of [tokens, dim] without weights. */
static void a_block_moves_97_tensors(void **state)
{
    const double tensor = 512.0 * 197 * 384 * 2, weights = 12 * 384.0 * 384 * (2 + 2 + 8);
    struct step_floor floor = floor_of("vit_small", 512);
    double bytes = 0;
    (void)state;
    for (size_t i = 0; i < floor.count; i++)
        if (floor.rows[i].calls >= 12)
            bytes += floor.rows[i].bytes / 12;
    /* The first norm's backward pass is counted with the others. */
    assert_about(bytes, 97 * tensor + weights + 4 * tensor / 12, 1e-6);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_table_of_the_review),
                                       cmocka_unit_test(a_block_moves_97_tensors), cmocka_unit_test(rows_add_up)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
