/* Datasets written, read back, made by other programs, and damaged in every way that has a message of its own. */
#include "brief.h"
#include "data_test.h"

#include <hdf5.h>
#include <math.h>

#include "data_loaders/dataset_classes.h"
#include "data_loaders/image_read.h"
#include "data_loaders/verify.h"

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

/* Puts /images of 5 x 16 x 16 x 3 zeros there with another layout; chunk[0] = 0: contiguous. */
static void replace_images(hid_t file, const hsize_t chunk[4], bool compressed)
{
    static const uint8_t pixels[5 * 16 * 16 * 3];
    hsize_t extents[4] = {5, 16, 16, 3};
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(4, extents, NULL);
    assert_true(H5Ldelete(file, "images", H5P_DEFAULT) >= 0);
    if (chunk[0] > 0)
        assert_true(H5Pset_chunk(creation, 4, chunk) >= 0);
    if (compressed)
        assert_true(H5Pset_deflate(creation, 1) >= 0);
    hid_t images = H5Dcreate2(file, "images", H5T_STD_U8LE, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    assert_true(H5Dwrite(images, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, pixels) >= 0);
    H5Dclose(images);
    H5Sclose(space);
    H5Pclose(creation);
}

static void other_programs_layouts_open_or_say_how_to_convert(void **state)
{
    (void)state;
    const struct {
        hsize_t chunk[4];
        bool compressed;
        const char *message; /* NULL: opens */
    } cases[] = {
        {{0}, false, NULL},
        {{1, 16, 16, 3}, false, NULL},
        {{2, 16, 16, 3}, false, NULL},
        {{1, 8, 16, 3}, false, "h5repack -l images:CONTI"},
        {{1, 16, 16, 3}, true, "h5repack -f NONE -l images:CONTI"},
    };
    const char *path = scratch_path("layout.h5");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct dataset dataset;
        uint8_t pixels[16 * 16 * 3] = {1};
        hid_t file = reopen(path);
        replace_images(file, cases[i].chunk, cases[i].compressed);
        H5Fclose(file);
        if (cases[i].message) {
            assert_refused(dataset_open(&dataset, path, error), ERROR_INPUT, cases[i].message);
            continue;
        }
        assert_ok(dataset_open(&dataset, path, error));
        assert_ok(dataset_read(&dataset, 4, pixels, error));
        assert_int_equal(pixels[0], 0);
        dataset_close(&dataset);
    }
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

static void a_label_out_of_range_is_named(void **state)
{
    (void)state;
    struct dataset dataset;
    const int32_t labels[5] = {0, 1, 2, 99, 4};
    const char *path = scratch_path("labels.h5");
    hid_t file = reopen(path), dataset_id = H5Dopen2(file, "labels", H5P_DEFAULT);
    assert_true(H5Dwrite(dataset_id, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, labels) >= 0);
    H5Dclose(dataset_id);
    H5Fclose(file);
    assert_refused(dataset_open(&dataset, path, error), ERROR_INPUT,
                   "/labels[3] = 99, but the file declares 10 classes; the file is damaged, import it again");
}

static void stream_offsets_that_go_back_are_named(void **state)
{
    (void)state;
    struct dataset dataset;
    const uint64_t offsets[4] = {0, 500, 400, 600};
    const char *path = scratch_path("offsets.h5");
    write_shapes(path, ENCODING_JPEG, 3, 32, SIZE_MAX);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), dataset_id = H5Dopen2(file, "jpeg/offsets", H5P_DEFAULT);
    assert_true(H5Dwrite(dataset_id, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, offsets) >= 0);
    H5Dclose(dataset_id);
    H5Fclose(file);
    assert_refused(dataset_open(&dataset, path, error), ERROR_INPUT, "/jpeg/offsets[1] = 500 goes back to 400");
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

static void verify_names_the_damaged_stream(void **state)
{
    (void)state;
    struct dataset dataset;
    const char *path = scratch_path("cut.h5");
    write_shapes(path, ENCODING_JPEG, 12, 32, 7);
    assert_ok(dataset_open(&dataset, path, error));
    assert_refused(dataset_verify(&dataset, error), ERROR_INPUT, "1 of 12 images are damaged, the first is image 7");
    dataset_close(&dataset);
}

static void verify_compares_mean_and_std(void **state)
{
    (void)state;
    struct dataset dataset;
    const float wrong[3] = {0.1f, 0.1f, 0.1f};
    const char *path = scratch_path("moments.h5");
    hid_t file = reopen(path);
    set_attribute(file, "mean", H5T_NATIVE_FLOAT, wrong);
    H5Fclose(file);
    assert_ok(dataset_open(&dataset, path, error));
    assert_refused(dataset_verify(&dataset, error), ERROR_INPUT, "channel 0 has mean");
    dataset_close(&dataset);
}

static void the_writer_leaves_nothing_half_done(void **state)
{
    (void)state;
    struct dataset_layout layout = {.encoding = ENCODING_RAW, .height = 4, .width = 4, .channels = 3, .classes = 2};
    struct dataset_writer *writer;
    const uint8_t grey[48] = {0};
    struct pixel_sums sums = {0};
    char path[128];
    snprintf(path, sizeof path, "%s", scratch_path("half.h5"));
    assert_ok(dataset_writer_open(&writer, path, &layout, false, error));
    assert_refused(dataset_writer_finish(writer, error), ERROR_INPUT, "not one image");
    assert_ok(dataset_writer_open(&writer, path, &layout, false, error));
    pixel_sums_add(&sums, &(struct pixels){grey, 4, 4, 3, 12});
    assert_ok(dataset_writer_append(writer, grey, 48, 0, &sums, error));
    assert_int_not_equal(access(path, F_OK), 0);
    assert_refused(dataset_writer_finish(writer, error), ERROR_INPUT, "nothing can be learned");
    assert_int_not_equal(access(path, F_OK), 0);
    write_shapes(path, ENCODING_RAW, 5, 16, SIZE_MAX);
    assert_refused(dataset_writer_open(&writer, path, &layout, false, error), ERROR_INPUT, "exists already (--force");
    assert_refused(dataset_writer_open(&writer, "/nowhere/x.h5", &layout, false, error), ERROR_INPUT, "No such file");
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
        cmocka_unit_test(other_programs_layouts_open_or_say_how_to_convert),
        cmocka_unit_test(damaged_headers_are_named),
        cmocka_unit_test(a_label_out_of_range_is_named),
        cmocka_unit_test(stream_offsets_that_go_back_are_named),
        cmocka_unit_test(files_that_are_no_dataset_are_refused),
        cmocka_unit_test(verify_names_the_damaged_stream),
        cmocka_unit_test(verify_compares_mean_and_std),
        cmocka_unit_test(the_writer_leaves_nothing_half_done),
        cmocka_unit_test(labels_follow_the_names_of_classes),
    };
    if (test_is_brief())
        cmocka_set_skip_filter("streams_across_*"); /* draws and encodes many megapixels */
    return cmocka_run_group_tests_name("dataset", tests, make_scratch, remove_scratch);
}
