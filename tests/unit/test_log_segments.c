/* norms.jsonl in compressed segments: written, followed, cut back, damaged, and left by a crash at any moment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "src/log/reader.h"
#include "src/log/run_log.h"
#include "src/log/segments.h"
#include "tests/unit/scratch.h"

static char norms[96];

static int make_run_directory(void **state)
{
    int failed = make_scratch(state);
    snprintf(norms, sizeof norms, "%s/norms.jsonl", scratch);
    return failed;
}

/* About 20 records a segment. */
static struct run_log *open_run(bool resume)
{
    struct run_log *log;
    struct error error;
    struct run_log_options options = {.segment_mib = 8192.0 / 0x1p20};
    if (!run_log_open(&log, scratch, resume, &error) || !run_log_set_options(log, &options, &error))
        fail_msg("%s", error.message);
    return log;
}

static bool log_step(struct run_log *log, uint64_t step, struct error *error)
{
    double values[2] = {(double)step, 0.1f * (float)step};
    struct norm_record record = {step,   0,      2,      values, values, values, values, values,
                                 values, values, values, values, values, values, 0.5};
    return run_log_norms(log, &record, error);
}

static void log_steps(struct run_log *log, uint64_t first, uint64_t last)
{
    struct error error;
    for (uint64_t step = first; step <= last; step++)
        if (!log_step(log, step, &error))
            fail_msg("%s", error.message);
}

static void close_run(struct run_log *log)
{
    struct error error;
    if (!run_log_finish(log, &error))
        fail_msg("%s", error.message);
    run_log_close(log);
}

/* The steps that the reader has from here on go from `first` in ones; returns the last. */
static uint64_t read_steps(struct log_reader *reader, uint64_t first)
{
    struct error error;
    enum log_reader_result result;
    while ((result = log_reader_next(reader, &error)) == LOG_READER_LINE)
        assert_int_equal(log_line_number(&reader->line, "step"), first++);
    assert_int_equal(result, LOG_READER_END);
    return first - 1;
}

static uint64_t last_step(void)
{
    struct log_reader reader;
    struct error error;
    assert_true(log_reader_open(&reader, norms, &error));
    uint64_t last = read_steps(&reader, 1);
    assert_int_equal(reader.damaged, 0);
    assert_null(reader.damaged_segments);
    log_reader_close(&reader);
    return last;
}

static uint64_t segment_count(void)
{
    uint64_t first, last;
    log_segments_range(norms, &first, &last);
    return last;
}

static void in_scratch(const char *command)
{
    char whole[256];
    snprintf(whole, sizeof whole, "cd %s && %s", scratch, command);
    assert_int_equal(system(whole), 0);
}

static void segments_and_the_open_file_are_one_log(void **state)
{
    (void)state;
    struct run_log *log = open_run(false);
    log_steps(log, 1, 300);
    close_run(log);
    assert_true(segment_count() >= 10);
    for (uint64_t i = 1; i <= segment_count(); i++) {
        assert_true(log_segment_exists(norms, i, LOG_SEGMENT_PACKED));
        assert_false(log_segment_exists(norms, i, LOG_SEGMENT_PLAIN));
    }
    assert_int_equal(last_step(), 300);
    in_scratch("test $(zcat norms-0*.gz | cat - norms.jsonl | wc -l) = 300 && ! ls | grep new");
}

static void the_front_may_be_deleted(void **state)
{
    (void)state;
    struct run_log *log = open_run(false);
    log_steps(log, 1, 300);
    close_run(log);
    in_scratch("rm norms-000001.jsonl.gz norms-000002.jsonl.gz");
    struct log_reader reader;
    struct error error;
    assert_true(log_reader_open(&reader, norms, &error));
    assert_int_equal(log_reader_next(&reader, &error), LOG_READER_LINE);
    uint64_t first = (uint64_t)log_line_number(&reader.line, "step");
    assert_true(first > 20 && first < 100);
    assert_int_equal(read_steps(&reader, first + 1), 300);
    assert_null(reader.damaged_segments);
    log_reader_close(&reader);
}

