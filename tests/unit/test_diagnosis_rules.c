/* Where each rule of the diagnosis begins: just under a limit and just over it. The limits are those of
 * docs/diagnosis.md. */
#include "tests/unit/diagnosis_test.h"

static void expect_severity(enum attention_kind kind, struct head head, enum event_kind rule, enum severity expected)
{
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, kind);
    feed_head(diagnosis, 10, head);
    enum severity found = severity_of(&heard, rule);
    if (found != expected)
        fail_msg("%s of key %g, largest %g, logit %g, entropy share %g: %s, not %s", event_kind_name(rule), head.key,
                 head.key_max, head.logit, head.entropy_share, severity_name(found), severity_name(expected));
    diagnosis_close(diagnosis);
}

/* ---- one record ---- */

static void logits_are_a_warning_at_1000_and_critical_at_10000(void **state)
{
    (void)state;
    const struct {
        double logit;
        enum severity expected;
    } cases[] = {
        {999, SEVERITY_HEALTHY}, {1001, SEVERITY_WARNING}, {9990, SEVERITY_WARNING}, {10010, SEVERITY_CRITICAL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_severity(ATTENTION_STANDARD, (struct head){.logit = cases[i].logit}, EVENT_LOGIT_EXPLOSION,
                        cases[i].expected);
}

static void sharp_heads_matter_by_how_large_their_logits_are(void **state)
{
    (void)state;
    const struct {
        double share, logit;
        enum severity expected;
    } cases[] = {
        {0.019, 51, SEVERITY_CRITICAL}, {0.019, 49, SEVERITY_WARNING}, {0.021, 51, SEVERITY_WARNING},
        {0.099, 30, SEVERITY_WARNING},  {0.099, 26, SEVERITY_WARNING}, {0.099, 24, SEVERITY_INFO},
        {0.019, 20, SEVERITY_INFO},     {0.101, 51, SEVERITY_HEALTHY}, {0.3, 900, SEVERITY_HEALTHY},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_severity(ATTENTION_STANDARD, (struct head){.entropy_share = cases[i].share, .logit = cases[i].logit},
                        EVENT_ENTROPY_COLLAPSE, cases[i].expected);
}

static void key_outliers_are_critical_where_logits_are_high_too(void **state)
{
    (void)state;
    const struct {
        double largest, logit;
        enum attention_kind kind;
        enum severity expected;
    } cases[] = {
        {9.8, 2000, ATTENTION_STANDARD, SEVERITY_HEALTHY},  {10.2, 2000, ATTENTION_STANDARD, SEVERITY_WARNING},
        {39.8, 2000, ATTENTION_STANDARD, SEVERITY_WARNING}, {40.2, 2000, ATTENTION_STANDARD, SEVERITY_CRITICAL},
        {40.2, 1001, ATTENTION_QNORM, SEVERITY_CRITICAL},   {40.2, 999, ATTENTION_STANDARD, SEVERITY_WARNING},
        {400, 5, ATTENTION_QNORM, SEVERITY_WARNING},        {40.2, 2000, ATTENTION_QUEST, SEVERITY_INFO},
        {40.2, 2000, ATTENTION_QKNORM, SEVERITY_INFO},      {40.2, 2000, ATTENTION_QKNORM_HS, SEVERITY_INFO},
        {40.2, 2000, ATTENTION_QKNORM_DS, SEVERITY_INFO},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_severity(cases[i].kind, (struct head){.key = 2, .key_max = cases[i].largest, .logit = cases[i].logit},
                        EVENT_KEY_NORM_OUTLIER, cases[i].expected);
}

/* The worst head speaks for its layer and says how many are with it; twice as many are worth another event. */
static void the_worst_head_speaks_for_the_layer(void **state)
{
    (void)state;
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
    const struct head two[] = {{.logit = 10}, {.logit = 2000}, {.logit = 3000}, {.logit = 10}};
    const struct head three[] = {{.logit = 10}, {.logit = 2000}, {.logit = 3000}, {.logit = 2000}};
    const struct head four[] = {{.logit = 2000}, {.logit = 2000}, {.logit = 3000}, {.logit = 2000}};
    feed_heads(diagnosis, 10, two, 4);
    feed_heads(diagnosis, 20, three, 4);
    assert_int_equal(heard.count, 1);
    assert_int_equal(heard.events[0].head, 2);
    assert_int_equal(heard.events[0].affected, 2);
    feed_heads(diagnosis, 30, four, 4);
    assert_int_equal(heard.count, 2);
    assert_int_equal(heard.events[1].affected, 4);
    diagnosis_close(diagnosis);
}

/* ---- loss, gradient, ranks ---- */

static void four_high_losses_in_a_row_are_critical(void **state)
{
    (void)state;
    for (uint64_t length = 3; length <= 4; length++) {
        struct heard heard;
        struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
        noise_state = 5;
        for (uint64_t step = 1; step <= 200; step++)
            diagnosis_step(diagnosis, step, 1 + 0.001 * noise() + (step > 100 && step <= 100 + length ? 0.5 : 0), 1);
        assert_int_equal(severity_of(&heard, EVENT_LOSS_SPIKE), length == 4 ? SEVERITY_CRITICAL : SEVERITY_WARNING);
        const struct event *first = first_of(&heard, EVENT_LOSS_SPIKE, SEVERITY_WARNING);
        assert_int_equal(first->step, 101);
        assert_true(first->layer == -1 && first->head == -1 && first->rank == -1);
        assert_true(fabs(first->value - 1.5) < 0.01 && fabs(first->threshold - 1) < 0.01);
        if (length == 4)
            assert_int_equal(first_of(&heard, EVENT_LOSS_SPIKE, SEVERITY_CRITICAL)->step, 104);
        diagnosis_close(diagnosis);
    }
}

/* A loss or a gradient norm of one step among `known` quiet ones. */
static bool is_spike(uint64_t known, double loss, double gradient)
{
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
    for (uint64_t step = 1; step <= known; step++)
        diagnosis_step(diagnosis, step, 1, 1);
    diagnosis_step(diagnosis, known + 1, loss, gradient);
    bool spike = heard.count > 0;
    diagnosis_close(diagnosis);
    return spike;
}

static void a_spike_is_six_deviations_once_32_steps_are_known(void **state)
{
    (void)state;
    /* The spread is at its floor: 0.02 of the loss, 0.1 of the logarithm of the gradient norm. */
    assert_false(is_spike(100, 1.119, 1));
    assert_true(is_spike(100, 1.121, 1));
    assert_false(is_spike(100, 1, exp(0.59)));
    assert_true(is_spike(100, 1, exp(0.61)));
    assert_false(is_spike(31, 9, 1));
    assert_true(is_spike(32, 9, 1));
    assert_false(is_spike(31, 1, 9));
    assert_true(is_spike(32, 1, 9));
}

/* A norm that is not far over those of the eight steps before has risen, not jumped. */
static void a_gradient_spike_stands_out_of_its_neighbours(void **state)
{
    (void)state;
    for (uint64_t apart = 8; apart <= 9; apart++) {
        struct heard heard;
        struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
        for (uint64_t step = 1; step <= 120; step++)
            diagnosis_step(diagnosis, step, 1, step == 100 ? exp(0.59) : step == 100 + apart ? exp(0.61) : 1);
        assert_int_equal(heard.count, apart == 9);
        diagnosis_close(diagnosis);
    }
}

static void a_record_without_heads_says_nothing(void **state)
{
    (void)state;
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
    feed(diagnosis, &(struct norm_record){.step = 10, .layer = 7, .heads = 0, .qkv_grad_norm = NAN});
    assert_int_equal(heard.count, 0);
    diagnosis_close(diagnosis);
}

/* The norm of a layer's query, key and value weights is watched as the model's is. */
static void a_layer_has_gradient_spikes_of_its_own(void **state)
{
    (void)state;
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
    for (uint64_t step = 1; step <= 50; step++)
        for (uint32_t layer = 0; layer < 3; layer++)
            feed(diagnosis,
                 &(struct norm_record){
                     .step = step, .layer = layer, .heads = 1, .qkv_grad_norm = step == 50 && layer == 1 ? 3 : 1});
    assert_int_equal(heard.count, 1);
    assert_int_equal(heard.events[0].kind, EVENT_GRADIENT_SPIKE);
    assert_int_equal(heard.events[0].severity, SEVERITY_WARNING);
    assert_int_equal(heard.events[0].step, 50);
    assert_true(heard.events[0].layer == 1 && heard.events[0].head == -1 && heard.events[0].rank == -1);
    assert_true(heard.events[0].value == 3 && fabs(heard.events[0].threshold - 1) < 1e-9);
    diagnosis_close(diagnosis);
}

/* An ongoing state is one event, however often it pauses; where it grows fourfold it is another, since the same step.
 */
static void an_ongoing_state_is_raised_once(void **state)
{
    (void)state;
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
    for (uint64_t step = 10; step <= 300; step += 10)
        feed_head(diagnosis, step, (struct head){.key = 2, .key_max = step % 60 == 10 ? 11 : 3});
    assert_int_equal(heard.count, 1);
    feed_head(diagnosis, 310, (struct head){.key = 2, .key_max = 43});
    assert_int_equal(heard.count, 1);
    feed_head(diagnosis, 320, (struct head){.key = 2, .key_max = 45});
    assert_int_equal(heard.count, 2);
    assert_int_equal(heard.events[1].since, 10);
    diagnosis_close(diagnosis);
}

/* Eight records without a finding end a state: the next one is another event. */
static void a_state_has_cleared_after_eight_quiet_records(void **state)
{
    (void)state;
    for (uint64_t quiet = 7; quiet <= 8; quiet++) {
        struct heard heard;
        struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
        uint64_t step = 10;
        feed_head(diagnosis, step, (struct head){.key = 2, .key_max = 11});
        for (uint64_t i = 0; i < quiet; i++)
            feed_head(diagnosis, step += 10, (struct head){.key = 2, .key_max = 3});
        feed_head(diagnosis, step += 10, (struct head){.key = 2, .key_max = 11});
        assert_int_equal(heard.count, quiet == 8 ? 2 : 1);
        diagnosis_close(diagnosis);
    }
}

static void ranks_are_slow_from_one_and_a_half_times_the_others_on(void **state)
{
    (void)state;
    const struct {
        double seconds, loss;
        uint64_t step; /* of the event; 0: none */
    } cases[] = {{1.49, 1, 0}, {1.51, 1, 3}, {1, 1.49, 0}, {1, 1.51, 10}, {1, 0.51, 0}, {1, 0.49, 10}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct heard heard;
        struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
        double seconds[] = {1, 1, cases[i].seconds}, loss[] = {1, 1, cases[i].loss};
        for (uint64_t step = 1; step <= 20; step++)
            diagnosis_ranks(diagnosis, step, seconds, loss, 3);
        assert_int_equal(heard.count, cases[i].step > 0);
        if (cases[i].step > 0) {
            assert_int_equal(heard.events[0].step, cases[i].step);
            assert_int_equal(heard.events[0].rank, 2);
            assert_true(heard.events[0].layer == -1 && heard.events[0].head == -1);
            assert_true(heard.events[0].threshold ==
                        (cases[i].seconds > 1 ? 1.5 : 0.5)); /* which tells time from loss */
            assert_true(fabs(heard.events[0].value - (cases[i].seconds > 1 ? 1.51 : 0.51)) < 1e-9);
        }
        diagnosis_close(diagnosis);
    }
}

/* Now one rank, now another: none of them is slow. */
static void ranks_that_are_slow_in_turn_are_not_named(void **state)
{
    (void)state;
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
    for (uint64_t step = 1; step <= 40; step++) {
        double seconds[] = {1, 1, 1};
        seconds[step / 2 % 3] = 2;
        diagnosis_ranks(diagnosis, step, seconds, NULL, 3);
    }
    assert_int_equal(heard.count, 0);
    diagnosis_close(diagnosis);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_a_warning_at_1000_and_critical_at_10000),
        cmocka_unit_test(sharp_heads_matter_by_how_large_their_logits_are),
        cmocka_unit_test(key_outliers_are_critical_where_logits_are_high_too),
        cmocka_unit_test(the_worst_head_speaks_for_the_layer),
        cmocka_unit_test(four_high_losses_in_a_row_are_critical),
        cmocka_unit_test(a_spike_is_six_deviations_once_32_steps_are_known),
        cmocka_unit_test(a_gradient_spike_stands_out_of_its_neighbours),
        cmocka_unit_test(a_record_without_heads_says_nothing),
        cmocka_unit_test(a_layer_has_gradient_spikes_of_its_own),
        cmocka_unit_test(an_ongoing_state_is_raised_once),
        cmocka_unit_test(a_state_has_cleared_after_eight_quiet_records),
        cmocka_unit_test(ranks_are_slow_from_one_and_a_half_times_the_others_on),
        cmocka_unit_test(ranks_that_are_slow_in_turn_are_not_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
