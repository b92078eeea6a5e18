/* Copies: whole, with the time of the original, or not there. */
#include "tests/unit/data_test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "src/files/file_copy.h"

enum { BYTES = 9 << 20 }; /* more than two blocks */

static char from[256], to[256];

static void write_bytes(size_t count)
{
    FILE *file = fopen(from, "w");
    for (size_t i = 0; i < count; i++)
        fputc((int)(i * 2654435761U >> 13 & 255), file);
    fclose(file);
}

static size_t files_there(void)
{
    size_t count = 0;
    DIR *entries = opendir(scratch);
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(entries);
    return count;
}

static int name_files(void **state)
{
    snprintf(from, sizeof from, "%s", make_scratch(state) == 0 ? scratch_path("from") : "");
    snprintf(to, sizeof to, "%s", scratch_path("to"));
    return from[0] ? 0 : -1;
}

static void a_copy_has_the_bytes_and_the_time(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 4 << 20, BYTES};
    enum file_copied copied;
    for (size_t i = 0; i < 4; i++) {
        char command[600];
        struct stat a, b;
        const struct timespec times[2] = {{1000000000, 0}, {1234567890, 123000000}};
        write_bytes(sizes[i]);
        assert_int_equal(utimensat(AT_FDCWD, from, times, 0), 0);
        assert_ok(file_copy(from, to, scratch, &copied, error));
        assert_int_equal(copied, FILE_COPIED);
        snprintf(command, sizeof command, "cmp %s %s", from, to);
        assert_int_equal(system(command), 0);
        assert_int_equal(stat(from, &a) + stat(to, &b), 0);
        assert_int_equal(a.st_mtim.tv_sec, b.st_mtim.tv_sec);
        assert_int_equal(a.st_mtim.tv_nsec, b.st_mtim.tv_nsec);
        assert_int_equal(files_there(), 2);
        unlink(to);
    }
}

/* A limit of the file's size stands for a full disk. */
static void a_full_disk_leaves_nothing(void **state)
{
    (void)state;
    enum file_copied copied = FILE_COPIED;
    struct rlimit before, limit = {5 << 20, RLIM_INFINITY};
    write_bytes(BYTES);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit.rlim_max = before.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    bool ok;
    struct error error = {.status = ERROR_NONE};
    ok = file_copy(from, to, scratch, &copied, &error);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_true(ok);
    assert_int_equal(copied, FILE_COPY_NO_ROOM);
    assert_int_equal(files_there(), 1);
}

static void what_cannot_be_copied_is_named(void **state)
{
    (void)state;
    enum file_copied copied;
    unlink(from);
    assert_refused(file_copy(from, to, scratch, &copied, error), ERROR_RUNTIME, "/from: No such file or directory");
    assert_refused(file_copy(scratch, to, scratch, &copied, error), ERROR_RUNTIME, "is not a regular file");
    write_bytes(10);
    assert_refused(file_copy(from, "/proc/quest", "/proc", &copied, error), ERROR_RUNTIME, "/proc/quest: cannot be wr");
    assert_int_equal(files_there(), 1);
}

static void leave(const char *format, const char *host, long process)
{
    char path[256];
    size_t start = (size_t)snprintf(path, sizeof path, "%s/", scratch);
    snprintf(path + start, sizeof path - start, format, host, process);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
}

/* Of a process that is gone and of this host; not another's, not a name that only looks like one. */
static void what_dead_copies_left_goes(void **state)
{
    (void)state;
    char host[64] = "";
    gethostname(host, sizeof host - 1);
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    unlink(from);
    leave("quest-a.tmp-%s-%ld", host, child);
    leave("quest-b.tmp-%s-%ld", host, getpid());
    leave("quest-c.tmp-%sx-%ld", host, child);
    leave("quest-d.tmp-%s-%ldx", host, child);
    leave("other.tmp-%s-%ld", host, child);
    assert_int_equal(files_there(), 5);
    file_copy_clean(scratch, "quest-");
    assert_int_equal(files_there(), 4);
    char gone[256];
    snprintf(gone, sizeof gone, "%s/quest-a.tmp-%s-%ld", scratch, host, (long)child);
    assert_int_equal(access(gone, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copy_has_the_bytes_and_the_time), cmocka_unit_test(a_full_disk_leaves_nothing),
        cmocka_unit_test(what_cannot_be_copied_is_named), cmocka_unit_test(what_dead_copies_left_goes)};
    return cmocka_run_group_tests(tests, name_files, remove_scratch);
}
