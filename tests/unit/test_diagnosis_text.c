/* What an event says: who, how much, since when, and what to do about it under this kind of attention. */
#include "tests/unit/diagnosis_test.h"

#include "src/diagnosis/state.h"

/* The event as it is raised, with its words. */
static struct event said(struct event event, enum attention_kind kind)
{
    static struct heard heard;
    struct diagnosis *diagnosis = listen_to(&heard, kind);
    struct rule_state state = {.quiet = 0};
    const struct finding finding = {.severity = event.severity ? event.severity : SEVERITY_WARNING,
                                    .head = event.head,
                                    .affected = event.affected,
                                    .value = event.value,
                                    .threshold = event.threshold,
                                    .since = event.since,
                                    .predicted = event.predicted};
    diagnosis_settle(diagnosis, &state, event.kind, event.step, event.layer, event.rank, &finding);
    assert_int_equal(heard.count, 1);
    diagnosis_close(diagnosis);
    return heard.events[0];
}

static void expect(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("'%s' is not in: %s", part, text);
}

static void expect_not(const char *text, const char *part)
{
    if (strstr(text, part))
        fail_msg("'%s' is in: %s", part, text);
}

static struct event of_head(enum event_kind rule, enum severity severity, double value)
{
    return (struct event){.step = 900,
                          .since = 800,
                          .kind = rule,
                          .severity = severity,
                          .layer = 3,
                          .head = 2,
                          .rank = -1,
                          .affected = 1,
                          .value = value};
}

static void an_event_says_where_it_is(void **state)
{
    (void)state;
    struct event event = of_head(EVENT_LOGIT_EXPLOSION, SEVERITY_CRITICAL, 20000);
    expect(said(event, ATTENTION_STANDARD).message, "layer 3, head 2: ");
    event.affected = 2;
    expect(said(event, ATTENTION_STANDARD).message, "layer 3, head 2 (and 1 more head): ");
    event.affected = 3;
    expect(said(event, ATTENTION_STANDARD).message, "layer 3, head 2 (and 2 more heads): ");
    event.layer = event.head = 0;
    expect(said(event, ATTENTION_STANDARD).message, "layer 0, head 0 (and 2 more heads): ");
    struct event spike = {.kind = EVENT_GRADIENT_SPIKE, .layer = 0, .head = -1, .value = 9, .threshold = 1};
    expect(said(spike, ATTENTION_STANDARD).message,
           "the gradient norm of the query, key and value weights of layer 0 is 9 where its recent median is 1");
    spike.layer = -1;
    expect(said(spike, ATTENTION_STANDARD).message, "the gradient norm of the whole model is 9");
}

static void logits_say_since_when_and_until_when(void **state)
{
    (void)state;
    struct event event = of_head(EVENT_LOGIT_EXPLOSION, SEVERITY_WARNING, 1234);
    expect(said(event, ATTENTION_STANDARD).message, "the largest attention logit is 1234 and has risen since step 800");
    expect_not(said(event, ATTENTION_STANDARD).message, "at this rate");
    event.predicted = 1;
    expect(said(event, ATTENTION_STANDARD).message, "; at this rate it passes 1e+04 at step 1");
    struct event collapse = of_head(EVENT_ENTROPY_COLLAPSE, SEVERITY_WARNING, 0.25);
    collapse.predicted = 1500;
    expect(said(collapse, ATTENTION_STANDARD).message, "entropy is 0.25 nats and has fallen since step 800");
    expect(said(collapse, ATTENTION_STANDARD).message, "; at this rate it passes the critical limit at step 1500");
}

