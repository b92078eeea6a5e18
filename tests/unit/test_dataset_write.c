/* Writing datasets: what is in them, byte for byte, and nothing where it fails. */
#include "data_test.h"

#include <dirent.h>
#include <hdf5.h>
#include <math.h>

#include "tests/unit/noise.h"

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

static size_t files_in_scratch(void)
{
    size_t count = 0;
    DIR *directory = opendir(scratch);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

static void no_temporary_file_is_left(void **state)
{
    (void)state;
    const struct dataset_layout layout = {
        .encoding = ENCODING_RAW, .height = 4, .width = 4, .channels = 3, .classes = 2};
    struct dataset_writer *writer;
    size_t before = files_in_scratch();
    assert_ok(dataset_writer_open(&writer, scratch_path("left.h5"), &layout, false, error));
    assert_int_equal(files_in_scratch(), before + 1);
    dataset_writer_discard(writer);
    assert_int_equal(files_in_scratch(), before);
    assert_ok(dataset_writer_open(&writer, scratch_path("left.h5"), &layout, false, error));
    assert_refused(dataset_writer_finish(writer, error), ERROR_INPUT, "not one image");
    assert_int_equal(files_in_scratch(), before);
    write_shapes(scratch_path("left.h5"), ENCODING_RAW, 3, 16, SIZE_MAX);
    assert_int_equal(files_in_scratch(), before + 1);
}

/* Mean and population deviation of a few numbers, and those of large sums. */
static void moments_are_exact(void **state)
{
    (void)state;
    struct pixel_sums sums = {0}, more = {0};
    float mean[3], std[3];
    /* Two rows of two pixels in rows of three; the third is not the picture's. */
    const uint8_t bytes[18] = {0, 10, 255, 0, 20, 255, 99, 99, 99, 0, 30, 255, 4, 40, 251, 99, 99, 99};
    pixel_sums_add(&sums, &(struct pixels){bytes, 2, 2, 3, 9});
    assert_int_equal(sums.count, 4);
    pixel_sums_moments(&sums, 3, mean, std);
    assert_float_equal(mean[0], 1 / 255.0, 1e-7);
    assert_float_equal(mean[1], 25 / 255.0, 1e-7);
    assert_float_equal(mean[2], 254 / 255.0, 1e-7);
    assert_float_equal(std[0], sqrt(3) / 255, 1e-7);
    assert_float_equal(std[1], sqrt(125) / 255, 1e-7);
    assert_float_equal(std[2], sqrt(3) / 255, 1e-7);
    pixel_sums_add(&more, &(struct pixels){bytes, 1, 1, 3, 9}); /* 0, 10, 255 */
    pixel_sums_merge(&sums, &more);
    assert_int_equal(sums.count, 5);
    pixel_sums_moments(&sums, 3, mean, std);
    assert_float_equal(mean[0], 0.8 / 255, 1e-7);
    assert_float_equal(mean[1], 22 / 255.0, 1e-7);
    assert_float_equal(mean[2], 254.2 / 255, 1e-7);
    assert_float_equal(std[1], sqrt(136) / 255, 1e-7);
    const volatile long double one = 1, little = 0x1p-60L;
    if (one + little == one)
        return; /* valgrind computes long doubles as doubles */
    /* One in 10^10 is 201, the others 200: nothing of this is left in a difference of doubles. */
    const uint64_t count = UINT64_C(30000000000);
    struct pixel_sums many = {
        .count = count, .sum = {count * 200 + 3}, .sum_of_squares = {count * 200 * 200 + 3 * (201 * 201 - 200 * 200)}};
    pixel_sums_moments(&many, 1, mean, std);
    assert_float_equal(std[0] * 255 / 1e-5, 1, 1e-3);
}

/* Streams of these lengths, of noise, come back as they were: those that end where a chunk of 256 KiB ends, those that
 * fill several, an empty one. */
static void streams_come_back_byte_for_byte(void **state)
{
    (void)state;
    enum { CHUNK = 256 * 1024 };
    const size_t lengths[][4] = {{1, 2, 3, 4},
                                 {CHUNK, 1, CHUNK - 1, 5},
                                 {CHUNK - 1, 1, 2 * CHUNK, CHUNK},
                                 {100, 3 * CHUNK + 7, 0, 1},
                                 {CHUNK + 1, CHUNK - 1, 7, CHUNK - 8}};
    const struct dataset_layout layout = {.encoding = ENCODING_JPEG, .channels = 3, .classes = 7};
    const char *path = scratch_path("streams.h5");
    const struct pixel_sums sums = {.count = 2, .sum = {3, 3, 3}, .sum_of_squares = {5, 5, 5}};
    uint8_t *bytes = noise(4 * CHUNK, 1), *back = malloc(4 * CHUNK);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct dataset_writer *writer;
        struct dataset dataset;
        assert_ok(dataset_writer_open(&writer, path, &layout, true, error));
        for (size_t image = 0; image < 4; image++)
            assert_ok(
                dataset_writer_append(writer, bytes + image, lengths[i][image], (int32_t)(6 - image), &sums, error));
        assert_int_equal(dataset_writer_images(writer), 4);
        assert_ok(dataset_writer_finish(writer, error));
        assert_ok(dataset_open(&dataset, path, error));
        assert_int_equal(dataset.images, 4);
        for (size_t image = 0; image < 4; image++) {
            assert_int_equal(dataset_stored_bytes(&dataset, image), lengths[i][image]);
            assert_int_equal(dataset.labels[image], 6 - image);
            assert_ok(dataset_read(&dataset, image, back, error));
            assert_memory_equal(back, bytes + image, lengths[i][image]);
        }
        dataset_close(&dataset);
    }
    free(bytes);
    free(back);
}

