/* Where the rules of the diagnosis that look at a window of records begin: just under a limit and just over it. */
#include "tests/unit/diagnosis_test.h"

enum { WINDOW = 48 };

/* Logits that grow at a steady rate from `first` to `last` in 24 records of every tenth step. */
static enum severity growth_from_to(double first, double last, uint64_t *predicted)
{
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
    for (int i = 0; i < 24; i++)
        feed_head(diagnosis, 10 * (uint64_t)(i + 1), (struct head){.logit = first * pow(last / first, i / 23.0)});
    const struct event *event = first_of(&heard, EVENT_LOGIT_EXPLOSION, SEVERITY_INFO);
    *predicted = event ? event->predicted : 0;
    enum severity severity = severity_of(&heard, EVENT_LOGIT_EXPLOSION);
    diagnosis_close(diagnosis);
    return severity;
}

static void a_limit_that_growth_will_reach_is_foretold_within_2000_steps(void **state)
{
    (void)state;
    uint64_t predicted;
    assert_int_equal(growth_from_to(20, 200, &predicted), SEVERITY_WARNING); /* 10 ^ (steps / 230) */
    assert_in_range(predicted, 630, 632);                                    /* 10 + 230 * log10(10000 / 20) */
    assert_int_equal(growth_from_to(50, 490, &predicted), SEVERITY_WARNING);
    assert_int_equal(growth_from_to(50, 510, &predicted), SEVERITY_CRITICAL); /* a twentieth of the limit */
    assert_int_equal(growth_from_to(6, 49, &predicted), SEVERITY_HEALTHY);    /* as every run's logits at first */
    assert_int_equal(growth_from_to(6, 52, &predicted), SEVERITY_WARNING);
    assert_int_equal(growth_from_to(250, 364, &predicted), SEVERITY_HEALTHY); /* 2030 steps away */
    assert_int_equal(growth_from_to(250, 368, &predicted), SEVERITY_WARNING); /* 1960 */
    /* Near the limit less than a quarter more is the noise of a plateau. */
    assert_int_equal(growth_from_to(2500, 3080, &predicted), SEVERITY_WARNING);
    assert_int_equal(growth_from_to(2500, 3200, &predicted), SEVERITY_CRITICAL);
}

/* Logits of 3 to 21 in a window's first half, and then `slower` times as fast: over 50 at its end. */
static enum severity growth_that_slows(double slower)
{
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
    for (int i = 0; i < 24; i++) {
        double grown = (i < 12 ? i : 12 + slower * (i - 12)) / 12.0;
        feed_head(diagnosis, 10 * (uint64_t)(i + 1), (struct head){.logit = 3 * pow(7, grown)});
    }
    enum severity severity = severity_of(&heard, EVENT_LOGIT_EXPLOSION);
    diagnosis_close(diagnosis);
    return severity;
}

static void growth_that_ends_foretells_nothing(void **state)
{
    (void)state;
    assert_int_equal(growth_that_slows(0.52), SEVERITY_HEALTHY);
    assert_int_equal(growth_that_slows(0.7), SEVERITY_WARNING);
}

/* The entropy of a head with logits over 50 that falls steadily from one share to another. */
static enum severity fall_from_to(double first, double last, double logit)
{
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
    for (int i = 0; i < 24; i++)
        feed_head(diagnosis, 10 * (uint64_t)(i + 1),
                  (struct head){.entropy_share = first * pow(last / first, i / 23.0), .logit = logit});
    enum severity severity = severity_of(&heard, EVENT_ENTROPY_COLLAPSE);
    diagnosis_close(diagnosis);
    return severity;
}

static void a_collapse_is_foretold_within_1000_steps(void **state)
{
    (void)state;
    assert_int_equal(fall_from_to(0.3, 0.184, 51), SEVERITY_HEALTHY); /* 0.02 is 1040 steps away */
    assert_int_equal(fall_from_to(0.3, 0.176, 51), SEVERITY_WARNING); /* 940 */
    assert_int_equal(fall_from_to(0.3, 0.176, 49), SEVERITY_HEALTHY);
}

