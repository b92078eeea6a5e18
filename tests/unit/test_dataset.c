/* Datasets written, read back, made by other programs, and damaged in every way that has a message of its own. */
#include "brief.h"
#include "data_test.h"

#include <hdf5.h>
#include <math.h>

#include "data_loaders/format/dataset_classes.h"
#include "data_loaders/format/image_read.h"
#include "data_loaders/format/verify.h"

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    struct dataset dataset;
    struct synth_options synth = {.images = 23, .size = 16, .classes = SYNTH_CLASSES};
    uint8_t expected[16 * 16 * 3], pixels[16 * 16 * 3];
    const char *path = scratch_path("raw.h5");
    write_shapes(path, ENCODING_RAW, 23, 16, SIZE_MAX);
    assert_ok(dataset_open(&dataset, path, error));
    assert_int_equal(dataset.images, 23);
    assert_int_equal(dataset.height * dataset.width * dataset.channels, 16 * 16 * 3);
    for (size_t i = 0; i < 23; i++) {
        synth_image(&synth, i, expected);
        assert_ok(dataset_read(&dataset, i, pixels, error));
        assert_memory_equal(pixels, expected, sizeof expected);
        assert_int_equal(dataset.labels[i], i % SYNTH_CLASSES);
    }
    assert_ok(dataset_verify(&dataset, error));
    dataset_close(&dataset);
}

/* Streams longer than a chunk of the file lie across several. */
static void streams_across_chunks_are_whole(void **state)
{
    (void)state;
    enum { IMAGES = 8 };
    struct dataset dataset;
    struct image_reader *reader;
    struct pixels pixels;
    size_t height, width;
    const char *path = scratch_path("long.h5");
    write_shapes(path, ENCODING_JPEG, IMAGES, 1024, SIZE_MAX);
    assert_ok(dataset_open(&dataset, path, error));
    assert_true(dataset.offsets[IMAGES] > dataset.chunk_bytes);
    assert_ok(image_reader_open(&reader, &dataset, error));
    for (size_t i = 0; i < IMAGES; i++) {
        assert_ok(image_load(reader, i, &height, &width, error));
        assert_ok(image_decode(reader, NULL, 0, &pixels, error));
        assert_int_equal(pixels.height * pixels.width, 1024 * 1024);
        assert_ok(image_load(reader, i, &height, &width, error));
        assert_ok(image_decode(reader, &(struct rectangle){0, 0, 1024, 1024}, 256, &pixels, error));
        assert_int_equal(pixels.height, 256);
    }
    image_reader_close(reader);
    dataset_close(&dataset);
}

/* ---- other layouts and damage: a good file, changed through HDF5 ---- */

static hid_t reopen(const char *path)
{
    write_shapes(path, ENCODING_RAW, 5, 16, SIZE_MAX);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

static void set_attribute(hid_t file, const char *name, hid_t type, const void *value)
{
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
    assert_true(attribute >= 0 && H5Awrite(attribute, type, value) >= 0);
    H5Aclose(attribute);
}

static void damaged_headers_are_named(void **state)
{
    (void)state;
    const int32_t version = 2, classes = 0;
    const float bad_mean[3] = {0.5f, NAN, 0.5f}, bad_std[3] = {0.0f, 0.2f, 0.2f};
    const struct {
        const char *attribute;
        hid_t type;
        const void *value;
        const char *message;
    } cases[] = {
        {"version", H5T_NATIVE_INT32, &version, "version 2 of the dataset format is not known"},
        {"classes", H5T_NATIVE_INT32, &classes, "classes = 0"},
        {"mean", H5T_NATIVE_FLOAT, bad_mean, "mean[1] = nan"},
        {"std", H5T_NATIVE_FLOAT, bad_std, "std[0] = 0"},
    };
    const char *path = scratch_path("header.h5");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct dataset dataset;
        hid_t file = reopen(path);
        set_attribute(file, cases[i].attribute, cases[i].type, cases[i].value);
        H5Fclose(file);
        assert_refused(dataset_open(&dataset, path, error), ERROR_INPUT, cases[i].message);
    }
}

