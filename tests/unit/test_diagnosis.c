/* The diagnosis on made-up runs: silent about healthy ones, early and right about diverging ones. */
#include <math.h>

#include "src/base/clock.h"
#include "tests/unit/diagnosis_test.h"

enum { LAYERS = 4, HEADS = 3, EVERY = 10 };

static size_t count_of(const struct heard *heard, int rule, enum severity least)
{
    size_t count = 0;
    for (size_t i = 0; i < heard->count; i++)
        count += (rule < 0 || (int)heard->events[i].kind == rule) && heard->events[i].severity >= least;
    return count;
}

/* ---- made-up runs ---- */

/* Norms of one head at one step; `blow_up` is the step at which its norms begin to grow, 0 = never. */
struct head_state {
    double query_norm, key_norm, logit, entropy;
};

static struct head_state head_at(double step, double blow_up)
{
    double ramp = 1 - exp(-step / 800);
    struct head_state state = {.query_norm = 1 + 5 * ramp, .key_norm = 1 + 4 * ramp};
    if (blow_up > 0 && step > blow_up) {
        state.query_norm *= exp((step - blow_up) / 500);
        state.key_norm *= exp((step - blow_up) / 500);
    }
    state.logit = 0.5 * state.query_norm * state.key_norm;
    state.entropy = log(TOKENS) / (1 + state.logit * state.logit / 500);
    return state;
}

static void feed_norms(struct diagnosis *diagnosis, uint64_t step, double blow_up)
{
    for (size_t layer = 0; layer < LAYERS; layer++) {
        double values[11][HEADS];
        for (size_t head = 0; head < HEADS; head++) {
            struct head_state state = head_at((double)step, layer == 2 && head == 1 ? blow_up : 0);
            double wobble = 1 + 0.03 * noise();
            values[0][head] = state.query_norm * wobble;
            values[1][head] = 0.2 * state.query_norm;
            values[2][head] = 0.5 * state.query_norm;
            values[3][head] = 1.8 * state.query_norm;
            values[4][head] = state.key_norm * wobble;
            values[5][head] = 0.2 * state.key_norm;
            values[6][head] = 0.5 * state.key_norm;
            values[7][head] = 1.8 * state.key_norm;
            values[8][head] = state.logit * (1 + 0.05 * noise());
            values[9][head] = state.entropy * (1 + 0.01 * noise());
            values[10][head] = 0.3 * state.entropy;
        }
        struct norm_record record = {step,      layer,     HEADS,     values[0],  values[1],
                                     values[2], values[3], values[4], values[5],  values[6],
                                     values[7], values[8], values[9], values[10], 0.5 * exp(0.2 * noise())};
        feed(diagnosis, &record);
    }
}

static double healthy_loss(double step)
{
    return 0.3 + 4 * exp(-step / 900) + 0.05 * noise();
}

/* The loss of the diverging run leaves its trend when one head's logits pass 30,000. */
static struct heard *run(enum attention_kind kind, uint64_t seed, double blow_up, uint64_t *broke)
{
    static struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, kind);
    noise_state = seed;
    *broke = 0;
    for (uint64_t step = EVERY; step <= 6000; step += EVERY) {
        double loss = healthy_loss((double)step), gradient = (1 + (double)step / 3000) * exp(0.25 * noise());
        if (blow_up > 0 && head_at((double)step, blow_up).logit > 30000) {
            if (*broke == 0)
                *broke = step;
            loss += 0.02 * (double)(step - *broke);
            gradient *= 8;
        }
        feed_norms(diagnosis, step, blow_up);
        diagnosis_step(diagnosis, step, loss, gradient);
        if (*broke > 0 && step > *broke + 400)
            break;
    }
    diagnosis_close(diagnosis);
    return &heard;
}

/* ---- tests ---- */

static void healthy_runs_raise_nothing_serious(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++)
        for (int kind = 0; kind < ATTENTION_KINDS; kind++) {
            uint64_t broke;
            struct heard *heard = run((enum attention_kind)kind, seed, 0, &broke);
            if (count_of(heard, -1, SEVERITY_WARNING) > 0)
                print_message("seed %d: %s\n", (int)seed, first_of(heard, -1, SEVERITY_WARNING)->message);
            assert_int_equal(count_of(heard, -1, SEVERITY_WARNING), 0);
        }
}

