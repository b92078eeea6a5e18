/* The list of image files: sorted by their bytes, with the labels of their folders. */
#include "data_test.h"

#include <sys/stat.h>

#include "data_loaders/import/folder_list.h"

static void make_folder(const char *name)
{
    assert_int_equal(mkdir(scratch_path(name), 0755), 0);
}

static void make_file(const char *name)
{
    FILE *file = fopen(scratch_path(name), "w");
    assert_non_null(file);
    fclose(file);
}

static void make_link(const char *to, const char *name)
{
    assert_int_equal(symlink(to, scratch_path(name)), 0);
}

/* Made in another order than listed: by bytes capitals come first, and "10" before "9". */
static void files_are_sorted_by_their_bytes(void **state)
{
    (void)state;
    const char *const expected[] = {"Z/1", "a/10", "a/9", "a/B", "a/link", "a/nowhere", "a/\xc3\xa4", "b/x"};
    const int32_t labels[] = {0, 1, 1, 1, 1, 1, 1, 2};
    struct folder_list list;
    make_folder("root");
    make_folder("root/b");
    make_folder("root/a");
    make_folder("root/Z");
    make_folder("root/.hidden");
    make_folder("root/a/deeper");
    make_file("root/README");
    make_file("root/.hidden/x");
    make_file("root/a/deeper/x");
    make_file("root/a/\xc3\xa4");
    make_file("root/a/9");
    make_file("root/a/B");
    make_file("root/a/10");
    make_file("root/a/.hidden");
    make_file("root/b/x");
    make_file("root/Z/1");
    make_link("9", "root/a/link");
    make_link("not-there", "root/a/nowhere");
    make_link("deeper", "root/a/folder-link");
    assert_ok(folder_list_read(&list, scratch_path("root"), error));
    assert_int_equal(list.classes, 3);
    assert_string_equal(list.class_names[0], "Z");
    assert_string_equal(list.class_names[1], "a");
    assert_string_equal(list.class_names[2], "b");
    assert_int_equal(list.file_count, 8);
    for (size_t i = 0; i < 8; i++) {
        char name[64];
        snprintf(name, sizeof name, "root/%s", expected[i]);
        assert_string_equal(list.files[i].path, scratch_path(name));
        assert_int_equal(list.files[i].label, labels[i]);
    }
    folder_list_free(&list);
    assert_int_equal(list.file_count, 0);
}

static void a_class_may_be_a_link(void **state)
{
    (void)state;
    struct folder_list list;
    make_folder("linked");
    make_folder("elsewhere");
    make_file("elsewhere/x");
    make_link("../elsewhere", "linked/class");
    assert_ok(folder_list_read(&list, scratch_path("linked"), error));
    assert_int_equal(list.classes, 1);
    assert_int_equal(list.file_count, 1);
    folder_list_free(&list);
    make_link("../not-there", "linked/broken");
    assert_refused(folder_list_read(&list, scratch_path("linked"), error), ERROR_INPUT, "broken: No such file");
}

static void what_holds_no_images_is_refused(void **state)
{
    (void)state;
    struct folder_list list;
    assert_refused(folder_list_read(&list, scratch_path("not-there"), error), ERROR_INPUT, "No such file");
    make_folder("empty");
    assert_refused(folder_list_read(&list, scratch_path("empty"), error), ERROR_INPUT, "holds no class folders");
    make_file("empty/file");
    assert_refused(folder_list_read(&list, scratch_path("empty"), error), ERROR_INPUT, "holds no class folders");
    /* The second class has no file but a hidden one and a folder. */
    make_folder("empty/a");
    make_file("empty/a/x");
    make_folder("empty/b");
    make_file("empty/b/.hidden");
    make_folder("empty/b/folder");
    assert_refused(folder_list_read(&list, scratch_path("empty"), error), ERROR_INPUT, "empty/b: holds no files");
    make_file("empty/b/x");
    assert_ok(folder_list_read(&list, scratch_path("empty"), error));
    assert_int_equal(list.file_count, 2);
    folder_list_free(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_sorted_by_their_bytes),
        cmocka_unit_test(a_class_may_be_a_link),
        cmocka_unit_test(what_holds_no_images_is_refused),
    };
    return cmocka_run_group_tests_name("folder_list", tests, make_scratch, remove_scratch);
}