/* The ends of each range, and what lies just outside. */
static void bounds_of_the_header_are_exact(void **state)
{
    (void)state;
    const int32_t zero = 0, one = 1, most = 10000000, too_many = 10000001;
    const float ends[3] = {0, 1, 0.5f}, low[3] = {0.5f, 0.5f, -0.001f}, high[3] = {1.001f, 0.5f, 0.5f};
    const float std_ends[3] = {1e-6f, 1, 0.5f}, endless[3] = {0.5f, INFINITY, 0.5f};
    const struct {
        const char *attribute;
        hid_t type;
        const void *value;
        const char *message; /* NULL: opens */
    } cases[] = {
        {"version", H5T_NATIVE_INT32, &one, NULL},
        {"version", H5T_NATIVE_INT32, &zero, "version 0"},
        {"classes", H5T_NATIVE_INT32, &most, NULL},
        {"classes", H5T_NATIVE_INT32, &too_many, "classes = 10000001"},
        {"classes", H5T_NATIVE_INT32, &one, "/labels[1] = 1, but the file declares 1 classes"},
        {"mean", H5T_NATIVE_FLOAT, ends, NULL},
        {"mean", H5T_NATIVE_FLOAT, low, "mean[2] = -0.001"},
        {"mean", H5T_NATIVE_FLOAT, high, "mean[0] = 1.001"},
        {"std", H5T_NATIVE_FLOAT, std_ends, NULL},
        {"std", H5T_NATIVE_FLOAT, low, "std[2] = -0.001"},
        {"std", H5T_NATIVE_FLOAT, high, "std[0] = 1.001"},
        {"std", H5T_NATIVE_FLOAT, endless, "std[1] = inf"},
    };
    const char *path = scratch_path("bounds.h5");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct dataset dataset;
        hid_t file = reopen(path);
        set_attribute(file, cases[i].attribute, cases[i].type, cases[i].value);
        H5Fclose(file);
        if (cases[i].message) {
            assert_refused(dataset_open(&dataset, path, error), ERROR_INPUT, cases[i].message);
            continue;
        }
        assert_ok(dataset_open(&dataset, path, error));
        dataset_close(&dataset);
    }
}

/* Writes `values` over a list of the file. */
static void set_list(const char *path, const char *name, hid_t type, const void *values)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), list = H5Dopen2(file, name, H5P_DEFAULT);
    assert_true(list >= 0 && H5Dwrite(list, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(list);
    H5Fclose(file);
}

static void a_label_out_of_range_is_named(void **state)
{
    (void)state;
    const struct {
        int32_t labels[5];
        const char *message; /* NULL: opens */
    } cases[] = {
        {{0, 1, 2, 99, 4}, "/labels[3] = 99, but the file declares 10 classes; the file is damaged, import it again"},
        {{0, 1, 2, 3, 10}, "/labels[4] = 10, but"},
        {{-1, 1, 2, 3, 4}, "/labels[0] = -1, but"},
        {{9, 0, 9, 0, 9}, NULL},
    };
    const char *path = scratch_path("labels.h5");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct dataset dataset;
        write_shapes(path, ENCODING_RAW, 5, 16, SIZE_MAX);
        set_list(path, "labels", H5T_NATIVE_INT32, cases[i].labels);
        if (cases[i].message) {
            assert_refused(dataset_open(&dataset, path, error), ERROR_INPUT, cases[i].message);
            continue;
        }
        assert_ok(dataset_open(&dataset, path, error));
        assert_memory_equal(dataset.labels, cases[i].labels, sizeof cases[i].labels);
        dataset_close(&dataset);
    }
}

static void stream_offsets_that_are_damaged_are_named(void **state)
{
    (void)state;
    struct dataset dataset;
    const char *path = scratch_path("offsets.h5");
    write_shapes(path, ENCODING_JPEG, 3, 32, SIZE_MAX);
    assert_ok(dataset_open(&dataset, path, error));
    const uint64_t end = dataset.offsets[3];
    dataset_close(&dataset);
    const struct {
        uint64_t offsets[4];
        const char *message; /* NULL: opens */
    } cases[] = {
        {{0, 500, 400, 600}, "/jpeg/offsets[1] = 500 goes back to 400"},
        {{0, 100, 200, 199}, "/jpeg/offsets[2] = 200 goes back to 199"},
        {{101, 100, 200, end}, "/jpeg/offsets[0] = 101 goes back to 100"},
        {{0, 100, 200, end + 1}, "/jpeg/offsets ends at"},
        {{0, 100, 200, UINT64_MAX}, "/jpeg/offsets ends at 18446744073709551615, but /jpeg/bytes holds"},
        {{0, 100, 200, end}, NULL},
        {{0, 100, 100, end - 1}, NULL}, /* an empty stream is for the loader to name */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set_list(path, "jpeg/offsets", H5T_NATIVE_UINT64, cases[i].offsets);
        if (cases[i].message) {
            assert_refused(dataset_open(&dataset, path, error), ERROR_INPUT, cases[i].message);
            continue;
        }
        assert_ok(dataset_open(&dataset, path, error));
        for (size_t image = 0; image < 3; image++)
            assert_int_equal(dataset_stored_bytes(&dataset, image),
                             cases[i].offsets[image + 1] - cases[i].offsets[image]);
        dataset_close(&dataset);
    }
}

