/* Learning rates and lengths of runs; tests/fixtures/test_recipes_schedules.c compares with timm. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/optimiser/schedule.h"

static struct config config_of(enum schedule rule)
{
    struct config config = {0};
    config.optim.lr = 1.0;
    config.optim.min_lr = 0.1;
    config.optim.schedule = rule;
    config.train.batch_size = 32;
    return config;
}

static void assert_rate(const struct config *config, const struct schedule_run *run, uint64_t step, double want)
{
    double rate = schedule_learning_rate(config, run, step);
    if (!(fabs(rate - want) < 1e-12))
        fail_msg("step %llu has the rate %.12g, not %.12g", (unsigned long long)step, rate, want);
}

static void learning_rate_warms_up_and_decays(void **state)
{
    (void)state;
    const struct schedule_run run = {110, 320};
    struct config config = config_of(SCHEDULE_COSINE);
    config.optim.warmup_steps = 10;
    for (int in_epochs = 0; in_epochs < 2; in_epochs++) {
        assert_rate(&config, &run, 1, 0.1);
        assert_rate(&config, &run, 10, 1.0);
        assert_rate(&config, &run, 11, 1.0);
        assert_rate(&config, &run, 61, 0.55);
        assert_true(schedule_learning_rate(&config, &run, 110) < 0.101);
        config.optim.warmup_steps = 0;
        config.optim.warmup_epochs = 1; /* of ten steps */
    }
    config.optim.warmup_lr = 0.5;
    assert_rate(&config, &run, 1, 0.55);
    assert_rate(&config, &run, 10, 1.0);
    config.optim.schedule = SCHEDULE_CONSTANT;
    assert_rate(&config, &run, 9, 0.95);
    assert_rate(&config, &run, 110, 1.0);
}

static void length_of_a_run(void **state)
{
    (void)state;
    struct config config = config_of(SCHEDULE_COSINE);
    config.train.epochs = 3;
    assert_int_equal(schedule_run_of(&config, 100).steps, 10); /* 300 samples in batches of 32, rounded up */
    assert_int_equal(schedule_run_of(&config, 100).epoch_samples, 100);
    config.train.epochs = 0;
    config.train.steps = 7;
    assert_int_equal(schedule_run_of(&config, 100).steps, 7);
}

/* 100 samples in batches of 32: steps 1 to 4 begin in epoch 0 (samples 0, 32, 64, 96), steps 5 to 7 in epoch 1, step 8
 * (sample 224) in epoch 2. */
static void step_is_of_the_epoch_that_it_begins_in(void **state)
{
    (void)state;
    static const uint64_t epoch_of[] = {0, 0, 0, 0, 1, 1, 1, 2, 2, 2};
    struct config config = config_of(SCHEDULE_TIMM_EPOCHS);
    config.train.epochs = 3;
    struct schedule_run run = schedule_run_of(&config, 100);
    assert_int_equal(run.steps, sizeof epoch_of / sizeof *epoch_of);
    for (uint64_t step = 1; step <= run.steps; step++)
        assert_rate(&config, &run, step, 0.1 + 0.45 * (1 + cos(acos(-1.0) * (double)epoch_of[step - 1] / 3)));
    config.optim.schedule = SCHEDULE_DEIT; /* an epoch late */
    assert_rate(&config, &run, 7, 1.0);
    assert_rate(&config, &run, 8, 0.1 + 0.45 * (1 + cos(acos(-1.0) / 3)));
}

/* The same run by its steps: 8 steps of 32 are 2.56 epochs of 100. */
static void epochs_follow_from_steps(void **state)
{
    (void)state;
    struct config config = config_of(SCHEDULE_TIMM_EPOCHS);
    config.train.steps = 8;
    struct schedule_run run = schedule_run_of(&config, 100);
    assert_rate(&config, &run, 5, 0.1 + 0.45 * (1 + cos(acos(-1.0) / 2.56)));
}

/* lr, and neither floor nor start of the warm-up. */
static void base_batch_scales_the_peak_alone(void **state)
{
    (void)state;
    const struct schedule_run run = {100, 320};
    struct config config = config_of(SCHEDULE_TIMM_UPDATES);
    config.optim.lr_base_batch = 8;
    config.optim.warmup_epochs = 1;
    config.optim.warmup_lr = 0.25;
    config.optim.cooldown_epochs = 2;
    assert_rate(&config, &run, 1, 0.25);
    assert_rate(&config, &run, 6, 0.25 + 0.5 * 3.75);
    assert_rate(&config, &run, 41, 0.1 + 3.9 * 0.5); /* half of 80 steps */
    assert_rate(&config, &run, 81, 0.1);
    assert_rate(&config, &run, 100, 0.1);
    config.optim.schedule = SCHEDULE_COSINE;
    assert_rate(&config, &run, 10, 4);
}

static void warmup_and_cooldown_leave_a_step(void **state)
{
    (void)state;
    struct error error;
    struct config config = config_of(SCHEDULE_TIMM_EPOCHS);
    config.train.steps = 29;
    config.optim.warmup_epochs = 2;
    config.optim.cooldown_epochs = 1;
    struct schedule_run run = schedule_run_of(&config, 320);
    assert_false(schedule_check(&config, &run, &error));
    assert_int_equal(error.status, ERROR_INPUT);
    assert_non_null(
        strstr(error.message, "optim.warmup_epochs and cooldown_epochs are 30 steps, not less than the 29"));
    config.train.steps = 31;
    run = schedule_run_of(&config, 320);
    assert_true(schedule_check(&config, &run, &error));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(learning_rate_warms_up_and_decays),      cmocka_unit_test(length_of_a_run),
        cmocka_unit_test(step_is_of_the_epoch_that_it_begins_in), cmocka_unit_test(epochs_follow_from_steps),
        cmocka_unit_test(base_batch_scales_the_peak_alone),       cmocka_unit_test(warmup_and_cooldown_leave_a_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