/* Query and key norms that grow by `rate` a quarter of the window, at a logit of `logit`. */
static enum severity runaway_of(enum attention_kind kind, double rate, double slowing, double logit, int records)
{
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, kind);
    for (int i = 0; i < records; i++) {
        double quarters = i / 12.0, grown = exp(log(1 + rate) * (quarters - slowing * quarters * quarters));
        feed_head(diagnosis, 10 * (uint64_t)(i + 1), (struct head){.query = grown, .key = grown, .logit = logit});
    }
    enum severity severity = severity_of(&heard, EVENT_QUERY_KEY_RUNAWAY);
    diagnosis_close(diagnosis);
    return severity;
}

static void norms_run_away_where_both_grow_quarter_by_quarter(void **state)
{
    (void)state;
    assert_int_equal(runaway_of(ATTENTION_STANDARD, 0.055, 0, 21, WINDOW), SEVERITY_WARNING);
    assert_int_equal(runaway_of(ATTENTION_STANDARD, 0.045, 0, 21, WINDOW), SEVERITY_HEALTHY);
    assert_int_equal(runaway_of(ATTENTION_STANDARD, 0.055, 0, 19, WINDOW),
                     SEVERITY_HEALTHY); /* a fiftieth of the warning */
    assert_int_equal(runaway_of(ATTENTION_STANDARD, 0.055, 0, 1001, WINDOW), SEVERITY_CRITICAL);
    assert_int_equal(runaway_of(ATTENTION_STANDARD, 0.055, 0, 999, WINDOW), SEVERITY_WARNING);
    assert_int_equal(runaway_of(ATTENTION_STANDARD, 0.055, 0, 21, WINDOW - 1), SEVERITY_HEALTHY);
    assert_int_equal(runaway_of(ATTENTION_STANDARD, 0.3, 0.1, 21, WINDOW), SEVERITY_HEALTHY); /* it slows down */
    assert_int_equal(runaway_of(ATTENTION_QUEST, 0.055, 0, 21, WINDOW), SEVERITY_HEALTHY);
}

/* The step of the event that calls a head dead whose entropy lies between two shares in turn; 0: none. */
static uint64_t death_of(double share, double other_share, uint64_t every)
{
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
    for (uint64_t i = 1; i * every <= 3000; i++)
        feed_head(diagnosis, i * every, (struct head){.entropy_share = i % 2 ? share : other_share, .logit = 0.01});
    const struct event *event = first_of(&heard, EVENT_DEAD_HEAD, SEVERITY_INFO);
    uint64_t step = event ? event->step : 0;
    diagnosis_close(diagnosis);
    return step;
}

static void a_head_is_dead_from_step_1000_on(void **state)
{
    (void)state;
    assert_int_equal(death_of(0.9995, 0.9995, 10), 1000);
    assert_int_equal(death_of(0.9995, 0.9995, 7), 1001);
    assert_int_equal(death_of(0.9995, 0.9995, 50), 48 * 50); /* a whole window */
    assert_int_equal(death_of(0.9985, 0.9985, 10), 0);
    assert_int_equal(death_of(0.9992, 1.0, 10), 1000);
    assert_int_equal(death_of(0.9992, 1.0003, 10), 0); /* it moves */
}

