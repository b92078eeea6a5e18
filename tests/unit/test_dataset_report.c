/* What `quest-data info` prints of a dataset, as a table and as JSON. */
#include "data_test.h"

#include <jansson.h>
#include <math.h>

#include "data_loaders/format/dataset_report.h"

enum { IMAGES = 25, SIDE = 8 };

static char text[1 << 14];

typedef bool report_function(const struct dataset *dataset, FILE *stream, struct error *error);

/* What the report says of IMAGES drawn shapes, in `text`. */
static void report(report_function *function, enum encoding encoding, size_t classes)
{
    struct dataset dataset;
    const char *path = scratch_path("report.h5");
    write_shapes(path, encoding, IMAGES, SIDE, SIZE_MAX);
    assert_ok(dataset_open(&dataset, path, error));
    size_t own_classes = dataset.classes;
    char **own_names = dataset.class_names;
    if (classes) {
        dataset.classes = classes;
        dataset.class_names = NULL;
    }
    memset(text, 0, sizeof text);
    FILE *stream = fmemopen(text, sizeof text, "w");
    assert_non_null(stream);
    assert_ok(function(&dataset, stream, error));
    fclose(stream);
    dataset.classes = own_classes;
    dataset.class_names = own_names;
    dataset_close(&dataset);
}

static void expect(const char *line)
{
    const char *found = strstr(text, line);
    if (!found || (found != text && found[-1] != '\n'))
        fail_msg("no line '%s' in:\n%s", line, text);
}

static void the_table_has_a_line_for_each_fact_and_class(void **state)
{
    (void)state;
    report(dataset_report_table, ENCODING_RAW, 0);
    expect("file         /tmp/quest_test_");
    expect("images       25\n");
    expect("encoding     raw, 0.0 MB\n");
    expect("size         8 x 8 x 3\n");
    expect("mean         0.");
    expect("std          0.");
    expect("classes      10\n");
    expect("  0                 3 images  ");
    expect("  4                 3 images  ");
    expect("  5                 2 images  ");
    expect("  9                 2 images  ");
    assert_null(strstr(text, "more"));
    report(dataset_report_table, ENCODING_JPEG, 0);
    expect("encoding     jpeg, 0.0 MB\n");
    expect("size         each its own, 3 channels\n");
}

static void the_table_ends_after_twenty_classes(void **state)
{
    (void)state;
    report(dataset_report_table, ENCODING_RAW, 20);
    expect("  19                0 images  ");
    assert_null(strstr(text, "more"));
    report(dataset_report_table, ENCODING_RAW, 23);
    expect("  19                0 images  ");
    expect("  ... and 3 more\n");
    assert_null(strstr(text, "  20 "));
}

static void the_json_has_the_same_facts(void **state)
{
    (void)state;
    for (int encoding = ENCODING_RAW; encoding <= ENCODING_JPEG; encoding++) {
        report(dataset_report_json, encoding, 0);
        assert_int_equal(text[strlen(text) - 1], '\n');
        json_t *root = json_loads(text, 0, NULL);
        assert_non_null(root);
        assert_non_null(strstr(json_string_value(json_object_get(root, "file")), "report.h5"));
        assert_string_equal(json_string_value(json_object_get(root, "encoding")),
                            encoding == ENCODING_RAW ? "raw" : "jpeg");
        assert_int_equal(json_integer_value(json_object_get(root, "images")), IMAGES);
        assert_int_equal(json_integer_value(json_object_get(root, "channels")), 3);
        assert_int_equal(json_integer_value(json_object_get(root, "classes")), 10);
        double bytes = json_number_value(json_object_get(root, "stored_bytes"));
        assert_true(encoding == ENCODING_RAW ? bytes == IMAGES * SIDE * SIDE * 3 : bytes > IMAGES * 100);
        if (encoding == ENCODING_RAW) {
            assert_int_equal(json_integer_value(json_object_get(root, "height")), SIDE);
            assert_int_equal(json_integer_value(json_object_get(root, "width")), SIDE);
        }
        const json_t *list = json_object_get(root, "class_list");
        assert_int_equal(json_array_size(list), 10);
        for (size_t k = 0; k < 10; k++) {
            const json_t *images = json_object_get(json_array_get(list, k), "images");
            assert_int_equal(json_integer_value(images), k < 5 ? 3 : 2);
        }
        assert_int_equal(json_array_size(json_object_get(root, "mean")), 3);
        for (size_t c = 0; c < 3; c++) {
            double mean = json_number_value(json_array_get(json_object_get(root, "mean"), c));
            double std = json_number_value(json_array_get(json_object_get(root, "std"), c));
            assert_true(mean > 0.01 && mean < 1 && std > 0.01 && std < 1);
        }
        json_decref(root);
    }
}

static void a_report_that_cannot_be_written_is_an_error(void **state)
{
    (void)state;
    struct dataset dataset = {.file = -1};
    report_function *const functions[] = {dataset_report_table, dataset_report_json};
    const char *path = scratch_path("report.h5");
    write_shapes(path, ENCODING_RAW, IMAGES, SIDE, SIZE_MAX);
    assert_ok(dataset_open(&dataset, path, error));
    for (size_t i = 0; i < 2; i++) {
        FILE *full = fopen("/dev/full", "w");
        assert_non_null(full);
        assert_refused(functions[i](&dataset, full, error), ERROR_RUNTIME, "the report cannot be written");
        fclose(full);
    }
    dataset_close(&dataset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_has_a_line_for_each_fact_and_class),
        cmocka_unit_test(the_table_ends_after_twenty_classes),
        cmocka_unit_test(the_json_has_the_same_facts),
        cmocka_unit_test(a_report_that_cannot_be_written_is_an_error),
    };
    return cmocka_run_group_tests_name("dataset_report", tests, make_scratch, remove_scratch);
}
