/* TensorBoard's event files: framing, checksums, names, a full disk. What is in them is read back by TensorBoard itself
 * in tests/e2e/monitoring.bats. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/base/crc32c.h"
#include "src/log/event_file.h"
#include "tests/unit/scratch.h"

static struct event_file *open_events(char path[128])
{
    struct event_file *file;
    struct error error;
    char *made = event_file_path(scratch);
    assert_non_null(made);
    snprintf(path, 128, "%s", made);
    free(made);
    if (!event_file_open(&file, path, 1, &error))
        fail_msg("%s", error.message);
    return file;
}

/* RFC 3720, appendix B.4. */
static void checksums_are_those_of_the_standard(void **state)
{
    (void)state;
    uint8_t bytes[32];
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(crc32c(bytes, 32), 0x8a9136aa);
    memset(bytes, 0xff, sizeof bytes);
    assert_int_equal(crc32c(bytes, 32), 0x62a8ab43);
    for (size_t i = 0; i < 32; i++)
        bytes[i] = (uint8_t)i;
    assert_int_equal(crc32c(bytes, 32), 0x46dd794e);
    assert_int_equal(crc32c("123456789", 9), 0xe3069283);
}

static uint64_t little_endian(const uint8_t *at, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static uint32_t unmasked(const uint8_t *at)
{
    uint32_t rotated = (uint32_t)little_endian(at, 4) - 0xa282ead8u;
    return (rotated >> 17) | (rotated << 15);
}

/* Every record is whole and its checksums are right, to the last byte. */
static size_t count_records(const char *path)
{
    static uint8_t bytes[1 << 16];
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t size = fread(bytes, 1, sizeof bytes, file), at = 0, count = 0;
    fclose(file);
    assert_true(size < sizeof bytes);
    for (; at < size; count++) {
        assert_true(at + 16 <= size);
        size_t length = (size_t)little_endian(bytes + at, 8);
        assert_int_equal(unmasked(bytes + at + 8), crc32c(bytes + at, 8));
        assert_true(at + 16 + length <= size);
        assert_int_equal(unmasked(bytes + at + 12 + length), crc32c(bytes + at + 12, length));
        at += 16 + length;
    }
    assert_int_equal(at, size);
    return count;
}

static void an_event_is_a_record_and_nothing_is_none(void **state)
{
    (void)state;
    struct error error;
    char path[128];
    double heads[3] = {1, NAN, 2}, unknown[2] = {NAN, INFINITY};
    struct event_file *file = open_events(path);
    assert_int_equal(count_records(path), 2); /* version, start */
    event_file_scalar(file, "a", 1.5);
    event_file_histogram(file, "b", heads, 3);
    assert_true(event_file_write(file, 1, 1e9, &error));
    assert_int_equal(count_records(path), 3);
    event_file_scalar(file, "a", NAN);
    event_file_histogram(file, "b", unknown, 2);
    event_file_histogram(file, "b", unknown, 0);
    assert_true(event_file_write(file, 2, 1e9, &error));
    assert_int_equal(count_records(path), 3);
    event_file_close(file);
}

static void a_later_file_sorts_after_all_others(void **state)
{
    (void)state;
    char first[128], second[128], ahead[128], third[128];
    event_file_close(open_events(first));
    event_file_close(open_events(second)); /* within the same second */
    assert_true(strcmp(first, second) < 0);
    snprintf(ahead, sizeof ahead, "%s/" EVENT_FILE_PREFIX "9000000000.zebra.1", scratch); /* the clock was set back */
    FILE *file = fopen(ahead, "w");
    assert_non_null(file);
    fclose(file);
    event_file_close(open_events(third));
    assert_true(strcmp(ahead, third) < 0);
}

/* A file size limit stands for a full disk: write(2) comes back short or fails in the same way. */
static void a_full_disk_leaves_whole_events(void **state)
{
    (void)state;
    struct error error;
    char path[128];
    struct event_file *file = open_events(path);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {2000, 2000};
        int refused = 0;
        signal(SIGXFSZ, SIG_IGN);
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
            _exit(1);
        for (uint64_t step = 1; step <= 100; step++) {
            event_file_scalar(file, "a/rather/long/name", 1);
            bool ok = event_file_write(file, step, 0, &error);
            if (!ok && !(error.status == ERROR_RUNTIME && strstr(error.message, path)))
                _exit(1);
            refused += !ok;
        }
        event_file_close(file); /* for valgrind, which looks at what a child leaves too */
        _exit(refused > 30 && refused < 90 ? 0 : 1);
    }
    int outcome;
    assert_int_equal(waitpid(child, &outcome, 0), child);
    assert_int_equal(outcome, 0);
    size_t before = count_records(path);
    assert_true(before > 10);
    event_file_scalar(file, "a", 1);
    assert_true(event_file_write(file, 101, 0, &error)); /* there is room again */
    assert_int_equal(count_records(path), before + 1);
    event_file_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_scratch, remove_scratch)
        TEST(checksums_are_those_of_the_standard),
        TEST(an_event_is_a_record_and_nothing_is_none),
        TEST(a_later_file_sorts_after_all_others),
        TEST(a_full_disk_leaves_whole_events),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
