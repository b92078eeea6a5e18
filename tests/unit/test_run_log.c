/* The run directory and its logs, read back with jansson as any reader would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/log/run_log.h"
#include "tests/unit/scratch.h"

static struct run_log *open_run(bool resume)
{
    struct run_log *log;
    struct error error;
    if (!run_log_open(&log, scratch_path("run"), resume, &error))
        fail_msg("%s", error.message);
    return log;
}

static void log_step(struct run_log *log, uint64_t step)
{
    struct error error;
    struct metrics_record metrics = {.step = step, .loss = 2.5, .grad_norm = NAN, .lr = 1e-3};
    assert_true(run_log_metrics(log, &metrics, &error));
}

/* Lines of a log, each a JSON object; NULL at the end. */
static size_t read_lines(const char *name, json_t **lines, size_t capacity)
{
    FILE *file = fopen(scratch_path(name), "r");
    assert_non_null(file);
    char text[8192];
    size_t count = 0;
    while (fgets(text, sizeof text, file)) {
        assert_true(count < capacity);
        lines[count] = json_loads(text, 0, NULL);
        assert_non_null(lines[count]);
        count++;
    }
    fclose(file);
    return count;
}

static void free_lines(json_t **lines, size_t count)
{
    for (size_t i = 0; i < count; i++)
        json_decref(lines[i]);
}

static void records_have_the_documented_fields(void **state)
{
    (void)state;
    struct run_log *log = open_run(false);
    struct error error;
    log_step(log, 10);
    struct metrics_record evaluation = {.step = 10, .split = "val", .top1 = 0.25, .top5 = 0.5, .loss = INFINITY};
    assert_true(run_log_metrics(log, &evaluation, &error));
    double values[2] = {0.1f, -INFINITY};
    struct norm_record norms = {10,     1,      2,      values, values, values, values, values,
                                values, values, values, values, values, values, 0.5};
    assert_true(run_log_norms(log, &norms, &error));
    struct event event = {.step = 10,
                          .since = 7,
                          .kind = EVENT_LOSS_SPIKE,
                          .severity = SEVERITY_WARNING,
                          .layer = 3,
                          .head = -1,
                          .value = 1.5,
                          .threshold = 1.0,
                          .message = "a \"quoted\" line\nwith \xff bytes",
                          .advice = "do this"};
    assert_true(run_log_event(log, &event, &error));
    run_log_close(log);

    json_t *lines[4];
    assert_int_equal(read_lines("run/metrics.jsonl", lines, 4), 2);
    static const char *const step_fields[] = {"step",         "epoch",       "loss",        "lr",          "grad_norm",
                                              "images_per_s", "step_time_s", "data_wait_s", "comm_wait_s", "time"};
    for (size_t i = 0; i < sizeof step_fields / sizeof step_fields[0]; i++)
        assert_non_null(json_object_get(lines[0], step_fields[i]));
    assert_int_equal(json_integer_value(json_object_get(lines[0], "step")), 10);
    assert_true(json_number_value(json_object_get(lines[0], "loss")) == 2.5);
    assert_true(json_is_null(json_object_get(lines[0], "grad_norm")));
    assert_true(json_number_value(json_object_get(lines[0], "time")) > 1.6e9);
    assert_string_equal(json_string_value(json_object_get(lines[1], "split")), "val");
    assert_true(json_is_null(json_object_get(lines[1], "loss")));
    free_lines(lines, 2);

    assert_int_equal(read_lines("run/norms.jsonl", lines, 4), 1);
    static const char *const norm_fields[] = {"q_norm_mean", "q_norm_std",   "q_norm_min", "q_norm_max",
                                              "k_norm_mean", "k_norm_std",   "k_norm_min", "k_norm_max",
                                              "logit_max",   "entropy_mean", "entropy_min"};
    for (size_t i = 0; i < sizeof norm_fields / sizeof norm_fields[0]; i++) {
        const json_t *list = json_object_get(lines[0], norm_fields[i]);
        assert_int_equal(json_array_size(list), 2);
        assert_true((float)json_number_value(json_array_get(list, 0)) == 0.1f); /* nine digits keep a float32 */
        assert_true(json_is_null(json_array_get(list, 1)));
    }
    assert_int_equal(json_integer_value(json_object_get(lines[0], "layer")), 1);
    assert_true(json_number_value(json_object_get(lines[0], "qkv_grad_norm")) == 0.5);
    free_lines(lines, 1);

    assert_int_equal(read_lines("run/events.jsonl", lines, 4), 1);
    assert_string_equal(json_string_value(json_object_get(lines[0], "message")), "a \"quoted\" line\nwith ? bytes");
    assert_true(json_is_null(json_object_get(lines[0], "head")));
    assert_int_equal(json_integer_value(json_object_get(lines[0], "layer")), 3);
    assert_int_equal(json_integer_value(json_object_get(lines[0], "since")), 7);
    assert_null(json_object_get(lines[0], "predicted_step"));
    assert_string_equal(json_string_value(json_object_get(lines[0], "advice")), "do this");
    free_lines(lines, 1);
}