/* More than the lists grow by at a time. */
static void ten_thousand_images_come_back(void **state)
{
    (void)state;
    for (size_t images = 4095; images <= 10000; images += images < 4097 ? 1 : 5903)
        for (int encoding = ENCODING_RAW; encoding <= ENCODING_JPEG; encoding++) {
            const struct dataset_layout layout = {
                .encoding = encoding, .height = 1, .width = 2, .channels = 1, .classes = 10000};
            const char *path = scratch_path("many.h5");
            struct dataset_writer *writer;
            struct dataset dataset;
            assert_ok(dataset_writer_open(&writer, path, &layout, true, error));
            for (size_t i = 0; i < images; i++) {
                const uint8_t pixels[2] = {(uint8_t)i, (uint8_t)(i / 256)};
                struct pixel_sums sums = {0};
                pixel_sums_add(&sums, &(struct pixels){pixels, 1, 2, 1, 2});
                assert_ok(dataset_writer_append(writer, pixels, 2, (int32_t)(images - 1 - i), &sums, error));
            }
            assert_ok(dataset_writer_finish(writer, error));
            assert_ok(dataset_open(&dataset, path, error));
            assert_int_equal(dataset.images, images);
            for (size_t i = 0; i < images; i++) {
                uint8_t pixels[2];
                assert_ok(dataset_read(&dataset, i, pixels, error));
                assert_true(pixels[0] == (uint8_t)i && pixels[1] == i / 256);
                assert_int_equal(dataset.labels[i], images - 1 - i);
            }
            dataset_close(&dataset);
        }
}

