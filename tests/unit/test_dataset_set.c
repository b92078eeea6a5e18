/* Sets of files as one dataset: the same images, labels and moments as one file, and what does not fit together. */
#include "tests/unit/data_test.h"

#include <hdf5.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data_loaders/format/dataset.h"
#include "data_loaders/format/dataset_classes.h"
#include "data_loaders/format/dataset_set.h"
#include "data_loaders/format/image_read.h"
#include "data_loaders/format/shard_files.h"

enum { IMAGES = 23, SIZE = 16, SHARDS = 4 };
static const char *const names[] = {"a", "b", "c", "d", "e"};

static struct dataset_layout usual(void)
{
    return (struct dataset_layout){.height = SIZE,
                                   .width = SIZE,
                                   .channels = 3,
                                   .classes = 5,
                                   .class_names = names,
                                   .shards = SHARDS,
                                   .import = "one import"};
}

/* Images first, first + step, ... of the drawn ones. */
static void write_file(const char *path, const struct dataset_layout *layout, size_t first, size_t step)
{
    struct synth_options synth = {.images = IMAGES, .size = layout->height, .classes = 5};
    struct dataset_writer *writer;
    uint8_t *pixels = malloc(layout->height * layout->width * 3);
    assert_ok(dataset_writer_open(&writer, path, layout, true, error));
    for (size_t i = first; i < IMAGES; i += step) {
        struct pixel_sums sums = {0};
        synth_image(&synth, i, pixels);
        pixel_sums_add(&sums, &(struct pixels){pixels, layout->height, layout->width, 3, layout->width * 3});
        size_t bytes = layout->height * layout->width * 3;
        assert_ok(dataset_writer_append(writer, pixels, bytes, (int32_t)(i % 5), &sums, error));
    }
    free(pixels);
    assert_ok(dataset_writer_finish(writer, error));
}

static const char *shard_path(size_t shard)
{
    static char name[300];
    assert_true(dataset_shard_name(name, sizeof name, scratch_path("train.h5"), shard, SHARDS));
    return name;
}

static void write_set(void)
{
    for (size_t shard = 0; shard < SHARDS; shard++) {
        struct dataset_layout layout = usual();
        layout.shard = shard;
        write_file(shard_path(shard), &layout, shard, SHARDS);
    }
}

static void remove_set(void)
{
    for (size_t shard = 0; shard < SHARDS; shard++)
        unlink(shard_path(shard));
}

/* One file with the images in the order of the set. */
static void write_whole(const char *path)
{
    struct synth_options synth = {.images = IMAGES, .size = SIZE, .classes = 5};
    struct dataset_layout layout = usual();
    layout.shards = 0;
    struct dataset_writer *writer;
    uint8_t pixels[SIZE * SIZE * 3];
    assert_ok(dataset_writer_open(&writer, path, &layout, true, error));
    for (size_t shard = 0; shard < SHARDS; shard++)
        for (size_t i = shard; i < IMAGES; i += SHARDS) {
            struct pixel_sums sums = {0};
            synth_image(&synth, i, pixels);
            pixel_sums_add(&sums, &(struct pixels){pixels, SIZE, SIZE, 3, SIZE * 3});
            assert_ok(dataset_writer_append(writer, pixels, sizeof pixels, (int32_t)(i % 5), &sums, error));
        }
    assert_ok(dataset_writer_finish(writer, error));
}

static void a_set_is_as_one_file(void **state)
{
    (void)state;
    struct dataset set, whole;
    write_set();
    write_whole(scratch_path("whole.h5"));
    assert_ok(dataset_open(&set, scratch_path("train-*.h5"), error));
    assert_ok(dataset_open(&whole, scratch_path("whole.h5"), error));
    assert_int_equal(set.file_count, SHARDS);
    assert_int_equal(set.images, IMAGES);
    assert_int_equal(set.classes, 5);
    assert_memory_equal(set.labels, whole.labels, IMAGES * sizeof *set.labels);
    assert_memory_equal(set.mean, whole.mean, 3 * sizeof *set.mean);
    assert_memory_equal(set.std, whole.std, 3 * sizeof *set.std);
    for (size_t i = 0; i < 5; i++)
        assert_string_equal(set.class_names[i], names[i]);
    for (size_t i = 0; i < IMAGES; i++) {
        uint8_t a[SIZE * SIZE * 3], b[SIZE * SIZE * 3];
        assert_int_equal(dataset_stored_bytes(&set, i), sizeof a);
        assert_ok(dataset_read(&set, i, a, error));
        assert_ok(dataset_read(&whole, i, b, error));
        assert_memory_equal(a, b, sizeof a);
    }
    dataset_close(&set);
    dataset_close(&whole);
    remove_set();
}

