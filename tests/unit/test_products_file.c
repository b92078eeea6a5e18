/* products.jsonl: what is written is read; what is not whole, too large or no file is refused with its name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/train/products_file.h"

static char directory[64], path[128];

static int make_directory(void **state)
{
    (void)state;
    strcpy(directory, "/tmp/quest_products_XXXXXX");
    if (!mkdtemp(directory))
        return -1;
    snprintf(path, sizeof path, "%s/products.jsonl", directory);
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    remove(path);
    return rmdir(directory);
}

static struct kept_product example(int id)
{
    struct kept_product product = {
        .choice = {
            .product =
                {.m = 8, .n = 16, .k = (uint64_t)id, .align_a = 16, .align_b = 16, .align_d = 16, .align_bias = 16},
            .way = PRODUCT_BY_GENERAL,
            .id = id}};
    snprintf(product.identity, sizeof product.identity, "GPU %d", id);
    return product;
}

static void write_text(const char *text, size_t bytes, size_t times)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (size_t i = 0; i < times; i++)
        assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static void assert_refused(const char *why)
{
    struct kept_products found = {.count = 3};
    struct error error;
    assert_false(products_file_read(&found, path, &error));
    assert_int_equal(found.count, 0);
    assert_null(found.items);
    assert_non_null(strstr(error.message, path));
    if (!strstr(error.message, why))
        fail_msg("not \"%s\" but: %s", why, error.message);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    struct error error;
    struct kept_products products = {0}, found;
    assert_true(products_file_read(&found, path, &error)); /* no file yet */
    assert_int_equal(found.count, 0);
    for (int count = 1; count <= 3; count++) {
        struct kept_product product = example(count);
        char temporary[sizeof path + 4];
        assert_true(kept_products_add(&products, &product, 1, &error));
        assert_true(products_file_write(&products, path, directory, &error));
        snprintf(temporary, sizeof temporary, "%s.new", path);
        assert_int_not_equal(access(temporary, F_OK), 0);
        assert_true(products_file_read(&found, path, &error));
        assert_int_equal(found.count, count);
        for (int i = 0; i < count; i++) {
            struct kept_product expected = example(i + 1);
            assert_string_equal(found.items[i].identity, expected.identity);
            assert_memory_equal(&found.items[i].choice.product, &expected.choice.product,
                                sizeof expected.choice.product);
        }
        kept_products_free(&found);
    }
    kept_products_free(&products);
}

static void what_is_not_whole_is_refused(void **state)
{
    (void)state;
    struct kept_product product = example(1);
    char *line = product_choice_format(&product.choice, product.identity);
    assert_non_null(line);
    size_t bytes = strlen(line);
    write_text(line, bytes, 1);
    assert_refused("line 1 is cut off");
    line[bytes++] = '\n'; /* in place of the end of the string, which nothing needs now */
    write_text(line, bytes, 5000);
    assert_refused("more than 4096 lines");
    line[0] = '[';
    write_text(line, bytes, 1);
    assert_refused("line 1: not a JSON object");
    write_text("\n", 1, 1);
    assert_refused("line 1: not a JSON object");
    write_text("", 1, 5 << 20);
    assert_refused("larger than 4 MiB");
    free(line);
    remove(path);
    assert_int_equal(mkdir(path, 0777), 0);
    assert_refused("cannot be read: ");
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(mkfifo(path, 0666), 0); /* a pipe does not hold a run up: it reads as empty */
    struct kept_products found;
    struct error error;
    assert_true(products_file_read(&found, path, &error));
    assert_int_equal(found.count, 0);
}

static void a_directory_that_is_gone_is_an_error(void **state)
{
    (void)state;
    struct kept_products products = {0};
    struct error error;
    assert_false(products_file_write(&products, "/nonexistent/products.jsonl", "/nonexistent", &error));
    assert_int_equal(error.status, ERROR_RUNTIME);
    assert_non_null(strstr(error.message, "/nonexistent/products.jsonl.new: cannot be written"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_written_is_read, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(what_is_not_whole_is_refused, make_directory, remove_directory),
        cmocka_unit_test(a_directory_that_is_gone_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