static void a_directory_that_holds_a_run_is_refused(void **state)
{
    (void)state;
    struct run_log *log = open_run(false);
    log_step(log, 1);
    run_log_close(log);
    struct error error;
    assert_false(run_log_open(&log, scratch_path("run"), false, &error));
    assert_int_equal(error.status, ERROR_INPUT);
    assert_non_null(strstr(error.message, "--resume"));
    log = open_run(true);
    run_log_close(log);
}

static void a_second_run_is_told_who_holds_the_directory(void **state)
{
    (void)state;
    struct run_log *log = open_run(false), *second;
    struct error error;
    char host[128] = "", holder[192];
    gethostname(host, sizeof host - 1);
    snprintf(holder, sizeof holder, "(host %s, process %ld)", host, (long)getpid());
    assert_false(run_log_open(&second, scratch_path("run"), true, &error));
    assert_int_equal(error.status, ERROR_INPUT);
    assert_non_null(strstr(error.message, holder));
    run_log_close(log);
    log = open_run(true); /* free again */
    run_log_close(log);
}

static void a_directory_that_cannot_be_made_is_named(void **state)
{
    (void)state;
    FILE *file = fopen(scratch_path("plain"), "w");
    assert_non_null(file);
    fclose(file);
    struct run_log *log;
    struct error error;
    assert_false(run_log_open(&log, scratch_path("plain/run"), false, &error));
    assert_int_equal(error.status, ERROR_INPUT);
    assert_non_null(strstr(error.message, scratch_path("plain")));
    assert_null(log);
}

static void rewind_keeps_what_is_before_and_drops_a_cut_line(void **state)
{
    (void)state;
    struct run_log *log = open_run(false);
    struct error error;
    for (uint64_t step = 1; step <= 30; step++)
        log_step(log, step);
    run_log_close(log);
    FILE *file = fopen(scratch_path("run/metrics.jsonl"), "a");
    assert_non_null(file);
    fputs("{\"step\":5,\"lo", file); /* a crash in the middle of a line */
    fclose(file);

    log = open_run(true);
    assert_true(run_log_rewind(log, 20, &error));
    log_step(log, 21);
    run_log_close(log);
    json_t *lines[40];
    size_t count = read_lines("run/metrics.jsonl", lines, 40);
    assert_int_equal(count, 21);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(json_integer_value(json_object_get(lines[i], "step")), i + 1);
    free_lines(lines, count);
    assert_int_not_equal(access(scratch_path("run/metrics.jsonl.new"), F_OK), 0);
}

/* A crash may cut a line right before its end: a whole record, but the next one would stand on the same line. */
static void a_last_line_without_its_end_is_dropped(void **state)
{
    (void)state;
    struct run_log *log = open_run(false);
    struct error error;
    for (uint64_t step = 1; step <= 5; step++)
        log_step(log, step);
    run_log_close(log);
    struct stat status;
    assert_int_equal(stat(scratch_path("run/metrics.jsonl"), &status), 0);
    assert_int_equal(truncate(scratch_path("run/metrics.jsonl"), status.st_size - 1), 0);
    log = open_run(true);
    assert_true(run_log_rewind(log, 30, &error));
    log_step(log, 6);
    run_log_close(log);
    json_t *lines[10];
    size_t count = read_lines("run/metrics.jsonl", lines, 10);
    assert_int_equal(count, 5);
    assert_int_equal(json_integer_value(json_object_get(lines[3], "step")), 4);
    assert_int_equal(json_integer_value(json_object_get(lines[4], "step")), 6);
    free_lines(lines, count);
}