static void files_that_are_no_dataset_are_refused(void **state)
{
    (void)state;
    struct dataset dataset;
    const char *path = scratch_path("none.h5");
    assert_refused(dataset_open(&dataset, path, error), ERROR_INPUT, "No such file");
    FILE *text = fopen(path, "w");
    fputs("this is a text, not an HDF5 file\n", text);
    fclose(text);
    assert_refused(dataset_open(&dataset, path, error), ERROR_INPUT, "is not an HDF5 file");
    write_shapes(path, ENCODING_RAW, 20, 32, SIZE_MAX);
    assert_int_equal(truncate(path, 30000), 0);
    assert_refused(dataset_open(&dataset, path, error), ERROR_INPUT, "truncated");
    assert_refused(dataset_open(&dataset, scratch, error), ERROR_INPUT, "regular file");
}

static void labels_follow_the_names_of_classes(void **state)
{
    (void)state;
    struct dataset dataset;
    const char *path = scratch_path("classes.h5");
    write_shapes(path, ENCODING_RAW, 12, 16, SIZE_MAX);
    assert_ok(dataset_open(&dataset, path, error));
    assert_null(dataset_class_lines(&dataset)); /* the file has no names */
    dataset.class_names = calloc(SYNTH_CLASSES, sizeof *dataset.class_names);
    for (size_t i = 0; i < SYNTH_CLASSES; i++)
        dataset.class_names[i] = strdup(synth_class_names[i]);
    char *lines = dataset_class_lines(&dataset), *reversed = calloc(1, strlen(lines) + 10);
    assert_non_null(lines);
    assert_ok(dataset_match_classes(&dataset, NULL, SYNTH_CLASSES, "x", error));
    assert_ok(dataset_match_classes(&dataset, lines, SYNTH_CLASSES, "x", error));
    assert_int_equal(dataset.labels[3], 3);
    strcpy(reversed, "another\n");
    for (size_t i = SYNTH_CLASSES; i-- > 0;) {
        strcat(reversed, dataset.class_names[i]);
        strcat(reversed, "\n");
    }
    assert_ok(dataset_match_classes(&dataset, reversed, SYNTH_CLASSES + 1, "x", error));
    for (size_t i = 0; i < 12; i++)
        assert_int_equal(dataset.labels[i], SYNTH_CLASSES - i % SYNTH_CLASSES);
    assert_refused(dataset_match_classes(&dataset, reversed, SYNTH_CLASSES, "train.h5", error), ERROR_INPUT,
                   "not one of those of train.h5"); /* the last line does not count */
    assert_refused(dataset_match_classes(&dataset, "disc\n", 1, "train.h5", error), ERROR_INPUT, "'square'");
    free(lines);
    free(reversed);
    dataset_close(&dataset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(streams_across_chunks_are_whole),
        cmocka_unit_test(damaged_headers_are_named),
        cmocka_unit_test(bounds_of_the_header_are_exact),
        cmocka_unit_test(a_label_out_of_range_is_named),
        cmocka_unit_test(stream_offsets_that_are_damaged_are_named),
        cmocka_unit_test(files_that_are_no_dataset_are_refused),
        cmocka_unit_test(labels_follow_the_names_of_classes),
    };
    if (test_is_brief())
        cmocka_set_skip_filter("streams_across_*"); /* draws and encodes many megapixels */
    return cmocka_run_group_tests_name("dataset", tests, make_scratch, remove_scratch);
}
