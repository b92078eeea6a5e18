/* Checkpoints on their way to the disk: the order of what is done, disks that are full or lie, and which files stay. */
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "src/checkpoint/format.h"
#include "tests/unit/checkpoint_test.h"

/* ---- the way to the disk ---- */

/* What the linker puts in place of the system's (Makefile): they write down their order, and fail when told to. */
static struct {
    char calls[64]; /* w: write, f: fsync of a file, d: of a directory, a: its pages are given up, r: rename */
    size_t count;
    char failing; /* the call that fails, the `turn`-th time, with `error` */
    int turn, error;
    ssize_t flipped; /* the byte of all that is written that is written wrong; -1: none */
    ssize_t written;
    size_t most; /* bytes that one write takes; 0: all */
} system_calls;

/* NOLINTBEGIN(bugprone-reserved-identifier): the names that the linker gives them */
int __real_fsync(int file);
int __real_rename(const char *from, const char *to);
int __real_posix_fadvise(int file, off_t offset, off_t bytes, int advice);
ssize_t __real_write(int file, const void *bytes, size_t count);
int __wrap_fsync(int file);
int __wrap_rename(const char *from, const char *to);
int __wrap_posix_fadvise(int file, off_t offset, off_t bytes, int advice);
ssize_t __wrap_write(int file, const void *bytes, size_t count);

static void watch_calls(void)
{
    memset(&system_calls, 0, sizeof system_calls);
    system_calls.flipped = -1;
}

/* Writes it down, many of one in a row once; false: it is to fail, and errno says how. */
static bool call(char name)
{
    char *last = &system_calls.calls[system_calls.count];
    if ((name != 'w' || system_calls.count == 0 || last[-1] != 'w') &&
        system_calls.count + 1 < sizeof system_calls.calls)
        system_calls.calls[system_calls.count++] = name;
    if (name != system_calls.failing || --system_calls.turn != 0)
        return true;
    errno = system_calls.error;
    return false;
}

int __wrap_fsync(int file)
{
    struct stat status;
    assert_int_equal(fstat(file, &status), 0);
    return call(S_ISDIR(status.st_mode) ? 'd' : 'f') ? __real_fsync(file) : -1;
}

int __wrap_rename(const char *from, const char *to)
{
    return call('r') ? __real_rename(from, to) : -1;
}

int __wrap_posix_fadvise(int file, off_t offset, off_t bytes, int advice)
{
    call('a');
    return __real_posix_fadvise(file, offset, bytes, advice);
}

ssize_t __wrap_write(int file, const void *bytes, size_t count)
{
    if (!call('w'))
        return -1;
    ssize_t flipped = system_calls.flipped - system_calls.written;
    if (system_calls.most > 0 && count > system_calls.most)
        count = system_calls.most;
    char *copy = malloc(count + 1);
    memcpy(copy, bytes, count);
    if (system_calls.flipped >= 0 && flipped >= 0 && flipped < (ssize_t)count)
        copy[flipped] ^= 1;
    ssize_t result = __real_write(file, copy, count);
    free(copy);
    system_calls.written += result > 0 ? result : 0;
    return result;
}
/* NOLINTEND(bugprone-reserved-identifier) */

/* A checkpoint of step 2 that is not accepted: the error says why, and step 1 is all that the directory holds. */
static void expect_unwritten(struct memory *memory, const char *why)
{
    struct error error;
    fill(memory, 2);
    assert_false(checkpoint_write(scratch, &memory->checkpoint, &error));
    assert_int_equal(error.status, ERROR_RUNTIME);
    if (!strstr(error.message, "step_00000002.h5: ") || !strstr(error.message, why))
        fail_msg("'%s' is not in: %s", why, error.message);
    char command[128];
    snprintf(command, sizeof command, "test \"$(ls -A %s)\" = step_00000001.h5", scratch);
    assert_int_equal(system(command), 0);
}

/* A power cut at any moment leaves the old or the new: the bytes are on the disk before the name, the name before the
 * next step; and what is compared comes from the disk. */
static void a_checkpoint_is_on_the_disk_before_it_has_its_name(void **state)
{
    (void)state;
    static struct memory memory;
    struct error error;
    watch_calls();
    write_step(&memory, 1);
    assert_string_equal(system_calls.calls, "wfafrd");
    watch_calls();
    assert_true(checkpoint_mark_best(scratch, 1, &error));
    assert_string_equal(system_calls.calls, "rd");
}

static void a_byte_that_reaches_the_disk_wrong_is_noticed(void **state)
{
    (void)state;
    static struct memory memory;
    write_step(&memory, 1);
    size_t bytes;
    free(load(scratch_path("step_00000001.h5"), &bytes));
    const ssize_t flipped[] = {0, 3000, (ssize_t)bytes / 2, (ssize_t)bytes - 33, (ssize_t)bytes - 2};
    for (size_t i = 0; i < sizeof flipped / sizeof *flipped; i++) {
        watch_calls();
        system_calls.flipped = flipped[i];
        expect_unwritten(&memory, "what was written does not read back");
    }
    watch_calls();
}