/* By which of the two norms still reach the logits. */
static void the_advice_fits_the_kind_of_attention(void **state)
{
    (void)state;
    struct event event = of_head(EVENT_LOGIT_EXPLOSION, SEVERITY_CRITICAL, 20000);
    const struct {
        enum attention_kind kind;
        const char *advice;
    } cases[] = {
        {ATTENTION_STANDARD, "Train with attention.kind: quest (keys normalised"},
        {ATTENTION_QNORM, "The keys are not normalised here: train with attention.kind: quest"},
        {ATTENTION_QUEST, "Only the query norm can do this under quest: "},
        {ATTENTION_QKNORM, "Both norms are bounded here"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect(said(event, cases[i].kind).advice, cases[i].advice);
}

static void a_key_outlier_that_the_normalisation_stops_is_nothing_to_act_on(void **state)
{
    (void)state;
    struct event harmless = said(of_head(EVENT_KEY_NORM_OUTLIER, SEVERITY_INFO, 7.5), ATTENTION_QUEST);
    expect(harmless.message, "one token's key norm is 7.5 times the mean, which the normalisation of the keys keeps");
    expect(harmless.advice, "Nothing to do");
    for (int severity = SEVERITY_WARNING; severity <= SEVERITY_CRITICAL; severity++) {
        struct event event = said(of_head(EVENT_KEY_NORM_OUTLIER, severity, 7.5), ATTENTION_STANDARD);
        expect(event.message, "one token's key norm is 7.5 times the mean, so it draws attention from every query");
        expect(event.advice, "attention.kind: quest");
    }
}

static void the_other_rules_of_heads_have_their_words(void **state)
{
    (void)state;
    struct event runaway = said(of_head(EVENT_QUERY_KEY_RUNAWAY, SEVERITY_WARNING, 1.7), ATTENTION_STANDARD);
    expect(runaway.message, "without slowing down since step 800, their product 1.7-fold");
    expect(runaway.advice, "attention.kind: quest");
    struct event dead = said(of_head(EVENT_DEAD_HEAD, SEVERITY_INFO, 4.17), ATTENTION_STANDARD);
    expect(dead.message, "attention has stayed uniform since step 800 (entropy 4.17 nats)");
    expect(dead.advice, "Harmless");
}

static void a_spike_and_a_lost_trend_are_told_apart(void **state)
{
    (void)state;
    struct event event = {.kind = EVENT_LOSS_SPIKE, .severity = SEVERITY_WARNING, .layer = -1, .head = -1};
    event.value = 3.5;
    event.threshold = 1.25;
    struct event single = said(event, ATTENTION_STANDARD);
    assert_string_equal(single.message, "the loss is 3.5 where its recent median is 1.25");
    expect(single.advice, "one hard batch");
    event.severity = SEVERITY_CRITICAL;
    struct event several = said(event, ATTENTION_STANDARD);
    expect(several.message, "several logged steps in a row: it has left its trend");
    expect(several.advice, "Go on from the last checkpoint");
}

static void a_nan_says_where_it_was_seen(void **state)
{
    (void)state;
    struct event event = {.step = 77, .kind = EVENT_NONFINITE, .severity = SEVERITY_CRITICAL, .layer = -1, .head = -1};
    assert_string_equal(said(event, ATTENTION_STANDARD).message,
                        "the whole model (loss or gradient norm): a NaN or Inf at step 77");
    event.layer = 0;
    assert_string_equal(said(event, ATTENTION_STANDARD).message, "layer 0: a NaN or Inf at step 77");
}

static void a_rank_is_slow_or_has_another_loss(void **state)
{
    (void)state;
    struct event event = {.kind = EVENT_RANK_SKEW, .severity = SEVERITY_WARNING, .layer = -1, .head = -1, .rank = 4};
    event.value = 1.75;
    event.threshold = 1.5;
    struct event slow = said(event, ATTENTION_STANDARD);
    expect(slow.message, "rank 4: its time a step is 1.75 times the other ranks' mean");
    expect(slow.advice, "throttled GPU");
    event.threshold = 0.5;
    struct event odd = said(event, ATTENTION_STANDARD);
    expect(odd.message, "rank 4: its loss is 1.75 times off the other ranks' mean");
    expect(odd.advice, "that rank's data");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_says_where_it_is),
        cmocka_unit_test(logits_say_since_when_and_until_when),
        cmocka_unit_test(the_advice_fits_the_kind_of_attention),
        cmocka_unit_test(a_key_outlier_that_the_normalisation_stops_is_nothing_to_act_on),
        cmocka_unit_test(the_other_rules_of_heads_have_their_words),
        cmocka_unit_test(a_spike_and_a_lost_trend_are_told_apart),
        cmocka_unit_test(a_nan_says_where_it_was_seen),
        cmocka_unit_test(a_rank_is_slow_or_has_another_loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