static void going_back_keeps_what_is_cut_and_all_events(void **state)
{
    (void)state;
    struct run_log *log = open_run(false);
    struct error error;
    char *directory;
    for (uint64_t step = 1; step <= 30; step++) {
        struct event event = {
            .step = step, .kind = EVENT_OTHER, .severity = SEVERITY_INFO, .message = "x", .layer = -1, .head = -1};
        log_step(log, step);
        assert_true(run_log_event(log, &event, &error));
    }
    for (int time = 1; time <= 2; time++) { /* a number that is taken is passed over */
        char name[64];
        json_t *lines[60];
        assert_true(run_log_put_aside(log, 20, 1, &directory, &error));
        assert_string_equal(strstr(directory, "/rewound/"), time == 1 ? "/rewound/1" : "/rewound/2");
        free(directory);
        size_t count = read_lines("run/metrics.jsonl", lines, 60);
        assert_int_equal(count, 20);
        free_lines(lines, count);
        count = read_lines("run/events.jsonl", lines, 60);
        assert_int_equal(count, 30);
        free_lines(lines, count);
        snprintf(name, sizeof name, "run/rewound/%d/metrics.jsonl", time);
        count = read_lines(name, lines, 60);
        assert_int_equal(count, 10);
        assert_int_equal(json_integer_value(json_object_get(lines[0], "step")), 21);
        free_lines(lines, count);
        for (uint64_t step = 21; step <= 30; step++)
            log_step(log, step);
    }
    run_log_close(log);
}

static void the_configuration_is_replaced_whole(void **state)
{
    (void)state;
    struct run_log *log = open_run(false);
    struct error error;
    assert_true(run_log_config(log, "model: {dim: 48}\nmuch: longer\n", &error));
    assert_true(run_log_config(log, "short: 1\n", &error));
    run_log_close(log);
    char text[64] = "";
    FILE *file = fopen(scratch_path("run/config.yaml"), "r");
    assert_non_null(file);
    assert_int_equal(fread(text, 1, sizeof text - 1, file), 9);
    fclose(file);
    assert_string_equal(text, "short: 1\n");
    assert_int_not_equal(access(scratch_path("run/config.yaml.new"), F_OK), 0);
}

/* A file size limit stands for a full disk: write(2) comes back short or fails in the same way. */
static void a_full_disk_is_reported_and_leaves_whole_lines(void **state)
{
    (void)state;
    struct run_log *log = open_run(false);
    log_step(log, 1);
    struct stat status;
    assert_int_equal(stat(scratch_path("run/metrics.jsonl"), &status), 0);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {(rlim_t)status.st_size + 20, (rlim_t)status.st_size + 20};
        struct metrics_record metrics = {.step = 2};
        struct error error;
        signal(SIGXFSZ, SIG_IGN);
        bool refused = setrlimit(RLIMIT_FSIZE, &limit) == 0 && !run_log_metrics(log, &metrics, &error) &&
                       error.status == ERROR_RUNTIME && strstr(error.message, "metrics.jsonl");
        _exit(refused ? 0 : 1);
    }
    int outcome;
    assert_int_equal(waitpid(child, &outcome, 0), child);
    assert_int_equal(outcome, 0);
    log_step(log, 3);
    run_log_close(log);
    json_t *lines[4];
    size_t count = read_lines("run/metrics.jsonl", lines, 4);
    assert_int_equal(count, 2);
    assert_int_equal(json_integer_value(json_object_get(lines[1], "step")), 3);
    free_lines(lines, count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_scratch, remove_scratch)
        TEST(records_have_the_documented_fields),
        TEST(a_directory_that_holds_a_run_is_refused),
        TEST(a_second_run_is_told_who_holds_the_directory),
        TEST(a_directory_that_cannot_be_made_is_named),
        TEST(rewind_keeps_what_is_before_and_drops_a_cut_line),
        TEST(a_last_line_without_its_end_is_dropped),
        TEST(going_back_keeps_what_is_cut_and_all_events),
        TEST(the_configuration_is_replaced_whole),
        TEST(a_full_disk_is_reported_and_leaves_whole_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