/* Shapes of data_test.h: 10 classes, sizes as they are, no attributes of a set, streams of odd lengths. */
static void files_that_know_of_no_set_make_one(void **state)
{
    (void)state;
    struct dataset set, parts[2];
    write_shapes(scratch_path("x-a.h5"), ENCODING_JPEG, 30, 24, SIZE_MAX);
    write_shapes(scratch_path("x-b.h5"), ENCODING_JPEG, 10, 32, 7);
    assert_ok(dataset_open(&parts[0], scratch_path("x-a.h5"), error));
    assert_ok(dataset_open(&parts[1], scratch_path("x-b.h5"), error));
    assert_ok(dataset_open(&set, scratch_path("x-?.h5"), error));
    assert_int_equal(set.images, 40);
    for (size_t c = 0; c < 3; c++) {
        double mean = 0.75 * (double)parts[0].mean[c] + 0.25 * (double)parts[1].mean[c], square = 0;
        for (size_t i = 0; i < 2; i++)
            square += (i ? 0.25 : 0.75) * (pow((double)parts[i].mean[c], 2) + pow((double)parts[i].std[c], 2));
        assert_true(fabs((double)set.mean[c] - mean) < 1e-7);
        assert_true(fabs((double)set.std[c] - sqrt(square - mean * mean)) < 1e-7);
    }
    for (size_t i = 0; i < 40; i++) {
        const struct dataset *part = &parts[i >= 30];
        size_t inside = i < 30 ? i : i - 30, bytes = dataset_stored_bytes(part, inside);
        uint8_t *a = malloc(bytes), *b = malloc(bytes);
        assert_int_equal(dataset_stored_bytes(&set, i), bytes);
        assert_ok(dataset_read(&set, i, a, error));
        assert_ok(dataset_read(part, inside, b, error));
        assert_memory_equal(a, b, bytes);
        assert_int_equal(set.labels[i], part->labels[inside]);
        free(a);
        free(b);
    }
    struct image_reader *reader;
    struct pixels pixels;
    size_t height, width;
    assert_ok(image_reader_open(&reader, &set, error));
    assert_ok(image_load(reader, 37, &height, &width, error));
    assert_refused(image_decode(reader, NULL, 0, &pixels, error), ERROR_INPUT, "x-b.h5: image 7 is a damaged JPEG");
    image_reader_close(reader);
    dataset_close(&parts[0]);
    dataset_close(&parts[1]);
    dataset_close(&set);
}

/* What one changed file of the set makes of opening it. */
static void files_that_do_not_fit_are_named(void **state)
{
    (void)state;
    static const char *const others[] = {"a", "b", "x", "d", "e"};
    struct dataset set;
    struct {
        struct dataset_layout layout;
        const char *message;
    } cases[8];
    for (size_t i = 0; i < 8; i++) {
        cases[i].layout = usual();
        cases[i].layout.shard = 2;
    }
    cases[0].layout.classes = 6;
    cases[0].layout.class_names = NULL;
    cases[0].message = "train-00002-of-00004.h5: has 6 classes, but ";
    cases[1].layout.import = "another import";
    cases[1].message = "train-00002-of-00004.h5: comes of another import than ";
    cases[2].layout.height = cases[2].layout.width = 20;
    cases[2].message = "train-00002-of-00004.h5: images have 20 x 20 pixels, but in ";
    cases[3].layout.shard = 1;
    cases[3].message = "train-00002-of-00004.h5: is file 1 of 4, counted from 0, and so is ";
    cases[4].layout.shards = 5;
    cases[4].message = "train-00002-of-00004.h5: belongs to a set of 5 files, but ";
    cases[5].layout.shards = 0;
    cases[5].layout.shard = 0;
    cases[5].message = "train-00002-of-00004.h5: belongs to a set of 1 files, but ";
    cases[6].layout.encoding = ENCODING_JPEG;
    cases[6].message = "train-00002-of-00004.h5: holds JPEG streams, but ";
    cases[7].message = NULL; /* as it should be */
    for (size_t i = 0; i < 8; i++) {
        write_set();
        write_file(shard_path(2), &cases[i].layout, 2, SHARDS);
        if (cases[i].message) {
            assert_refused(dataset_open(&set, scratch_path("train-*.h5"), error), ERROR_INPUT, cases[i].message);
        } else {
            assert_ok(dataset_open(&set, scratch_path("train-*.h5"), error));
            dataset_close(&set);
        }
    }
    remove_set();
    for (size_t i = 0; i < 3; i++) {
        struct dataset_layout layout = usual();
        layout.shards = 0;
        layout.import = NULL;
        layout.class_names = i == 0 ? names : i == 1 ? others : NULL;
        write_file(scratch_path(i ? "n-2.h5" : "n-1.h5"), &layout, 0, 1);
        if (i)
            assert_refused(dataset_open(&set, scratch_path("n-*.h5"), error), ERROR_INPUT,
                           i == 1 ? "n-2.h5: class 2 is 'x', but 'c' in "
                                  : "n-2.h5: has no names for its classes, but ");
    }
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    struct dataset set;
    for (size_t missing = 0; missing < SHARDS; missing++) {
        char expected[64];
        write_set();
        unlink(shard_path(missing));
        snprintf(expected, sizeof expected, "train-%05zu-of-00004.h5: is missing; 3 of the 4 files of ", missing);
        assert_refused(dataset_open(&set, scratch_path("train-*.h5"), error), ERROR_INPUT, expected);
    }
    write_set();
    for (size_t i = 0; i < SHARDS; i++) {
        char other[300];
        snprintf(other, sizeof other, "%s%zu.h5", scratch_path("other"), i);
        assert_int_equal(rename(shard_path(i), other), 0);
        if (i == 1)
            unlink(other);
    }
    assert_refused(dataset_open(&set, scratch_path("other*.h5"), error), ERROR_INPUT,
                   "file 1 of 4, counted from 0, is missing");
    assert_refused(dataset_open(&set, scratch_path("none*.h5"), error), ERROR_INPUT, "no file has a name that fits");
    assert_refused(dataset_open(&set, scratch_path("nowhere/none*.h5"), error), ERROR_INPUT,
                   "No such file or directory");
}