/* A step that a log holds twice is read once, and a window with a hole in it is no window. */
static void windows_are_of_steps_in_a_row(void **state)
{
    (void)state;
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
    for (uint64_t i = 0; i < 2 * 47; i++) {
        uint64_t twice = i / 2;
        double grown = pow(1.2, (double)twice / 12.0);
        feed_head(diagnosis, twice + 1, (struct head){.query = grown, .key = grown, .logit = 30});
    }
    feed_head(diagnosis, 48, (struct head){.query = NAN, .key = 1, .logit = 30});
    feed_heads(diagnosis, 49, (struct head[]){{.query = 1.5, .key = INFINITY, .logit = 30}}, 1);
    for (int i = 50; i < 50 + 47; i++) {
        double grown = pow(1.1, i / 12.0);
        feed_head(diagnosis, (uint64_t)i, (struct head){.query = grown, .key = grown, .logit = 30});
    }
    assert_int_equal(severity_of(&heard, EVENT_QUERY_KEY_RUNAWAY), SEVERITY_HEALTHY);
    assert_int_equal(severity_of(&heard, EVENT_NONFINITE), SEVERITY_CRITICAL);
    feed_head(diagnosis, 97, (struct head){.query = pow(1.1, 97 / 12.0), .key = pow(1.1, 97 / 12.0), .logit = 30});
    assert_int_equal(severity_of(&heard, EVENT_QUERY_KEY_RUNAWAY), SEVERITY_WARNING);
    diagnosis_close(diagnosis);
}

/* The step that is said to be the beginning, where a set-back of `setback` comes before the last of four records. */
static uint64_t beginning_of(enum event_kind rule, double setback)
{
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
    const double logits[] = {500, 600, 600 / setback, 1100}, shares[] = {0.35, 0.2, 0.2 * setback, 0.09};
    for (uint64_t i = 0; i < 4; i++) {
        struct head head = {.entropy_share = shares[i], .logit = 49};
        if (rule == EVENT_LOGIT_EXPLOSION)
            head = (struct head){.logit = logits[i]};
        feed_head(diagnosis, 10 * (i + 1), head);
    }
    assert_int_equal(heard.count, 1);
    uint64_t since = heard.events[0].since;
    diagnosis_close(diagnosis);
    return since;
}

static void a_rise_or_fall_began_after_the_last_set_back_over_5_percent(void **state)
{
    (void)state;
    assert_int_equal(beginning_of(EVENT_LOGIT_EXPLOSION, 1.04), 10);
    assert_int_equal(beginning_of(EVENT_LOGIT_EXPLOSION, 1.06), 30);
    assert_int_equal(beginning_of(EVENT_ENTROPY_COLLAPSE, 1.04), 10);
    assert_int_equal(beginning_of(EVENT_ENTROPY_COLLAPSE, 1.06), 30);
}

static void twelve_records_are_the_fewest_that_foretell(void **state)
{
    (void)state;
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
    for (uint64_t step = 10; step <= 120; step += 10) {
        assert_int_equal(heard.count, 0);
        feed_head(diagnosis, step, (struct head){.logit = 100 * exp((double)step / 200)});
    }
    assert_int_equal(heard.count, 1);
    diagnosis_close(diagnosis);
}

/* What is not logged says nothing. */
static void unknown_numbers_let_their_rules_rest(void **state)
{
    (void)state;
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
    for (uint64_t step = 10; step <= 3000; step += 10)
        feed_head(diagnosis, step, (struct head){.logit = 9});
    for (uint64_t step = 3010; step <= 6000; step += 10)
        feed_head(diagnosis, step, (struct head){.key = 2});
    assert_int_equal(heard.count, 0);
    diagnosis_close(diagnosis);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_limit_that_growth_will_reach_is_foretold_within_2000_steps),
        cmocka_unit_test(growth_that_ends_foretells_nothing),
        cmocka_unit_test(a_collapse_is_foretold_within_1000_steps),
        cmocka_unit_test(norms_run_away_where_both_grow_quarter_by_quarter),
        cmocka_unit_test(a_head_is_dead_from_step_1000_on),
        cmocka_unit_test(windows_are_of_steps_in_a_row),
        cmocka_unit_test(a_rise_or_fall_began_after_the_last_set_back_over_5_percent),
        cmocka_unit_test(twelve_records_are_the_fewest_that_foretell),
        cmocka_unit_test(unknown_numbers_let_their_rules_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
