/* Reading logs that are whole, growing, cut off, damaged, or of another version. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/log/reader.h"
#include "src/norms/run.h"
#include "src/record/read.h"

static struct log_line line;

static bool reads(const char *text)
{
    return log_line_read(&line, text, strlen(text));
}

static void numbers_are_read_to_the_last_bit(void **state)
{
    (void)state;
    srandom(1);
    for (int trial = 0; trial < 20000; trial++) {
        char text[160], number[64];
        uint64_t bits = ((uint64_t)random() << 42) ^ ((uint64_t)random() << 21) ^ (uint64_t)random();
        double drawn;
        memcpy(&drawn, &bits, sizeof drawn);
        if (trial % 2)
            drawn = ldexp((double)random() - 0x1p30, (int)(random() % 60) - 50);
        if (!isfinite(drawn))
            continue;
        snprintf(number, sizeof number, trial % 3 ? "%.9g" : "%.17g", drawn);
        snprintf(text, sizeof text, "{\"a\":[%s, -1],\"b\": %s}\n", number, number);
        assert_true(reads(text));
        double expected = strtod(number, NULL), read = log_line_number(&line, "b");
        assert_memory_equal(&read, &expected, sizeof read);
        size_t count;
        const double *list = log_line_list(&line, "a", &count);
        assert_int_equal(count, 2);
        assert_memory_equal(&list[0], &expected, sizeof expected);
        assert_true(list[1] == -1);
    }
}

static void unusual_lines_are_read_too(void **state)
{
    (void)state;
    size_t count;
    assert_true(reads(" { \"step\" : 3 , \"list\" : [ ] , \"none\" : null , \"text\":\"a \\\"b\\\" \\u00e9\"} "));
    assert_true(log_line_number(&line, "step") == 3);
    assert_non_null(log_line_list(&line, "list", &count));
    assert_int_equal(count, 0);
    assert_true(isnan(log_line_number(&line, "none")));
    assert_true(isnan(log_line_number(&line, "missing")));
    assert_string_equal(log_line_text(&line, "text"), "a \"b\" \xc3\xa9");
    assert_true(reads("{\"step\":7,\"list\":[NaN,-Infinity,1.5],\"loss\":Infinity}"));
    const double *odd = log_line_list(&line, "list", &count);
    assert_int_equal(count, 3);
    assert_true(isnan(odd[0]) && isnan(odd[1]) && odd[2] == 1.5 && isnan(log_line_number(&line, "loss")));
    assert_true(reads("{\"nested\":{\"x\":[1,{}]},\"on\":true,\"step\":4,\"mixed\":[1,\"two\",3]}"));
    assert_true(log_line_number(&line, "step") == 4);
    const double *mixed = log_line_list(&line, "mixed", &count);
    assert_int_equal(count, 3);
    assert_true(mixed[0] == 1 && isnan(mixed[1]) && mixed[2] == 3);
}

static void damaged_lines_are_refused(void **state)
{
    (void)state;
    const char *whole = "{\"step\":12,\"layer\":0,\"logit_max\":[1.5,2],\"name\":\"x\"}";
    assert_true(reads(whole));
    for (size_t bytes = 0; bytes < strlen(whole); bytes++)
        assert_false(log_line_read(&line, whole, bytes));
    const char *bad[] = {"",  "{}}",         "[1]",          "{\"a\":}",    "{\"a\":1,}",
                         "1", "{\"a\":--1}", "{\"a\":[1,]}", "{\"a\":1 2}", "{\"a\":1}{\"a\":2}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(reads(bad[i]));
}

static void write_file(const char *path, const char *mode, const char *text)
{
    FILE *file = fopen(path, mode);
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void a_growing_file_is_followed(void **state)
{
    (void)state;
    char directory[] = "/tmp/test_log_reader_XXXXXX", path[64];
    struct log_reader reader;
    struct error error;
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/metrics.jsonl", directory);
    assert_true(log_reader_open(&reader, path, &error));
    assert_int_equal(log_reader_next(&reader, &error), LOG_READER_END);
    write_file(path, "w", "{\"step\":1}\n{\"step\":");
    assert_int_equal(log_reader_next(&reader, &error), LOG_READER_LINE);
    assert_true(log_line_number(&reader.line, "step") == 1);
    assert_int_equal(log_reader_next(&reader, &error), LOG_READER_END);
    write_file(path, "a", "2}\nrubbish\n{\"step\":3}\n");
    assert_int_equal(log_reader_next(&reader, &error), LOG_READER_LINE);
    assert_true(log_line_number(&reader.line, "step") == 2);
    assert_int_equal(log_reader_next(&reader, &error), LOG_READER_LINE);
    assert_true(log_line_number(&reader.line, "step") == 3);
    assert_int_equal(reader.damaged, 1);
    assert_int_equal(log_reader_next(&reader, &error), LOG_READER_END);
    write_file(path, "w", "{\"step\":2}\n"); /* a resume cuts the log back */
    assert_int_equal(log_reader_next(&reader, &error), LOG_READER_RESTARTED);
    assert_int_equal(log_reader_next(&reader, &error), LOG_READER_LINE);
    assert_true(log_line_number(&reader.line, "step") == 2);
    log_reader_close(&reader);
    unlink(path);
    rmdir(directory);
}

