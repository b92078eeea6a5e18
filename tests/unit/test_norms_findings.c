/* The rules over a log say what they said while it was written: with the limits of the run's own config.yaml. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/norms/findings.h"
#include "tests/unit/scratch.h"

enum { RECORDS = 60, EVERY = 10, HEADS = 2, EVENTS = 64, TOKENS = 65 };

static const struct diagnosis_limits usual = {2000, 1e4, 0.02, 5, 6}, changed = {300, 2e3, 0.05, 3, 3};

struct heard {
    struct event events[EVENTS];
    size_t count;
};

static void hear(void *owner, const struct event *event)
{
    struct heard *heard = owner;
    assert_true(heard->count < EVENTS);
    heard->events[heard->count++] = *event;
}

/* ---- a made-up run: each of the five limits decides something in it ---- */

/* As a reader of the log gets it back. */
static double logged(double value)
{
    char text[32];
    snprintf(text, sizeof text, "%.9g", value);
    return strtod(text, NULL);
}

struct layer {
    double query[HEADS], key[HEADS], longest_key[HEADS], logit[HEADS], entropy[HEADS];
};

static void make_step(size_t index, double *loss, double *gradient_norm, struct layer *layer)
{
    double jitter = index % 2 == 0 ? 0.01 : -0.01, step = (double)(index * EVERY);
    *loss = logged(2 + jitter + (index == 50 ? 0.18 : 0)); /* four to five robust deviations */
    *gradient_norm = logged(1 + jitter);
    for (size_t head = 0; head < HEADS; head++) {
        layer->query[head] = logged(3 + jitter);
        layer->key[head] = logged(2 + jitter);
        layer->longest_key[head] = logged(head == 1 && index >= 20 ? 8 : 3); /* four times the mean */
        layer->logit[head] = logged(head == 0 ? 60 * exp(step / 350) : 55);  /* 324 at the end */
        layer->entropy[head] = logged((head == 0 ? 0.3 : 0.18) * log(TOKENS));
    }
}

static struct norm_record record_of(size_t index, const struct layer *layer)
{
    return (struct norm_record){.step = (index + 1) * EVERY,
                                .heads = HEADS,
                                .q_norm_mean = layer->query,
                                .k_norm_mean = layer->key,
                                .k_norm_max = layer->longest_key,
                                .logit_max = layer->logit,
                                .entropy_mean = layer->entropy,
                                .qkv_grad_norm = NAN};
}

/* As the trainer does it: a step, then its layers. */
static void judge_while_training(struct heard *heard, const struct diagnosis_limits *limits, size_t tokens)
{
    struct diagnosis_options options = diagnosis_defaults();
    struct diagnosis *diagnosis;
    struct error error;
    options.kind = ATTENTION_STANDARD;
    options.tokens = tokens;
    diagnosis_set_limits(&options, limits);
    heard->count = 0;
    assert_true(diagnosis_open(&diagnosis, &options, hear, heard, &error));
    for (size_t i = 0; i < RECORDS; i++) {
        double loss, gradient_norm;
        struct layer layer;
        make_step(i, &loss, &gradient_norm, &layer);
        struct norm_record record = record_of(i, &layer);
        diagnosis_step(diagnosis, record.step, loss, gradient_norm);
        assert_true(diagnosis_norms(diagnosis, &record, &error));
    }
    diagnosis_close(diagnosis);
}

static void write_list(FILE *file, const char *name, const double *values)
{
    fprintf(file, ", \"%s\": [%.9g, %.9g]", name, values[0], values[1]);
}

static void write_logs(void)
{
    FILE *metrics = fopen(scratch_path("metrics.jsonl"), "w"), *norms = fopen(scratch_path("norms.jsonl"), "w");
    assert_true(metrics && norms);
    for (size_t i = 0; i < RECORDS; i++) {
        double loss, gradient_norm;
        struct layer layer;
        make_step(i, &loss, &gradient_norm, &layer);
        fprintf(metrics, "{\"step\": %zu, \"loss\": %.9g, \"grad_norm\": %.9g}\n", (i + 1) * EVERY, loss,
                gradient_norm);
        fprintf(norms, "{\"step\": %zu, \"layer\": 0", (i + 1) * EVERY);
        write_list(norms, "q_norm_mean", layer.query);
        write_list(norms, "k_norm_mean", layer.key);
        write_list(norms, "k_norm_max", layer.longest_key);
        write_list(norms, "logit_max", layer.logit);
        write_list(norms, "entropy_mean", layer.entropy);
        fputs("}\n", norms);
    }
    assert_int_equal(fclose(metrics), 0);
    assert_int_equal(fclose(norms), 0);
}

/* `text` NULL: no config.yaml at all. */
static void write_config(const char *text)
{
    remove(scratch_path("config.yaml"));
    if (!text)
        return;
    FILE *file = fopen(scratch_path("config.yaml"), "w");
    assert_non_null(file);
    fprintf(file, "model: {image_size: 32, patch_size: 4}\nattention: {kind: standard}\n%s", text);
    assert_int_equal(fclose(file), 0);
}

static void write_limits(const struct diagnosis_limits *limits)
{
    char text[512];
    snprintf(text, sizeof text,
             "diagnosis: {horizon_steps: %.17g, logit_critical: %.17g, entropy_critical: %.17g, key_outlier: %.17g, "
             "spike_z: %.17g}\n",
             limits->horizon_steps, limits->logit_critical, limits->entropy_critical, limits->key_outlier,
             limits->spike_z);
    write_config(text);
}