/* A file named like a pattern is a file. */
static void a_name_with_brackets_is_a_file(void **state)
{
    (void)state;
    struct dataset dataset;
    write_shapes(scratch_path("[1].h5"), ENCODING_RAW, 10, 16, SIZE_MAX);
    assert_ok(dataset_open(&dataset, scratch_path("[1].h5"), error));
    assert_null(dataset.files);
    dataset_close(&dataset);
}

static void change_sums(const char *path, uint64_t factor)
{
    uint64_t values[7];
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), attribute = H5Aopen(file, "pixel_sums", H5P_DEFAULT);
    assert_true(H5Aread(attribute, H5T_NATIVE_UINT64, values) >= 0);
    values[1] = values[1] * factor + (factor == 1);
    values[4] += factor == 1 ? values[4] / 100 : 0;
    assert_true(H5Awrite(attribute, H5T_NATIVE_UINT64, values) >= 0);
    H5Aclose(attribute);
    H5Fclose(file);
}

static void sums_that_do_not_give_the_mean_are_damage(void **state)
{
    (void)state;
    struct dataset set;
    for (uint64_t factor = 0; factor < 3; factor++) {
        write_set();
        change_sums(shard_path(3), factor == 2 ? UINT64_MAX : factor);
        assert_refused(dataset_open(&set, scratch_path("train-*.h5"), error), ERROR_INPUT,
                       "train-00003-of-00004.h5: pixel_sums does not give its mean and std");
    }
    remove_set();
}

/* ---- descriptors ---- */

struct readers {
    struct shard_files *files;
    size_t seed, failures;
};

static void *read_at_random(void *argument)
{
    struct readers *readers = argument;
    struct error error;
    unsigned state = (unsigned)readers->seed;
    for (int i = 0; i < 2000; i++) {
        size_t number = (size_t)rand_r(&state) % 12;
        int descriptor;
        char byte = 0;
        if (!shard_files_borrow(readers->files, number, &descriptor, &error) || pread(descriptor, &byte, 1, 0) != 1 ||
            byte != (char)('a' + number))
            readers->failures++;
        else
            shard_files_return(readers->files, number);
    }
    return NULL;
}

static void many_files_share_few_descriptors(void **state)
{
    (void)state;
    char paths[12][300];
    struct shard_files *files = shard_files_open(12, 3);
    for (size_t i = 0; i < 12; i++) {
        snprintf(paths[i], sizeof paths[i], "%s%zu", scratch_path("bytes"), i);
        FILE *file = fopen(paths[i], "w");
        fputc((int)('a' + i), file);
        fclose(file);
        file = fopen(paths[i], "r");
        assert_ok(shard_files_add(files, i, paths[i], dup(fileno(file)), error));
        fclose(file);
    }
    struct readers readers[3] = {{files, 1, 0}, {files, 2, 0}, {files, 3, 0}};
    pthread_t threads[3];
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_at_random, &readers[i]), 0);
    for (size_t i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(readers[i].failures, 0);
    }
    size_t open = 0;
    for (int descriptor = 3; descriptor < 64; descriptor++) {
        char link[64], target[300] = "";
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        open += readlink(link, target, sizeof target - 1) > 0 && strstr(target, "bytes") != NULL;
    }
    assert_in_range(open, 1, 3);
    int descriptor;
    for (size_t i = 0; i < 3; i++) { /* so that the last one is closed */
        assert_ok(shard_files_borrow(files, i, &descriptor, error));
        shard_files_return(files, i);
    }
    FILE *file = fopen(paths[11], "a");
    fputs("longer", file);
    fclose(file);
    assert_refused(shard_files_borrow(files, 11, &descriptor, error), ERROR_RUNTIME, "has been changed since");
    unlink(paths[10]);
    assert_refused(shard_files_borrow(files, 10, &descriptor, error), ERROR_RUNTIME, "cannot be opened any more");
    shard_files_close(files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_set_is_as_one_file),
                                       cmocka_unit_test(files_that_know_of_no_set_make_one),
                                       cmocka_unit_test(files_that_do_not_fit_are_named),
                                       cmocka_unit_test(a_missing_file_is_named),
                                       cmocka_unit_test(a_name_with_brackets_is_a_file),
                                       cmocka_unit_test(sums_that_do_not_give_the_mean_are_damage),
                                       cmocka_unit_test(many_files_share_few_descriptors)};
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