static int next_pread_fails; /* with this errno */

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name) */
ssize_t pread(int file, void *bytes, size_t count, off_t offset)
{
    errno = next_pread_fails;
    next_pread_fails = 0;
    return errno ? -1 : syscall(SYS_pread64, file, bytes, count, offset);
}

/* Interrupted it goes on; replaced on the server of a network it begins anew; all else is an error. */
static void a_read_that_fails_is_one_of_three(void **state)
{
    (void)state;
    char path[] = "/tmp/test_log_reader_XXXXXX";
    struct log_reader reader;
    struct error error;
    close(mkstemp(path));
    write_file(path, "w", "{\"step\":1}\n");
    assert_true(log_reader_open(&reader, path, &error));
    next_pread_fails = EINTR;
    assert_int_equal(log_reader_next(&reader, &error), LOG_READER_LINE);
    next_pread_fails = ESTALE;
    assert_int_equal(log_reader_next(&reader, &error), LOG_READER_RESTARTED);
    assert_int_equal(log_reader_next(&reader, &error), LOG_READER_LINE);
    assert_true(log_line_number(&reader.line, "step") == 1);
    next_pread_fails = EIO;
    assert_int_equal(log_reader_next(&reader, &error), LOG_READER_FAILED);
    assert_non_null(strstr(error.message, "Input/output error"));
    log_reader_close(&reader);
    unlink(path);
}

static void long_lines_fit(void **state)
{
    (void)state;
    enum { NUMBERS = 200000 };
    char path[] = "/tmp/test_log_long_XXXXXX";
    int descriptor = mkstemp(path);
    FILE *file = fdopen(descriptor, "w");
    fputs("{\"step\":1,\"layer\":0,\"logit_max\":[0", file);
    for (int i = 1; i < NUMBERS; i++)
        fprintf(file, ",%d.5", i);
    fputs("]}\n{\"step\":2}\n", file);
    fclose(file);
    struct log_reader reader;
    struct error error;
    size_t count;
    assert_true(log_reader_open(&reader, path, &error));
    assert_int_equal(log_reader_next(&reader, &error), LOG_READER_LINE);
    const double *list = log_line_list(&reader.line, "logit_max", &count);
    assert_int_equal(count, NUMBERS);
    assert_true(list[NUMBERS - 1] == NUMBERS - 0.5);
    assert_int_equal(log_reader_next(&reader, &error), LOG_READER_LINE);
    log_reader_close(&reader);
    unlink(path);
}

static void records_take_what_is_there(void **state)
{
    (void)state;
    struct norm_record record;
    assert_true(reads("{\"step\":5,\"layer\":1,\"logit_max\":[1,null],\"k_norm_max\":[1,2,3],\"new\":7}"));
    assert_true(norm_record_read(&record, &line));
    assert_int_equal(record.step, 5);
    assert_int_equal(record.heads, 2);
    assert_true(isnan(record.logit_max[1]));
    assert_null(record.k_norm_max); /* another number of heads than the rest */
    assert_null(record.entropy_mean);
    const char *bad[] = {"{\"layer\":1,\"logit_max\":[1]}", "{\"step\":-1,\"layer\":1,\"logit_max\":[1]}",
                         "{\"step\":1,\"layer\":1e9,\"logit_max\":[1]}", "{\"step\":1,\"layer\":0}",
                         "{\"step\":1.5,\"layer\":0,\"logit_max\":[1]}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_true(reads(bad[i]));
        assert_false(norm_record_read(&record, &line));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_read_to_the_last_bit),  cmocka_unit_test(unusual_lines_are_read_too),
        cmocka_unit_test(damaged_lines_are_refused),         cmocka_unit_test(a_growing_file_is_followed),
        cmocka_unit_test(a_read_that_fails_is_one_of_three), cmocka_unit_test(long_lines_fit),
        cmocka_unit_test(records_take_what_is_there),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    log_line_free(&line);
    return failed;
}