static void a_growing_log_is_followed_over_its_segments(void **state)
{
    (void)state;
    struct run_log *log = open_run(false);
    struct log_reader reader;
    struct error error;
    assert_true(log_reader_open(&reader, norms, &error));
    uint64_t seen = 0, step = 0;
    srandom(1);
    while (step < 2000) { /* at most one rotation between two looks, sometimes several */
        uint64_t more = 1 + (uint64_t)random() % 45;
        log_steps(log, step + 1, step + more);
        step += more;
        seen = read_steps(&reader, seen + 1);
        assert_int_equal(seen, step);
    }
    assert_true(run_log_rewind(log, 700, &error));
    assert_int_equal(log_reader_next(&reader, &error), LOG_READER_RESTARTED);
    assert_int_equal(read_steps(&reader, 1), 700);
    log_steps(log, 701, 900);
    assert_int_equal(read_steps(&reader, 701), 900);
    assert_int_equal(reader.damaged, 0);
    log_reader_close(&reader);
    close_run(log);
}

static void a_rewind_cuts_across_segments(void **state)
{
    (void)state;
    static const uint64_t targets[] = {290, 250, 249, 120, 119, 21, 1, 0};
    struct error error;
    struct run_log *log = open_run(false);
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        log_steps(log, last_step() + 1, 300);
        if (i % 2) { /* a later process */
            close_run(log);
            log = open_run(true);
        }
        assert_true(run_log_rewind(log, targets[i], &error));
        assert_int_equal(last_step(), targets[i]);
    }
    close_run(log);
    assert_int_equal(segment_count(), 0);
}

static void what_a_run_gives_up_is_kept_from_all_segments(void **state)
{
    (void)state;
    static const uint64_t targets[] = {250, 120, 119, 0};
    struct error error;
    struct run_log *log = open_run(false);
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        struct log_reader reader;
        char *directory, path[512];
        log_steps(log, last_step() + 1, 300);
        assert_true(run_log_put_aside(log, targets[i], 1, &directory, &error));
        assert_int_equal(last_step(), targets[i]);
        snprintf(path, sizeof path, "%s/norms.jsonl", directory);
        assert_true(log_reader_open(&reader, path, &error));
        assert_int_equal(read_steps(&reader, targets[i] + 1), 300);
        log_reader_close(&reader);
        free(directory);
    }
    close_run(log);
}

static void what_a_crash_leaves_is_read_once_and_mended(void **state)
{
    (void)state;
    struct error error;
    struct run_log *log = open_run(false);
    log_steps(log, 1, 100);
    close_run(log);
    /* Between the rename to .gz and the removal; in the middle of compressing; before it; before a new norms.jsonl. */
    char *next = log_segment_path(norms, segment_count() + 1, LOG_SEGMENT_PLAIN);
    assert_int_equal(rename(norms, next), 0);
    free(next);
    in_scratch("gunzip -k norms-000001.jsonl.gz && gunzip norms-000002.jsonl.gz && head -c 50 norms-000001.jsonl.gz "
               ">norms-000002.jsonl.gz.new");
    uint64_t last = last_step();
    assert_int_equal(last, 100);
    log = open_run(true);
    assert_true(run_log_rewind(log, 95, &error));
    log_steps(log, 96, 160);
    close_run(log);
    assert_int_equal(last_step(), 160);
    in_scratch("! ls norms-*.jsonl norms-*.new 2>/dev/null");
}

static void a_line_cut_by_a_crash_is_dropped_with_segments_too(void **state)
{
    (void)state;
    struct error error;
    struct run_log *log = open_run(false);
    log_steps(log, 1, 50);
    close_run(log);
    in_scratch("printf '{\"step\":51,\"layer\":0,\"q_no' >>norms.jsonl");
    assert_int_equal(last_step(), 50);
    log = open_run(true);
    assert_true(run_log_rewind(log, 50, &error));
    log_steps(log, 51, 70);
    close_run(log);
    assert_int_equal(last_step(), 70);
}

