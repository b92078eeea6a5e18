/* What a run says of itself comes back as it was written. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/record/metric.h"
#include "src/record/norm_lists.h"
#include "src/record/read.h"
#include "src/record/write.h"

static struct log_line parsed;

/* The line as it would lie in a file, read by the logs' own reader. */
static const struct log_line *read_back(struct json_line *line)
{
    assert_true(json_line_end(line));
    assert_true(log_line_read(&parsed, line->text, line->bytes));
    json_line_free(line);
    return &parsed;
}

static int free_line(void **state)
{
    (void)state;
    log_line_free(&parsed);
    return 0;
}

static void metrics_come_back(const char *split)
{
    struct json_line line;
    struct metrics_record written = {.step = 17}, read;
    strcpy(written.split, split);
    double value = 1;
    for (const struct metric *metric = metrics_of(&written); metric->name; metric++)
        metric_set(&written, metric, value++);
    json_line_begin(&line);
    metrics_record_write(&line, &written);
    assert_true(metrics_record_read(&read, read_back(&line)));
    assert_int_equal(read.step, 17);
    assert_string_equal(read.split, split);
    assert_true(read.time > 1.6e9);
    for (const struct metric *metric = metrics_of(&written); metric->name; metric++)
        assert_true(metric_value(&read, metric) == metric_value(&written, metric));
}

static void steps_and_evaluations(void **state)
{
    (void)state;
    metrics_come_back("");
    metrics_come_back("val");
}

static void unknown_numbers_are_null_and_missing_ones_unknown(void **state)
{
    (void)state;
    struct json_line line;
    struct metrics_record written = {.step = 1, .loss = NAN, .grad_norm = INFINITY, .mfu = NAN}, read;
    json_line_begin(&line);
    metrics_record_write(&line, &written);
    assert_true(metrics_record_read(&read, read_back(&line)));
    assert_true(read.complete && isnan(read.loss) && isnan(read.grad_norm) && isnan(read.mfu));
    assert_true(isnan(read.top5) && isnan(read.seconds)); /* an evaluation has them, a step does not */
    json_line_begin(&line);
    json_line_whole(&line, "step", 2);
    json_line_number(&line, "loss", 3);
    assert_true(metrics_record_read(&read, read_back(&line)));
    assert_true(!read.complete && read.loss == 3 && isnan(read.grad_norm));
    json_line_begin(&line);
    json_line_number(&line, "loss", 3);
    assert_false(metrics_record_read(&read, read_back(&line)));
}

static void every_list_has_its_own_place(void **state)
{
    (void)state;
    struct json_line line;
    double values[NORM_LISTS][2], own[2] = {-1, -2};
    struct norm_record written = {.step = 3, .layer = 2, .heads = 2, .qkv_grad_norm = 0.5}, read;
    const struct log_field_of_run more[] = {{"own", own}};
    for (size_t i = 0; i < NORM_LISTS; i++) {
        values[i][0] = (double)i;
        values[i][1] = (double)i + 0.25;
        norm_record_set_list(&written, i, values[i]);
    }
    json_line_begin(&line);
    norm_record_write(&line, &written, more, 1);
    const struct log_line *back = read_back(&line);
    assert_true(norm_record_read(&read, back));
    assert_int_equal(read.step, 3);
    assert_int_equal(read.layer, 2);
    assert_int_equal(read.heads, 2);
    assert_true(read.qkv_grad_norm == 0.5);
    for (size_t i = 0; i < NORM_LISTS; i++)
        assert_memory_equal(norm_record_list(&read, i), values[i], sizeof values[i]);
    size_t count;
    const double *found = log_line_list(back, "own", &count);
    assert_int_equal(count, 2);
    assert_memory_equal(found, own, sizeof own);
}

static void events_of_every_kind(void **state)
{
    (void)state;
    for (int kind = 0; kind < EVENT_KINDS; kind++) {
        struct json_line line;
        struct event written = {.step = 40,
                                .since = kind % 2 ? 30 : 0,
                                .predicted = kind % 3 ? 90 : 0,
                                .kind = (enum event_kind)kind,
                                .severity = (enum severity)(SEVERITY_INFO + kind % 3),
                                .layer = kind - 1,
                                .head = 1 - kind,
                                .value = kind,
                                .threshold = NAN,
                                .message = "layer \"0\":\nit grew"},
                     read;
        if (kind % 2)
            strcpy(written.advice, "lower optim.lr");
        json_line_begin(&line);
        event_write(&line, &written);
        assert_true(event_read(&read, read_back(&line)));
        assert_int_equal(read.step, 40);
        assert_int_equal(read.since, kind % 2 ? 30 : 40); /* not said: since the step itself */
        assert_int_equal(read.predicted, written.predicted);
        assert_int_equal(read.kind, kind);
        assert_int_equal(read.severity, written.severity);
        assert_int_equal(read.layer, kind - 1);
        assert_int_equal(read.head, kind > 1 ? -1 : 1 - kind);
        assert_true(read.value == kind && isnan(read.threshold));
        assert_string_equal(read.message, written.message);
        assert_string_equal(read.advice, written.advice);
    }
}

static void names_are_told_apart(void **state)
{
    (void)state;
    for (int kind = 0; kind < EVENT_KINDS; kind++)
        assert_int_equal(event_kind_from_name(event_kind_name((enum event_kind)kind)), kind);
    assert_int_equal(event_kind_from_name("of another version"), EVENT_OTHER);
    for (int severity = SEVERITY_INFO; severity <= SEVERITY_CRITICAL; severity++)
        assert_int_equal(severity_from_name(severity_name((enum severity)severity)), severity);
    assert_int_equal(severity_from_name("loud"), SEVERITY_INFO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(steps_and_evaluations, free_line),
        cmocka_unit_test_teardown(unknown_numbers_are_null_and_missing_ones_unknown, free_line),
        cmocka_unit_test_teardown(every_list_has_its_own_place, free_line),
        cmocka_unit_test_teardown(events_of_every_kind, free_line),
        cmocka_unit_test(names_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
