/* Parts of names in tars, names that come twice, and lists of words. */
#include "tests/unit/data_test.h"

#include "data_loaders/import/tar_names.h"
#include "data_loaders/import/text_lines.h"

static void names_have_parts(void **state)
{
    (void)state;
    assert_string_equal(tar_name_base("a/b.c/d.e"), "d.e");
    assert_string_equal(tar_name_base("d"), "d");
    assert_string_equal(tar_name_extension("a.b/key.seg.png"), "seg.png");
    assert_string_equal(tar_name_extension("a.b/key"), "");
    assert_string_equal(tar_name_extension("key."), "");
    assert_true(tar_name_is_image("JPEG"));
    assert_false(tar_name_is_image("jpeg2"));
    assert_false(tar_name_is_image(""));
    char *name = tar_name_class("train/n01440764.tar");
    assert_string_equal(name, "n01440764");
    free(name);
    assert_null(tar_name_class("train/.tar"));
    assert_null(tar_name_class("n01.tar.gz"));
    assert_null(tar_name_class("tar"));
}

/* Past several growths, with names that begin alike. */
static void each_name_is_new_once(void **state)
{
    (void)state;
    struct names_seen seen = {0};
    char name[32];
    bool again;
    for (int round = 0; round < 2; round++) {
        for (int turn = 0; turn < 2; turn++)
            for (size_t i = 0; i < 5000; i++) {
                int length = snprintf(name, sizeof name, "%05zu.jpg", i);
                assert_true(names_seen_add(&seen, name, (size_t)length, &again));
                assert_int_equal(again, turn);
            }
        assert_int_equal(seen.count, 5000);
        assert_true(names_seen_add(&seen, "00001.jp", 8, &again));
        assert_false(again);
        names_seen_clear(&seen);
    }
    names_seen_free(&seen);
}

static void write_text(const char *text, size_t bytes)
{
    FILE *file = fopen(scratch_path("list.txt"), "w");
    assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    fclose(file);
}

static void the_first_word_of_a_line_counts(void **state)
{
    (void)state;
    struct text_lines lines;
    write_text("n03 a dog\r\n \tn01\nn02\tb\n\n \n", 26);
    assert_ok(text_lines_read(&lines, scratch_path("list.txt"), error));
    assert_int_equal(lines.count, 3);
    assert_string_equal(lines.lines[0], "n03");
    assert_string_equal(lines.lines[1], "n01");
    assert_string_equal(lines.lines[2], "n02");
    struct name_index index;
    assert_ok(name_index_make(&index, lines.lines, lines.count, "list", error));
    assert_int_equal(name_index_find(&index, "n03"), 0);
    assert_int_equal(name_index_find(&index, "n01"), 1);
    assert_int_equal(name_index_find(&index, "n02"), 2);
    assert_true(name_index_find(&index, "n0") == SIZE_MAX);
    name_index_free(&index);
    assert_refused(name_index_make(&index, (char *[]){"a", "b", "a"}, 3, "list", error), ERROR_INPUT,
                   "list: 'a' is there twice");
    text_lines_free(&lines);
    write_text("a\0b\n", 4);
    assert_refused(text_lines_read(&lines, scratch_path("list.txt"), error), ERROR_INPUT, "holds a NUL byte");
    assert_refused(text_lines_read(&lines, "/dev/zero", error), ERROR_INPUT, "is larger than 64 MiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(names_have_parts), cmocka_unit_test(each_name_is_new_once),
                                       cmocka_unit_test(the_first_word_of_a_line_counts)};
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