/* Damages segment 2 by `command`; returns how many steps are missing from the rest, which must be in order. */
static uint64_t missing_after(const char *command, const char *said)
{
    struct log_reader reader;
    struct error error;
    in_scratch("cp norms-000002.jsonl.gz kept");
    in_scratch(command);
    assert_true(log_reader_open(&reader, norms, &error));
    uint64_t before = 0, missing = 0;
    enum log_reader_result result;
    while ((result = log_reader_next(&reader, &error)) == LOG_READER_LINE) {
        uint64_t step = (uint64_t)log_line_number(&reader.line, "step");
        assert_true(step > before);
        missing += step - before - 1;
        before = step;
    }
    assert_int_equal(result, LOG_READER_END);
    assert_int_equal(before, 300);
    assert_non_null(reader.damaged_segments);
    assert_non_null(strstr(reader.damaged_segments, "norms-000002.jsonl.gz"));
    if (!strstr(reader.damaged_segments, said))
        fail_msg("'%s' is not in: %s", said, reader.damaged_segments);
    assert_null(strstr(reader.damaged_segments, "norms-000003"));
    log_reader_close(&reader);
    in_scratch("mv kept norms-000002.jsonl.gz");
    return missing;
}

static void a_damaged_segment_is_named_and_the_rest_is_read(void **state)
{
    (void)state;
    struct run_log *log = open_run(false);
    struct error error;
    log_steps(log, 1, 300);
    close_run(log);
    assert_in_range(missing_after("rm norms-000002.jsonl.gz", "is missing"), 10, 30);
    assert_in_range(missing_after("truncate -s -9 norms-000002.jsonl.gz", "is cut off"), 0, 2);
    assert_in_range(missing_after("truncate -s 400 norms-000002.jsonl.gz", "is cut off"), 5, 30);
    assert_in_range(
        missing_after("printf XXXXXXXX | dd of=norms-000002.jsonl.gz bs=1 seek=200 conv=notrunc status=none",
                      "norms-000002"),
        1, 30);
    /* A cut before it does not mind it; one into it keeps what can be read. */
    in_scratch("truncate -s 400 norms-000002.jsonl.gz");
    log = open_run(true);
    assert_true(run_log_rewind(log, 100, &error));
    assert_true(run_log_rewind(log, 5, &error));
    close_run(log);
    assert_int_equal(last_step(), 5);
}

static void a_process_killed_at_any_moment_loses_and_repeats_nothing(void **state)
{
    (void)state;
    uint64_t known = 0, before = 0;
    srandom(2);
    for (int trial = 0; trial < 25; trial++) {
        int told[2];
        assert_int_equal(pipe(told), 0);
        pid_t child = fork();
        if (child == 0) {
            struct error error;
            struct run_log *log = open_run(trial > 0);
            if (!run_log_rewind(log, known, &error))
                _exit(1);
            for (uint64_t step = known + 1;; step++)
                if (!log_step(log, step, &error) || write(told[1], &step, sizeof step) != sizeof step)
                    _exit(1);
        }
        close(told[1]);
        uint64_t done = known, newest, target = known + 1 + (uint64_t)random() % 300;
        bool at_start = trial % 5 == 4; /* while it still opens and cuts */
        struct timespec pause = {0, random() % 5000000};
        if (at_start)
            nanosleep(&pause, NULL);
        while (!at_start && done < target && read(told[0], &newest, sizeof newest) == sizeof newest)
            done = newest;
        int status;
        kill(child, SIGSTOP);
        assert_int_equal(waitpid(child, &status, WUNTRACED), child);
        /* What it told by now is what must be there. */
        fcntl(told[0], F_SETFL, O_NONBLOCK);
        while (read(told[0], &newest, sizeof newest) == sizeof newest)
            done = newest;
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        close(told[0]);
        uint64_t last = last_step();
        /* One may be written and not told yet; and the cut may not have been done when it was killed. */
        assert_true(last >= done && (last <= done + 1 || (done == known && last <= before)));
        before = last;
        known = last / 2;
    }
    assert_true(known > 100);
}