/* ---- the same findings ---- */

static bool are_equal(const struct event *a, const struct event *b)
{
    return a->step == b->step && a->since == b->since && a->predicted == b->predicted && a->kind == b->kind &&
           a->severity == b->severity && a->layer == b->layer && a->head == b->head && a->rank == b->rank &&
           a->affected == b->affected && a->value == b->value && a->threshold == b->threshold &&
           strcmp(a->message, b->message) == 0 && strcmp(a->advice, b->advice) == 0;
}

static bool are_same(const struct event *a, size_t a_count, const struct heard *b)
{
    if (a_count != b->count)
        return false;
    for (size_t i = 0; i < a_count; i++) {
        bool found = false;
        for (size_t j = 0; j < b->count && !found; j++)
            found = are_equal(&a[i], &b->events[j]);
        if (!found)
            return false;
    }
    return true;
}

static bool log_says(const struct heard *heard)
{
    struct norms_run run;
    struct norms_findings findings;
    struct error error;
    assert_true(norms_run_open(&run, scratch, &error));
    assert_true(norms_findings_open(&findings, &run, &error));
    assert_true(norms_findings_read(&findings, &run, NULL, NULL, &error));
    bool same = are_same(findings.events, findings.count, heard);
    for (size_t i = 0; !same && i < findings.count; i++)
        print_message("step %llu: %s\n", (unsigned long long)findings.events[i].step, findings.events[i].message);
    norms_findings_close(&findings);
    norms_run_close(&run);
    return same;
}

static void each_limit_is_the_runs_own(void **state)
{
    static struct heard with_usual, heard;
    (void)state;
    judge_while_training(&with_usual, &usual, TOKENS);
    for (int which = 0; which < 5; which++) {
        struct diagnosis_limits limits = usual;
        double *const fields[] = {&limits.horizon_steps, &limits.logit_critical, &limits.entropy_critical,
                                  &limits.key_outlier, &limits.spike_z};
        const double others[] = {changed.horizon_steps, changed.logit_critical, changed.entropy_critical,
                                 changed.key_outlier, changed.spike_z};
        *fields[which] = others[which];
        judge_while_training(&heard, &limits, TOKENS);
        assert_false(are_same(heard.events, heard.count, &with_usual)); /* or the test says nothing of this limit */
        write_limits(&limits);
        assert_true(log_says(&heard));
    }
}

static void all_five_at_once(void **state)
{
    static struct heard heard;
    bool seen[EVENT_RULES] = {false};
    (void)state;
    judge_while_training(&heard, &changed, TOKENS);
    for (size_t i = 0; i < heard.count; i++)
        seen[heard.events[i].kind] = true;
    assert_true(seen[EVENT_LOGIT_EXPLOSION] && seen[EVENT_ENTROPY_COLLAPSE] && seen[EVENT_KEY_NORM_OUTLIER] &&
                seen[EVENT_LOSS_SPIKE]);
    write_limits(&changed);
    assert_true(log_says(&heard));
}

/* What no configuration may hold is not obeyed either; the other limits of the same file are. */
static void what_is_not_given_is_the_default(void **state)
{
    static struct heard with_usual, heard;
    struct diagnosis_limits one = usual;
    (void)state;
    judge_while_training(&with_usual, &usual, TOKENS);
    write_config("");
    assert_true(log_says(&with_usual));
    write_config("diagnosis: {horizon_steps: -1, logit_critical: much, entropy_critical: 0.3, key_outlier: 0.5, "
                 "spike_z: ~}\n");
    assert_true(log_says(&with_usual));
    one.spike_z = changed.spike_z;
    judge_while_training(&heard, &one, TOKENS);
    write_config("diagnosis: {logit_critical: nan, spike_z: 3.0}\n");
    assert_true(log_says(&heard));
}

static void without_a_configuration_the_log_is_judged_by_defaults(void **state)
{
    static struct heard with_usual;
    (void)state;
    judge_while_training(&with_usual, &usual, 0);
    write_config(NULL);
    assert_true(log_says(&with_usual));
}

/* Which warnings follow from a limit is said twice, in diagnosis_defaults and diagnosis_set_limits. */
static void default_limits_give_the_defaults(void **state)
{
    struct diagnosis_options expected = diagnosis_defaults(), options = diagnosis_defaults();
    (void)state;
    diagnosis_set_limits(&options, &changed);
    assert_true(options.horizon_steps == 300 && options.spike_z == 3);
    assert_true(options.logit_critical == 2e3 && fabs(options.logit_warning - 200) < 1e-9);
    assert_true(options.entropy_critical == 0.05 && fabs(options.entropy_warning - 0.25) < 1e-9);
    assert_true(options.key_outlier_warning == 3 && options.key_outlier_critical == 12);
    diagnosis_set_limits(&options, &usual);
    size_t first = offsetof(struct diagnosis_options, horizon_steps); /* from there on doubles, without padding */
    assert_memory_equal((char *)&options + first, (char *)&expected + first, sizeof options - first);
}

static int make_run(void **state)
{
    if (make_scratch(state) != 0)
        return -1;
    write_logs();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_limit_is_the_runs_own),
        cmocka_unit_test(all_five_at_once),
        cmocka_unit_test(what_is_not_given_is_the_default),
        cmocka_unit_test(without_a_configuration_the_log_is_judged_by_defaults),
        cmocka_unit_test(default_limits_give_the_defaults),
    };
    return cmocka_run_group_tests(tests, make_run, remove_scratch);
}