static void a_diverging_run_is_called_early_and_at_the_right_head(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t broke;
        struct heard *heard = run(ATTENTION_STANDARD, seed, 1500 + 50 * (double)seed, &broke);
        assert_true(broke > 0);
        const struct event *critical = first_of(heard, -1, SEVERITY_CRITICAL);
        assert_non_null(critical);
        assert_true(critical->step + 100 <= broke);
        assert_int_equal(critical->layer, 2);
        assert_int_equal(critical->head, 1);
        assert_non_null(strstr(critical->message, "layer 2, head 1"));
        assert_non_null(first_of(heard, EVENT_QUERY_KEY_RUNAWAY, SEVERITY_WARNING));
        assert_non_null(first_of(heard, EVENT_ENTROPY_COLLAPSE, SEVERITY_CRITICAL));
        assert_non_null(first_of(heard, EVENT_LOSS_SPIKE, SEVERITY_CRITICAL));
        assert_non_null(first_of(heard, EVENT_GRADIENT_SPIKE, SEVERITY_WARNING));
        assert_true(count_of(heard, -1, SEVERITY_INFO) < 40);
    }
}

static void the_predicted_step_is_near_the_true_one(void **state)
{
    (void)state;
    uint64_t broke, crossed = 0;
    struct heard *heard = run(ATTENTION_STANDARD, 7, 1500, &broke);
    for (uint64_t step = 1500; crossed == 0; step += EVERY)
        crossed = head_at((double)step, 1500).logit >= 1e4 ? step : 0;
    const struct event *warning = first_of(heard, EVENT_LOGIT_EXPLOSION, SEVERITY_WARNING);
    assert_non_null(warning);
    assert_true(warning->predicted > warning->step);
    double ahead = (double)(crossed - warning->step), predicted = (double)(warning->predicted - warning->step);
    assert_true(ahead > 500);
    assert_true(fabs(predicted - ahead) < 0.3 * ahead);
}

static void logits_that_rise_and_settle_are_not_critical(void **state)
{
    (void)state;
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
    for (uint64_t step = 10; step <= 20000; step += 10) {
        double logit = 300 * (1 - exp(-(double)step / 3000)) * (1 + 0.05 * noise());
        struct norm_record record = {.step = step, .layer = 0, .heads = 1, .logit_max = &logit, .qkv_grad_norm = NAN};
        feed(diagnosis, &record);
    }
    assert_int_equal(count_of(&heard, -1, SEVERITY_CRITICAL), 0);
    diagnosis_close(diagnosis);
}

/* An ongoing state is raised once, again when it worsens fourfold, and anew after it has cleared. */
static void hysteresis(void **state)
{
    (void)state;
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
    const struct {
        double logit;
        int steps;
        size_t events;
    } phases[] = {{2000, 60, 1}, {2500, 60, 1}, {9000, 60, 2}, {20000, 60, 3}, {10, 60, 3}, {2000, 60, 4}};
    uint64_t step = 0;
    for (size_t phase = 0; phase < sizeof phases / sizeof *phases; phase++) {
        for (int i = 0; i < phases[phase].steps; i++) {
            step += 10;
            struct norm_record record = {
                .step = step, .heads = 1, .logit_max = &phases[phase].logit, .qkv_grad_norm = NAN};
            feed(diagnosis, &record);
        }
        size_t raised = 0;
        for (size_t i = 0; i < heard.count; i++)
            raised += heard.events[i].predicted == 0;
        assert_int_equal(raised, phases[phase].events);
    }
    diagnosis_close(diagnosis);
}

static void single_spikes_and_numbers_that_are_not_finite(void **state)
{
    (void)state;
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
    noise_state = 3;
    for (uint64_t step = 1; step <= 200; step++) {
        bool spike = step == 100;
        diagnosis_step(diagnosis, step, 1 + 0.01 * noise() + 2 * spike, exp(0.2 * noise()) * (spike ? 30 : 1));
    }
    assert_int_equal(heard.count, 2);
    assert_int_equal(heard.events[0].kind, EVENT_LOSS_SPIKE);
    assert_int_equal(heard.events[1].kind, EVENT_GRADIENT_SPIKE);
    assert_int_equal(count_of(&heard, -1, SEVERITY_CRITICAL), 0);
    diagnosis_step(diagnosis, 200, 50, 1); /* a repeated step is not read again */
    assert_int_equal(heard.count, 2);
    diagnosis_step(diagnosis, 201, NAN, 1);
    diagnosis_step(diagnosis, 202, NAN, NAN);
    assert_int_equal(heard.count, 3);
    assert_int_equal(heard.events[2].kind, EVENT_NONFINITE);

    double broken[] = {1, INFINITY};
    struct norm_record record = {.step = 201, .layer = 5, .heads = 2, .logit_max = broken, .qkv_grad_norm = NAN};
    feed(diagnosis, &record);
    assert_int_equal(heard.count, 4);
    assert_int_equal(heard.events[3].layer, 5);
    assert_int_equal(heard.events[3].head, 1);
    diagnosis_close(diagnosis);
}