/* A file size limit stands for a full disk: a write of much fails at once, little fails when the file is closed. */
static void a_full_disk_leaves_the_segment_as_it_is_and_says_so(void **state)
{
    (void)state;
    static const struct {
        const char *more;
        rlim_t limit;
    } cases[] = {{"head -c 300000 /dev/urandom | base64 -w0 >>norms-000001.jsonl", 100000}, {"true", 100}};
    close_run(open_run(false));
    for (size_t i = 0; i < 2; i++) {
        struct run_log *log = open_run(true);
        log_steps(log, 1, 10);
        close_run(log);
        in_scratch("mv norms.jsonl norms-000001.jsonl");
        in_scratch(cases[i].more);
        in_scratch("echo >>norms-000001.jsonl && cp norms-000001.jsonl kept");
        pid_t child = fork();
        if (child == 0) {
            struct rlimit limit = {cases[i].limit, cases[i].limit};
            struct error error;
            signal(SIGXFSZ, SIG_IGN);
            bool refused = setrlimit(RLIMIT_FSIZE, &limit) == 0 && !log_segment_pack(norms, 1, &error) &&
                           error.status == ERROR_RUNTIME && strstr(error.message, "norms-000001.jsonl");
            _exit(refused ? 0 : 1);
        }
        int outcome;
        assert_int_equal(waitpid(child, &outcome, 0), child);
        assert_int_equal(outcome, 0);
        in_scratch("cmp norms-000001.jsonl kept && ! ls norms-*.gz norms-*.new 2>/dev/null && rm norms-*.jsonl kept");
    }
}

static void a_segment_that_is_gone_is_an_error(void **state)
{
    (void)state;
    struct error error;
    assert_false(log_segment_pack(norms, 7, &error));
    assert_non_null(strstr(error.message, "norms-000007.jsonl: cannot be compressed: No such file or directory"));
}

/* docs/logs.md says what it prints. */
static void a_segment_of_64_mib_does_not_stall_the_log(void **state)
{
    (void)state;
    struct run_log *log;
    struct error error;
    struct run_log_options options = {.segment_mib = 64};
    assert_true(run_log_open(&log, scratch, false, &error) && run_log_set_options(log, &options, &error));
    double worst_s = 0, values[11][12];
    struct timespec begin, end;
    srandom(3);
    for (uint64_t step = 1; segment_count() == 0; step++) {
        struct norm_record record = {step,      0,         12,        values[0],  values[1],
                                     values[2], values[3], values[4], values[5],  values[6],
                                     values[7], values[8], values[9], values[10], 0.5};
        for (int i = 0; i < 1000; i++) {
            record.layer = (size_t)i;
            for (size_t j = 0; j < 11 * 12; j++)
                values[j / 12][j % 12] = 1e-9 * (double)random();
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
            assert_true(run_log_norms(log, &record, &error));
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
            double seconds = (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
            worst_s = seconds > worst_s ? seconds : worst_s;
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &begin);
    assert_true(run_log_finish(log, &error));
    clock_gettime(CLOCK_MONOTONIC, &end);
    run_log_close(log);
    struct stat status;
    char *packed = log_segment_path(norms, 1, LOG_SEGMENT_PACKED);
    assert_int_equal(stat(packed, &status), 0);
    free(packed);
    print_message(
        "64 MiB: the slowest record took %.2f ms of processor time, the thread then %.2f s; %.1f MiB are left\n",
        1e3 * worst_s, (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec),
        (double)status.st_size / 0x1p20);
    assert_true(worst_s < 0.1); /* compressing here would take seconds */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_run_directory, remove_scratch)
        TEST(segments_and_the_open_file_are_one_log),
        TEST(the_front_may_be_deleted),
        TEST(a_growing_log_is_followed_over_its_segments),
        TEST(a_rewind_cuts_across_segments),
        TEST(what_a_run_gives_up_is_kept_from_all_segments),
        TEST(what_a_crash_leaves_is_read_once_and_mended),
        TEST(a_line_cut_by_a_crash_is_dropped_with_segments_too),
        TEST(a_damaged_segment_is_named_and_the_rest_is_read),
        TEST(a_process_killed_at_any_moment_loses_and_repeats_nothing),
        TEST(a_full_disk_leaves_the_segment_as_it_is_and_says_so),
        TEST(a_segment_that_is_gone_is_an_error),
        TEST(a_segment_of_64_mib_does_not_stall_the_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
