/* Files that are whole or not there. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/files/file_output.h"
#include "tests/unit/scratch.h"

static bool exists(const char *name)
{
    return access(scratch_path(name), F_OK) == 0;
}

static void holds(const char *name, const char *text)
{
    char found[64] = "";
    FILE *file = fopen(scratch_path(name), "r");
    assert_non_null(file);
    assert_true(fread(found, 1, sizeof found - 1, file) == strlen(text));
    fclose(file);
    assert_string_equal(found, text);
}

static void parts_of_paths(void **state)
{
    (void)state;
    static const char *const paths[][2] = {
        {"runs/small", "small"}, {"runs/small//", "small"}, {"small", "small"}, {"/", ""}, {"", ""},
        {"a/b/c.h5", "c.h5"},
    };
    char name[16], *path = file_path("runs", "small");
    assert_string_equal(path, "runs/small");
    free(path);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        file_last_part(name, sizeof name, paths[i][0]);
        assert_string_equal(name, paths[i][1]);
    }
    file_last_part(name, 4, "runs/small");
    assert_string_equal(name, "sma");
}

static void directories_with_their_parents(void **state)
{
    (void)state;
    struct error error;
    char directory[128];
    snprintf(directory, sizeof directory, "%s", scratch_path("a/b/c/"));
    assert_true(file_make_directories(directory, &error));
    assert_true(file_make_directories(directory, &error)); /* again is no error */
    struct stat status;
    assert_true(stat(directory, &status) == 0 && S_ISDIR(status.st_mode));
    FILE *file = fopen(scratch_path("in_the_way"), "w");
    fclose(file);
    assert_false(file_make_directories(scratch_path("in_the_way/d"), &error));
    assert_int_equal(error.status, ERROR_INPUT);
    assert_non_null(strstr(error.message, "in_the_way"));
}

static void the_old_stays_until_the_new_is_whole(void **state)
{
    (void)state;
    struct error error;
    struct file_output output;
    char path[128];
    snprintf(path, sizeof path, "%s", scratch_path("out.txt"));
    assert_true(file_output_open(&output, path, &error));
    fputs("first", output.file);
    assert_false(exists("out.txt"));
    assert_true(file_output_close(&output, true, &error));
    holds("out.txt", "first");
    assert_true(file_output_open(&output, path, &error));
    fputs("second", output.file);
    holds("out.txt", "first");
    assert_false(file_output_close(&output, false, &error)); /* the caller found something wrong */
    holds("out.txt", "first");
    assert_false(exists("out.txt.new"));
    assert_true(file_output_open(&output, path, &error));
    fputs("third", output.file);
    assert_true(file_output_close(&output, true, &error));
    holds("out.txt", "third");
    assert_false(exists("out.txt.new"));
    assert_false(file_output_open(&output, "/nowhere/out.txt", &error));
    assert_int_equal(error.status, ERROR_INPUT);
}

static void a_disk_that_is_full_changes_nothing(void **state)
{
    (void)state;
    struct error error;
    struct file_output output;
    char path[128], temporary[140];
    snprintf(path, sizeof path, "%s", scratch_path("kept.txt"));
    snprintf(temporary, sizeof temporary, "%s.new", path);
    assert_true(file_output_open(&output, path, &error));
    fputs("kept", output.file);
    assert_true(file_output_close(&output, true, &error));
    assert_int_equal(symlink("/dev/full", temporary), 0);
    assert_true(file_output_open(&output, path, &error));
    fputs("lost", output.file);
    assert_false(file_output_close(&output, true, &error));
    assert_int_equal(error.status, ERROR_RUNTIME);
    assert_non_null(strstr(error.message, "kept.txt"));
    holds("kept.txt", "kept");
    assert_false(exists("kept.txt.new"));
}

static void committed_files(void **state)
{
    (void)state;
    struct error error;
    char path[128], temporary[140];
    snprintf(path, sizeof path, "%s", scratch_path("committed"));
    snprintf(temporary, sizeof temporary, "%s.new", path);
    int file = open(temporary, O_WRONLY | O_CREAT, 0666);
    assert_true(file_write_all(file, "whole", 5));
    assert_true(file_commit(file, temporary, path, scratch, &error));
    holds("committed", "whole");
    assert_false(exists("committed.new"));
    assert_int_equal(fcntl(file, F_GETFD), -1); /* closed */
    file = open(temporary, O_WRONLY | O_CREAT, 0666);
    assert_false(file_commit(file, temporary, "/nowhere/committed", scratch, &error));
    assert_int_equal(error.status, ERROR_RUNTIME);
    assert_false(exists("committed.new"));
    assert_false(file_sync_directory("/nowhere", &error));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_of_paths),
        cmocka_unit_test(directories_with_their_parents),
        cmocka_unit_test(the_old_stays_until_the_new_is_whole),
        cmocka_unit_test(a_disk_that_is_full_changes_nothing),
        cmocka_unit_test(committed_files),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