/* A sealed file whose numbers are not those in memory: what the checksum cannot see. */
static void numbers_that_are_not_the_memorys_are_named(void **state)
{
    (void)state;
    static struct memory memory;
    struct error error;
    watch_calls();
    write_step(&memory, 1);
    const char *path = scratch_path("step_00000001.h5");
    assert_true(checkpoint_compare(path, &memory.checkpoint, &error));
    float *const parts[] = {memory.parameter, memory.m, memory.v};
    for (size_t part = 0; part < 3; part++)
        for (size_t number = 0; number < 8 + 384 + 3 + 80; number += 97) {
            float right = parts[part][number];
            parts[part][number] += 1;
            assert_false(checkpoint_compare(path, &memory.checkpoint, &error));
            assert_non_null(strstr(error.message, " differs from memory"));
            parts[part][number] = right;
        }
    assert_true(checkpoint_compare(path, &memory.checkpoint, &error));
}

static void calls_that_fail_leave_the_previous_checkpoint(void **state)
{
    (void)state;
    static struct memory memory;
    const struct {
        char name;
        int turn;
    } failing[] = {{'w', 1}, {'w', 2}, {'f', 1}, {'f', 2}, {'r', 1}};
    watch_calls();
    write_step(&memory, 1);
    for (size_t i = 0; i < sizeof failing / sizeof *failing; i++) {
        watch_calls();
        system_calls.failing = failing[i].name;
        system_calls.turn = failing[i].turn;
        system_calls.error = EIO;
        expect_unwritten(&memory, "cannot be written: Input/output error");
    }
}

/* Some file systems cannot flush a directory, and say so; others say that they could not. */
static void a_directory_that_is_not_flushed_is_an_error_where_it_could_be(void **state)
{
    (void)state;
    static struct memory memory;
    struct error error;
    const int errors[] = {EINVAL, EIO};
    for (size_t i = 0; i < 2; i++) {
        fill(&memory, 1);
        watch_calls();
        system_calls.failing = 'd';
        system_calls.turn = 1;
        system_calls.error = errors[i];
        assert_int_equal(checkpoint_write(scratch, &memory.checkpoint, &error), errors[i] == EINVAL);
    }
}

static void writes_that_take_little_or_are_interrupted_go_on(void **state)
{
    (void)state;
    static struct memory written, read;
    struct error error;
    watch_calls();
    system_calls.most = 777;
    system_calls.failing = 'w';
    system_calls.turn = 3;
    system_calls.error = EINTR;
    write_step(&written, 1);
    watch_calls();
    assert_true(read_all(&read, scratch_path("step_00000001.h5"), &error));
    assert_true(same(&written, &read));
    checkpoint_free(&read.checkpoint);
}

/* ---- a full disk ---- */

static void a_full_disk_leaves_the_previous_checkpoint_whole(void **state)
{
    (void)state;
    static struct memory memory, read;
    struct error error;
    write_step(&memory, 1);
    static const rlim_t limits[] = {0, 1000, 4096, 9000};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        pid_t child = fork();
        if (child == 0) {
            struct rlimit limit = {limits[i], limits[i]};
            signal(SIGXFSZ, SIG_IGN); /* then write(2) says EFBIG, as it says ENOSPC on a full disk */
            fill(&memory, 2);
            bool refused = setrlimit(RLIMIT_FSIZE, &limit) == 0 &&
                           !checkpoint_write(scratch, &memory.checkpoint, &error) && error.status == ERROR_RUNTIME &&
                           strstr(error.message, "step_00000002.h5: the checkpoint cannot be written");
            _exit(refused ? 0 : 1);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        assert_int_not_equal(access(scratch_path("step_00000002.h5"), F_OK), 0);
        assert_int_not_equal(access(scratch_path("step_00000002.h5.new"), F_OK), 0);
    }
    assert_true(read_all(&read, scratch_path("step_00000001.h5"), &error));
    fill(&memory, 1);
    assert_true(same(&memory, &read));
    checkpoint_free(&read.checkpoint);
}

static void a_directory_that_is_gone_is_named(void **state)
{
    (void)state;
    static struct memory memory;
    struct error error;
    fill(&memory, 1);
    assert_false(checkpoint_write("/tmp/quest_no_such_directory", &memory.checkpoint, &error));
    assert_int_equal(error.status, ERROR_RUNTIME);
    assert_non_null(strstr(error.message, "/tmp/quest_no_such_directory/step_00000001.h5"));
}

/* ---- the directory ---- */