static void the_header_holds_names_and_moments(void **state)
{
    (void)state;
    const char *const names[3] = {"ant", "b\xc3\xa4r", "cat"};
    const uint8_t pixels[12] = {0, 100, 255, 0, 100, 255, 51, 110, 204, 51, 110, 204};
    const struct dataset_layout layout = {
        .encoding = ENCODING_RAW, .height = 2, .width = 2, .channels = 3, .classes = 3, .class_names = names};
    const char *path = scratch_path("names.h5");
    struct dataset_writer *writer;
    struct dataset dataset;
    struct pixel_sums sums = {0};
    pixel_sums_add(&sums, &(struct pixels){pixels, 2, 2, 3, 6});
    assert_ok(dataset_writer_open(&writer, path, &layout, true, error));
    assert_ok(dataset_writer_append(writer, pixels, 12, 2, &sums, error));
    assert_ok(dataset_writer_finish(writer, error));
    assert_ok(dataset_open(&dataset, path, error));
    assert_true(dataset.height == 2 && dataset.width == 2 && dataset.channels == 3 && dataset.classes == 3);
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(dataset.class_names[i], names[i]);
    assert_float_equal(dataset.mean[0], 0.1, 1e-6);
    assert_float_equal(dataset.mean[1], 105 / 255.0, 1e-6);
    assert_float_equal(dataset.mean[2], 0.9, 1e-6);
    assert_float_equal(dataset.std[0], 0.1, 1e-6);
    assert_float_equal(dataset.std[1], 5 / 255.0, 1e-6);
    assert_float_equal(dataset.std[2], 0.1, 1e-6);
    dataset_close(&dataset);
}

/* Of any channel. */
static void a_channel_without_a_difference_is_refused(void **state)
{
    (void)state;
    for (size_t flat = 0; flat < 3; flat++) {
        const struct dataset_layout layout = {
            .encoding = ENCODING_RAW, .height = 1, .width = 2, .channels = 3, .classes = 2};
        uint8_t pixels[6] = {1, 2, 3, 4, 5, 6};
        char message[64];
        struct dataset_writer *writer;
        struct pixel_sums sums = {0};
        pixels[flat] = pixels[flat + 3];
        pixel_sums_add(&sums, &(struct pixels){pixels, 1, 2, 3, 6});
        assert_ok(dataset_writer_open(&writer, scratch_path("flat.h5"), &layout, true, error));
        assert_ok(dataset_writer_append(writer, pixels, 6, 0, &sums, error));
        snprintf(message, sizeof message, "channel %zu is the same in all pixels", flat);
        assert_refused(dataset_writer_finish(writer, error), ERROR_INPUT, message);
    }
}

/* What follows the last stream in its chunk is nothing, not what was in that memory before. */
static void the_last_chunk_ends_in_zeros(void **state)
{
    (void)state;
    enum { CHUNK = 256 * 1024, LAST = 1000 };
    const struct dataset_layout layout = {.encoding = ENCODING_JPEG, .channels = 3, .classes = 2};
    const struct pixel_sums sums = {.count = 2, .sum = {3, 3, 3}, .sum_of_squares = {5, 5, 5}};
    const char *path = scratch_path("tail.h5");
    uint8_t *bytes = noise(CHUNK + LAST, 1), *chunk = malloc(CHUNK);
    struct dataset_writer *writer;
    assert_ok(dataset_writer_open(&writer, path, &layout, true, error));
    assert_ok(dataset_writer_append(writer, bytes, CHUNK + LAST, 0, &sums, error));
    assert_ok(dataset_writer_finish(writer, error));
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), set = H5Dopen2(file, "/jpeg/bytes", H5P_DEFAULT);
    const hsize_t start = CHUNK;
    uint32_t filters;
    assert_true(H5Dread_chunk(set, H5P_DEFAULT, &start, &filters, chunk) >= 0);
    assert_memory_equal(chunk, bytes + CHUNK, LAST);
    for (size_t i = LAST; i < CHUNK; i++)
        assert_int_equal(chunk[i], 0);
    H5Dclose(set);
    H5Fclose(file);
    free(chunk);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_writer_leaves_nothing_half_done),
        cmocka_unit_test(no_temporary_file_is_left),
        cmocka_unit_test(moments_are_exact),
        cmocka_unit_test(streams_come_back_byte_for_byte),
        cmocka_unit_test(ten_thousand_images_come_back),
        cmocka_unit_test(the_header_holds_names_and_moments),
        cmocka_unit_test(the_last_chunk_ends_in_zeros),
        cmocka_unit_test(a_channel_without_a_difference_is_refused),
    };
    return cmocka_run_group_tests_name("dataset_write", tests, make_scratch, remove_scratch);
}