static void key_outliers_matter_only_where_keys_reach_the_logits(void **state)
{
    (void)state;
    enum attention_kind kinds[] = {ATTENTION_STANDARD, ATTENTION_QNORM, ATTENTION_QUEST};
    enum severity expected[] = {SEVERITY_WARNING, SEVERITY_WARNING, SEVERITY_INFO};
    for (size_t i = 0; i < 3; i++) {
        struct heard heard;
        struct diagnosis *diagnosis = listen_to(&heard, kinds[i]);
        double mean = 2, largest = 16, logit = 5;
        struct norm_record record = {.step = 10,
                                     .heads = 1,
                                     .k_norm_mean = &mean,
                                     .k_norm_max = &largest,
                                     .logit_max = &logit,
                                     .qkv_grad_norm = NAN};
        feed(diagnosis, &record);
        assert_int_equal(heard.count, 1);
        assert_int_equal(heard.events[0].kind, EVENT_KEY_NORM_OUTLIER);
        assert_int_equal(heard.events[0].severity, expected[i]);
        diagnosis_close(diagnosis);
    }
}

static void a_slow_rank_is_named(void **state)
{
    (void)state;
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
    double even[] = {0.1, 0.11, 0.1, 0.105}, skewed[] = {0.1, 0.1, 0.2, 0.1};
    double loss[] = {1.0, 1.1, 0.9, 1.0}, odd_loss[] = {1.0, 2.5, 1.0, 1.0};
    for (uint64_t step = 1; step <= 50; step++)
        diagnosis_ranks(diagnosis, step, even, loss, 4);
    assert_int_equal(heard.count, 0);
    for (uint64_t step = 51; step <= 60; step++)
        diagnosis_ranks(diagnosis, step, skewed, NULL, 4);
    assert_int_equal(heard.count, 1);
    assert_int_equal(heard.events[0].rank, 2);
    assert_int_equal(heard.events[0].step, 53);
    for (uint64_t step = 61; step <= 90; step++)
        diagnosis_ranks(diagnosis, step, even, odd_loss, 4);
    assert_int_equal(heard.count, 2);
    assert_int_equal(heard.events[1].rank, 1);
    diagnosis_close(diagnosis);
}

static void a_head_that_stays_uniform_is_dead(void **state)
{
    (void)state;
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
    for (uint64_t step = 10; step <= 3000; step += 10) {
        double entropy[] = {log(TOKENS) * (1 - 1e-5), 2 + 0.01 * noise()}, logit[] = {0.01, 9};
        struct norm_record record = {
            .step = step, .heads = 2, .entropy_mean = entropy, .logit_max = logit, .qkv_grad_norm = NAN};
        feed(diagnosis, &record);
    }
    assert_int_equal(heard.count, 1);
    assert_int_equal(heard.events[0].kind, EVENT_DEAD_HEAD);
    assert_int_equal(heard.events[0].step, 1000); /* earlier, a head may not have begun to learn */
    assert_int_equal(heard.events[0].severity, SEVERITY_INFO);
    assert_int_equal(heard.events[0].head, 0);
    diagnosis_close(diagnosis);
}

/* vit_base: 12 layers of 12 heads. A step there takes longer than 50 ms on any device, one in ten is logged. */
static void a_logged_step_costs_little(void **state)
{
    (void)state;
    enum { MANY_LAYERS = 12, MANY_HEADS = 12, STEPS = 400 };
    struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, ATTENTION_STANDARD);
    double values[MANY_HEADS], entropy[MANY_HEADS];
    double begin_s = clock_s();
    for (uint64_t step = 1; step <= STEPS; step++) {
        for (size_t head = 0; head < MANY_HEADS; head++) {
            values[head] = 60 + noise();
            entropy[head] = 1.2 + 0.01 * noise();
        }
        for (size_t layer = 0; layer < MANY_LAYERS; layer++) {
            struct norm_record record = {step,   layer,  MANY_HEADS, values, values,  values, values, values,
                                         values, values, values,     values, entropy, values, 1};
            feed(diagnosis, &record);
        }
        diagnosis_step(diagnosis, step, 1 + 0.01 * noise(), 1 + 0.1 * noise());
    }
    double step_s = (clock_s() - begin_s) / STEPS;
    print_message("diagnosis of 12 x 12 heads: %.0f us a logged step\n", 1e6 * step_s);
    assert_true(step_s < 5e-3);
    diagnosis_close(diagnosis);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(healthy_runs_raise_nothing_serious),
        cmocka_unit_test(a_diverging_run_is_called_early_and_at_the_right_head),
        cmocka_unit_test(the_predicted_step_is_near_the_true_one),
        cmocka_unit_test(logits_that_rise_and_settle_are_not_critical),
        cmocka_unit_test(hysteresis),
        cmocka_unit_test(single_spikes_and_numbers_that_are_not_finite),
        cmocka_unit_test(key_outliers_matter_only_where_keys_reach_the_logits),
        cmocka_unit_test(a_slow_rank_is_named),
        cmocka_unit_test(a_head_that_stays_uniform_is_dead),
        cmocka_unit_test(a_logged_step_costs_little),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