static void the_newest_and_the_best_are_kept(void **state)
{
    (void)state;
    static struct memory memory;
    struct error error;
    for (uint64_t step = 10; step <= 60; step += 10)
        write_step(&memory, step);
    store(scratch_path("step_00000099.h5.new"), (const unsigned char *)"cut", 3);
    store(scratch_path("notes.h5"), (const unsigned char *)"mine", 4);
    assert_true(checkpoint_mark_best(scratch, 50, &error));
    assert_true(checkpoint_mark_best(scratch, 20, &error));
    assert_true(checkpoint_prune(scratch, 2, UINT64_MAX, &error));
    char **paths;
    size_t count;
    assert_true(checkpoint_list(&paths, &count, scratch, &error));
    assert_int_equal(count, 3);
    assert_string_equal(paths[0], scratch_path("step_00000060.h5"));
    assert_string_equal(paths[1], scratch_path("step_00000050.h5"));
    assert_string_equal(paths[2], scratch_path("step_00000020.h5"));
    checkpoint_list_free(paths, count);
    struct checkpoint header;
    assert_true(checkpoint_read_header(&header, scratch_path("best.h5"), &error));
    assert_int_equal(header.step, 20);
    checkpoint_free(&header);
    /* A run that went on from step 50, because 60 is damaged, keeps what it writes. */
    write_step(&memory, 55);
    assert_true(checkpoint_prune(scratch, 1, 55, &error));
    assert_int_equal(access(scratch_path("step_00000055.h5"), F_OK), 0);
    assert_int_equal(access(scratch_path("step_00000060.h5"), F_OK), 0);
    assert_int_not_equal(access(scratch_path("step_00000050.h5"), F_OK), 0);
    assert_int_equal(access(scratch_path("notes.h5"), F_OK), 0);
    write_step(&memory, 70); /* and sweeps what a crash left */
    assert_int_not_equal(access(scratch_path("step_00000099.h5.new"), F_OK), 0);
}

/* A crash between the two steps of marking leaves a link of the temporary name, which may point nowhere. */
static void a_left_over_mark_is_replaced(void **state)
{
    (void)state;
    static struct memory memory;
    struct error error;
    write_step(&memory, 1);
    assert_int_equal(symlink("step_00000077.h5", scratch_path("best.h5.new")), 0);
    assert_true(checkpoint_mark_best(scratch, 1, &error));
    struct checkpoint header;
    assert_true(checkpoint_read_header(&header, scratch_path("best.h5"), &error));
    assert_int_equal(header.step, 1);
    checkpoint_free(&header);
    struct stat status;
    assert_int_not_equal(lstat(scratch_path("best.h5.new"), &status), 0);
}

static void what_a_run_gives_up_is_moved_and_the_best_with_it(void **state)
{
    (void)state;
    static struct memory memory;
    struct error error;
    struct stat status;
    bool best_moved;
    char aside[128];
    strcpy(aside, scratch_path("aside"));
    assert_int_equal(mkdir(aside, 0777), 0);
    for (uint64_t step = 10; step <= 40; step += 10)
        write_step(&memory, step);
    assert_true(checkpoint_mark_best(scratch, 20, &error));
    assert_true(checkpoint_put_aside(scratch, 30, aside, &best_moved, &error));
    assert_false(best_moved);
    assert_int_equal(access(scratch_path("aside/step_00000040.h5"), F_OK), 0);
    assert_int_equal(access(scratch_path("step_00000030.h5"), F_OK), 0); /* of the step itself: kept */
    assert_int_equal(access(scratch_path("best.h5"), F_OK), 0);
    assert_true(checkpoint_put_aside(scratch, 10, aside, &best_moved, &error));
    assert_true(best_moved);
    assert_int_not_equal(lstat(scratch_path("best.h5"), &status), 0);
    assert_int_equal(access(scratch_path("aside/step_00000020.h5"), F_OK), 0);
    assert_int_equal(access(scratch_path("step_00000010.h5"), F_OK), 0);
    assert_int_not_equal(access(scratch_path("step_00000020.h5"), F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_scratch, remove_scratch)
        TEST(a_checkpoint_is_on_the_disk_before_it_has_its_name),
        TEST(a_byte_that_reaches_the_disk_wrong_is_noticed),
        TEST(numbers_that_are_not_the_memorys_are_named),
        TEST(calls_that_fail_leave_the_previous_checkpoint),
        TEST(a_directory_that_is_not_flushed_is_an_error_where_it_could_be),
        TEST(writes_that_take_little_or_are_interrupted_go_on),
        TEST(a_full_disk_leaves_the_previous_checkpoint_whole),
        TEST(a_directory_that_is_gone_is_named),
        TEST(the_newest_and_the_best_are_kept),
        TEST(a_left_over_mark_is_replaced),
        TEST(what_a_run_gives_up_is_moved_and_the_best_with_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
