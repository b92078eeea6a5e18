/* Choices of products as lines of a file: what is written is read, and what is damaged is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/products.h"

static const char identity[] = "NVIDIA \"H100\" 80GB HBM3, compute capability 9.0, cuBLASLt 130002";

static struct product_choice example(void)
{
    struct product_choice choice = {.product = {.m = 768,
                                                .n = 50432,
                                                .k = 3072,
                                                .transpose_a = 1,
                                                .dtype_in = DTYPE_BFLOAT16,
                                                .dtype_out = DTYPE_FLOAT32,
                                                .accumulate = 1,
                                                .epilogue = PRODUCT_COLUMN_SUMS,
                                                .align_a = 16,
                                                .align_b = 8,
                                                .align_d = 4,
                                                .align_bias = 2},
                                    .way = PRODUCT_BY_LIBRARY,
                                    .tuned = true,
                                    .id = 67,
                                    .tile = -1,
                                    .stages = 12,
                                    .split_k = 3,
                                    .waves = 0.75,
                                    .workspace_bytes = (uint64_t)1 << 40,
                                    .offered = 16,
                                    .refused = 2,
                                    .time_s = 125e-6,
                                    .first_s = 0};
    for (size_t i = 0; i < sizeof choice.algorithm; i++)
        choice.algorithm[i] = (unsigned char)(i * 37 + 11);
    return choice;
}

static char *example_line(void)
{
    struct product_choice choice = example();
    char *line = product_choice_format(&choice, identity);
    assert_non_null(line);
    return line;
}

static bool read_line(const char *line, size_t bytes, struct error *error)
{
    struct product_choice choice;
    char name[PRODUCTS_IDENTITY_BYTES];
    return product_choice_read(&choice, name, line, bytes, error);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    struct error error;
    struct product_choice choice = example(), found;
    char name[PRODUCTS_IDENTITY_BYTES], *line = example_line();
    assert_null(strchr(line, '\n'));
    assert_true(product_choice_read(&found, name, line, strlen(line), &error));
    assert_string_equal(name, identity);
    assert_memory_equal(&found.product, &choice.product, sizeof found.product);
    assert_memory_equal(found.algorithm, choice.algorithm, sizeof found.algorithm);
    assert_true(found.way == choice.way && found.tuned == choice.tuned && found.id == 67 && found.tile == -1);
    assert_true(found.stages == 12 && found.split_k == 3 && found.waves == 0.75 && found.offered == 16);
    assert_true(found.refused == 2 && found.workspace_bytes == (uint64_t)1 << 40);
    assert_float_equal(found.time_s, 125e-6, 1e-12);
    assert_true(found.first_s == 0);
    free(line);
}

/* `from` in the line becomes `to`. */
static char *changed(const char *line, const char *from, const char *to)
{
    const char *at = strstr(line, from);
    char *text = malloc(strlen(line) + strlen(to) + 1);
    assert_non_null(at);
    assert_non_null(text);
    memcpy(text, line, (size_t)(at - line));
    strcpy(text + (at - line), to);
    strcat(text, at + strlen(from));
    return text;
}

static void a_field_that_is_wrong_is_named(void **state)
{
    (void)state;
    const char *const changes[][3] = {
        {"\"m\":768", "\"m\":0", "\"m\""},
        {"\"n\":50432", "\"n\":4294967296", "\"n\""},
        {"\"k\":3072", "\"k\":3072.5", "\"k\""},
        {"\"transpose_a\":true", "\"transpose_a\":1", "\"transpose_a\""},
        {"\"in\":\"bf16\"", "\"in\":\"fp8\"", "\"in\""},
        {"\"epilogue\":\"column_sums\"", "\"epilogue\":\"gelu\"", "\"epilogue\""},
        {"[16,8,4,2]", "[16,8,4]", "\"alignment\""},
        {"[16,8,4,2]", "[16,8,3,2]", "\"alignment\""},
        {"[16,8,4,2]", "[32,8,4,2]", "\"alignment\""},
        {"\"way\":\"library\"", "\"way\":\"other\"", "\"way\""},
        {"\"tuned\":true", "\"turned\":true", "\"tuned\""},
        {"\"algorithm\":\"0b", "\"algorithm\":\"0g", "\"algorithm\""},
        {"\"algorithm\":\"0b", "\"algorithm\":\"", "\"algorithm\""},
        {"\"algorithm\":\"0b", "\"algorithm\":\"000b", "\"algorithm\""},
        {"\"id\":67", "\"id\":-2", "\"id\""},
        {"\"waves\":0.75", "\"waves\":-0.75", "\"waves\""},
        {"\"workspace_bytes\":", "\"workspace_bytes\":-", "\"workspace_bytes\""},
        {"\"time_us\":125", "\"time_us\":-125", "\"time_us\""},
        {"\"first_us\":null", "\"first_us\":\"\"", "\"first_us\""},
        {"\"for\":", "\"for\":3,\"for\":", "JSON"},
        {"\"for\":\"", "\"for\":3,\"was\":\"", "\"for\""},
    };
    struct error error;
    char *line = example_line();
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        char *text = changed(line, changes[i][0], changes[i][1]);
        if (read_line(text, strlen(text), &error))
            fail_msg("%s is taken", changes[i][1]);
        assert_int_equal(error.status, ERROR_INPUT);
        if (!strstr(error.message, changes[i][2]))
            fail_msg("%s: %s", changes[i][1], error.message);
        free(text);
    }
    free(line);
}

static void a_long_name_is_refused(void **state)
{
    (void)state;
    struct error error;
    struct product_choice choice = example();
    char name[PRODUCTS_IDENTITY_BYTES + 1];
    memset(name, 'x', sizeof name - 1);
    for (size_t length = PRODUCTS_IDENTITY_BYTES - 1; length <= PRODUCTS_IDENTITY_BYTES; length++) {
        name[length] = '\0';
        char *line = product_choice_format(&choice, name);
        assert_non_null(line);
        assert_int_equal(read_line(line, strlen(line), &error), length < PRODUCTS_IDENTITY_BYTES);
        free(line);
        name[length] = 'x';
    }
}

/* Cut anywhere, and with any byte changed: refused, or read as something that has its form. */
static void damage_is_never_more_than_a_refusal(void **state)
{
    (void)state;
    struct error error;
    char *line = example_line();
    size_t bytes = strlen(line);
    for (size_t length = 0; length < bytes; length++)
        assert_false(read_line(line, length, &error));
    for (size_t at = 0; at < bytes; at++) {
        for (int bit = 0; bit < 8; bit++) {
            line[at] = (char)(line[at] ^ 1 << bit);
            read_line(line, bytes, &error);
            line[at] = (char)(line[at] ^ 1 << bit);
        }
    }
    const char *const others[] = {"", "[]", "7", "null", "{}", "{\"for\":{}}", "\xff\xfe", "{\"for\":\"\\u0000\"}"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_false(read_line(others[i], strlen(others[i]), &error));
        assert_int_equal(error.status, ERROR_INPUT);
    }
    free(line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(a_field_that_is_wrong_is_named),
        cmocka_unit_test(a_long_name_is_refused),
        cmocka_unit_test(damage_is_never_more_than_a_refusal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
