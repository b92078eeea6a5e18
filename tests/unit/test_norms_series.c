/* Thinning a long log: few points, extremes and means kept. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "src/norms/series.h"

static void thinning_keeps_extremes_and_means(void **state)
{
    (void)state;
    static const enum norms_merge merges[] = {NORMS_MEAN, NORMS_MAXIMUM, NORMS_MINIMUM};
    struct error error;
    for (size_t total = 1; total <= 5000; total = total * 3 + 1) {
        struct norms_buckets buckets;
        assert_true(norms_buckets_open(&buckets, 3, 64, merges, &error));
        for (size_t i = 0; i < total; i++) {
            float spike = i == total / 3 ? 100.0f : 0.0f;
            const float row[] = {(float)i, 1 + spike, 1 - spike};
            norms_buckets_add(&buckets, 10 * (i + 1), row);
        }
        assert_true(buckets.count <= 64);
        assert_true(total < 64 ? buckets.count == total : buckets.count >= 32);
        assert_int_equal(buckets.steps[buckets.count - 1], 10 * total);
        float high = -INFINITY, low = INFINITY;
        for (size_t i = 0; i < buckets.count; i++) {
            const float *row = buckets.values + 3 * i;
            uint64_t last = buckets.steps[i] / 10, first = i == 0 ? 1 : buckets.steps[i - 1] / 10 + 1;
            assert_true(fabsf(row[0] - 0.5f * (float)(first + last - 2)) < 1e-2f);
            high = fmaxf(high, row[1]);
            low = fminf(low, row[2]);
        }
        assert_true(high == 101 && low == -99);
        norms_buckets_close(&buckets);
    }
}

static void unknown_numbers_stay_out_of_means(void **state)
{
    (void)state;
    static const enum norms_merge merges[] = {NORMS_MEAN, NORMS_MAXIMUM};
    struct norms_buckets buckets;
    struct error error;
    assert_true(norms_buckets_open(&buckets, 2, 2, merges, &error));
    const float rows[][2] = {{4, NAN}, {NAN, NAN}, {6, 3}, {8, NAN}, {10, 1}, {NAN, 2}};
    for (size_t i = 0; i < 6; i++)
        norms_buckets_add(&buckets, i + 1, rows[i]);
    assert_int_equal(buckets.count, 2);
    assert_true(buckets.values[0] == 5.5f && buckets.values[2] == 10); /* (4, -) and (6, 8); (10, -) */
    assert_true(buckets.values[1] == 3 && buckets.values[3] == 2);
    norms_buckets_close(&buckets);
}

static void repeated_steps_are_read_once(void **state)
{
    (void)state;
    struct norms_series series;
    struct error error;
    double values[] = {1, 2};
    assert_true(norms_series_open(&series, &error));
    for (uint64_t step = 1; step <= 30; step++) {
        uint64_t said = step <= 20 ? step : step - 10; /* 11 to 20 again, as after a resume without a cut */
        struct metrics_record metrics = {.step = said, .loss = 1};
        struct norm_record record = {.step = said, .layer = 3, .heads = 2, .logit_max = values, .qkv_grad_norm = NAN};
        norms_series_metrics(&series, &metrics);
        assert_true(norms_series_record(&series, &record, &error));
    }
    assert_int_equal(series.metrics.count, 20);
    assert_int_equal(series.layer_count, 4);
    assert_int_equal(series.layers[3].buckets.count, 20);
    assert_int_equal(series.layers[0].heads, 0);
    assert_int_equal(series.records, 20);
    norms_series_close(&series);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thinning_keeps_extremes_and_means),
        cmocka_unit_test(unknown_numbers_stay_out_of_means),
        cmocka_unit_test(repeated_steps_are_read_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
