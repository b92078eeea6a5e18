/* The running average of the parameters: the op on the CPU against float64, withheld steps, decays, and how ranks share
 * it. */
#include "tests/unit/op_test.h"

#include "src/optimiser/average.h"

static void run(struct op_test *test, struct tensor *average, const struct tensor *master, double decay, double sum,
                double limit, const double *earlier)
{
    struct error error;
    struct average_update op = {.average = average->data,
                                .master = master->data,
                                .decay = decay,
                                .count = average->count,
                                .gradient_sum_of_squares = &sum,
                                .earlier_sum_of_squares = earlier,
                                .sum_of_squares_limit = limit};
    assert_ok(test->k->average_update(test->ctx, &op, &error), &error);
}

static void trial(struct op_test *test)
{
    size_t count = 64 * random_between(test, 0, 40);
    double decay = random_between(test, 0, 1) ? 0.99996 : 0.6;
    struct tensor *average = tensor_random(test, count, DTYPE_FLOAT32, 1);
    for (int step = 0; step < 5; step++) {
        struct tensor *master = tensor_random(test, count, DTYPE_FLOAT32, 1);
        run(test, average, master, decay, 1, 0, NULL);
        for (size_t i = 0; i < count; i++)
            average->exact[i] = decay * average->exact[i] + (1 - decay) * master->exact[i];
    }
    if (count)
        assert_close("average", average, average->exact, 5e-7);
}

static void copy_trial(struct op_test *test)
{
    struct tensor *average = tensor_random(test, 192, DTYPE_FLOAT32, 1),
                  *master = tensor_random(test, 192, DTYPE_FLOAT32, 1);
    tensor_set(average, 5, NAN);
    run(test, average, master, 0, 1, 0, NULL);
    assert_same_bits("copy", average, master);
}

static void withheld_trial(struct op_test *test)
{
    const double nan = NAN, fine = 2;
    struct tensor *average = tensor_random(test, 128, DTYPE_FLOAT32, 1), *before = tensor_copy(test, average),
                  *master = tensor_random(test, 128, DTYPE_FLOAT32, 1);
    run(test, average, master, 0.5, NAN, 0, NULL);
    run(test, average, master, 0.5, INFINITY, 0, NULL);
    run(test, average, master, 0.5, 4.1, 4, NULL);
    run(test, average, master, 0, 1, 0, &nan);
    assert_same_bits("withheld", average, before);
    run(test, average, master, 0.5, 4, 4, &fine);
    assert_true(memcmp(average->data, before->data, 128 * sizeof(float)) != 0);
}

static void matches_float64(void **state)
{
    (void)state;
    op_test_each(trial, 10);
}

static void decay_of_zero_copies(void **state)
{
    (void)state;
    op_test_each(copy_trial, 1);
}

static void withheld_steps_leave_it(void **state)
{
    (void)state;
    op_test_each(withheld_trial, 1);
}

static void shares_make_up_the_whole(void **state)
{
    (void)state;
    for (size_t groups = 0; groups < 20; groups++)
        for (int ranks = 1; ranks <= 9; ranks++) {
            size_t end = 0;
            for (int rank = 0; rank < ranks; rank++) {
                struct average_span span = average_span_of(64 * groups, rank, ranks);
                assert_int_equal(span.first, end);
                assert_int_equal(span.count % 64, 0);
                assert_true(span.count <= 64 * ((groups + (size_t)ranks - 1) / (size_t)ranks));
                end = span.first + span.count;
            }
            assert_int_equal(end, 64 * groups);
        }
}

static void decay_of_a_step(void **state)
{
    (void)state;
    struct config config = {.ema = {.decay = 0.9}};
    assert_true(average_decay(&config, 1) == 0.9);
    config.ema.warmup = true;
    assert_true(average_decay(&config, 1) == 0);
    assert_true(fabs(average_decay(&config, 8) - 0.75) < 1e-15);
    assert_true(average_decay(&config, 1000) == 0.9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_float64),         cmocka_unit_test(decay_of_zero_copies),
        cmocka_unit_test(withheld_steps_leave_it), cmocka_unit_test(shares_make_up_the_whole),
        cmocka_unit_test(decay_of_a_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
