/* Converting image files: what is taken over as it is, what is cut, turned or shrunk. */
#include "tests/unit/jpeg_test.h"

#include "data_loaders/import/image_convert.h"
#include "data_loaders/import/jpeg_header.h"

static const struct image_place *file_at(const char *name)
{
    static struct image_place place;
    place.path = scratch_path(name);
    return &place;
}

static struct image_converter *converter;

static void write_file(const char *name, const unsigned char *bytes, unsigned long count)
{
    FILE *file = fopen(scratch_path(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    fclose(file);
}

/* The smooth picture 3 of this size as a JPEG file; caller frees the stream with tjFree. */
static unsigned char *write_picture(const char *name, struct picture_size size, int flags, unsigned long *bytes)
{
    uint8_t *pixels = draw_picture(size.height, size.width, 3);
    unsigned char *stream = encode_picture(pixels, size, flags, bytes);
    write_file(name, stream, *bytes);
    free(pixels);
    return stream;
}

static uint8_t *decode_whole(const unsigned char *stream, unsigned long bytes, struct picture_size size)
{
    uint8_t *pixels = malloc(size.height * size.width * 3);
    tjhandle decoder = tjInitDecompress();
    assert_int_equal(tjDecompress2(decoder, stream, bytes, pixels, (int)size.width, 0, (int)size.height, TJPF_RGB, 0),
                     0);
    tjDestroy(decoder);
    return pixels;
}

static void assert_sums(const struct converted *converted, const uint8_t *pixels)
{
    struct pixel_sums sums = {0};
    pixel_sums_add(&sums, &(struct pixels){pixels, converted->height, converted->width, 3, converted->width * 3});
    assert_memory_equal(&converted->sums, &sums, sizeof sums);
}

/* Without a size, with that of the shorter side, or with a larger one, byte for byte; with a smaller one shrunk. */
static void streams_are_taken_over_up_to_the_size(void **state)
{
    (void)state;
    const struct picture_size sizes[] = {{40, 60}, {60, 40}};
    for (size_t i = 0; i < 2; i++) {
        unsigned long bytes = 0;
        unsigned char *stream = write_picture("picture.jpg", sizes[i], 0, &bytes);
        uint8_t *pixels = decode_whole(stream, bytes, sizes[i]);
        const size_t limits[] = {0, 40, 41, 1000};
        struct converted converted;
        for (size_t l = 0; l < 4; l++) {
            assert_ok(image_to_jpeg(converter, &converted, file_at("picture.jpg"), limits[l], error));
            assert_int_equal(converted.byte_count, bytes);
            assert_memory_equal(converted.bytes, stream, bytes);
            assert_true(converted.height == sizes[i].height && converted.width == sizes[i].width);
            assert_sums(&converted, pixels);
            free(converted.bytes);
        }
        assert_ok(image_to_jpeg(converter, &converted, file_at("picture.jpg"), 38, error));
        assert_int_equal(converted.height, sizes[i].height * 38 / 40);
        assert_int_equal(converted.width, sizes[i].width * 38 / 40);
        free(converted.bytes);
        free(pixels);
        tjFree(stream);
    }
}

static void progressive_streams_become_baseline_without_loss(void **state)
{
    (void)state;
    const struct picture_size size = {48, 64};
    unsigned long bytes = 0;
    unsigned char *stream = write_picture("progressive.jpg", size, TJFLAG_PROGRESSIVE, &bytes);
    uint8_t *pixels = decode_whole(stream, bytes, size);
    struct converted converted;
    struct jpeg_header header;
    assert_true(jpeg_header_read(&header, stream, bytes) && header.progressive);
    assert_ok(image_to_jpeg(converter, &converted, file_at("progressive.jpg"), 0, error));
    assert_true(jpeg_header_read(&header, converted.bytes, converted.byte_count) && !header.progressive);
    uint8_t *again = decode_whole(converted.bytes, converted.byte_count, size);
    assert_memory_equal(again, pixels, 48 * 64 * 3);
    free(again);
    free(converted.bytes);
    free(pixels);
    tjFree(stream);
}

/* All pixels, or the square of the shorter side out of the middle, with their sums. */
static void pixels_are_the_centre_of_the_picture(void **state)
{
    (void)state;
    const struct picture_size sizes[] = {{40, 60}, {60, 40}, {40, 53}, {40, 40}};
    for (size_t i = 0; i < 4; i++)
        for (size_t side = 0; side <= 40; side += 40) {
            unsigned long bytes = 0;
            unsigned char *stream = write_picture("picture.jpg", sizes[i], 0, &bytes);
            uint8_t *pixels = decode_whole(stream, bytes, sizes[i]);
            struct converted converted;
            assert_ok(image_to_pixels(converter, &converted, file_at("picture.jpg"), side, error));
            size_t height = side ? side : sizes[i].height, width = side ? side : sizes[i].width;
            size_t top = (sizes[i].height - height) / 2, left = (sizes[i].width - width) / 2;
            assert_true(converted.height == height && converted.width == width);
            assert_int_equal(converted.byte_count, height * width * 3);
            for (size_t y = 0; y < height; y++)
                assert_memory_equal(converted.bytes + y * width * 3, pixels + ((top + y) * sizes[i].width + left) * 3,
                                    width * 3);
            assert_sums(&converted, converted.bytes);
            free(converted.bytes);
            free(pixels);
            tjFree(stream);
        }
}

/* By libvips: one pixel of difference between the size and the shorter side is enough. */
static void other_sizes_are_resized(void **state)
{
    (void)state;
    const struct picture_size size = {40, 60};
    unsigned long bytes = 0;
    tjFree(write_picture("picture.jpg", size, 0, &bytes));
    uint8_t *drawn = draw_picture(40, 60, 3);
    for (size_t side = 39; side <= 41; side += 2) {
        struct converted converted;
        double off = 0;
        assert_ok(image_to_pixels(converter, &converted, file_at("picture.jpg"), side, error));
        assert_true(converted.height == side && converted.width == side);
        for (size_t i = 0; i < side * side * 3; i++) { /* nearest of the centre, which is close in a smooth picture */
            size_t y = i / 3 / side * 40 / side, x = 10 + i / 3 % side * 40 / side;
            off += fabs((double)converted.bytes[i] - drawn[(y * 60 + x) * 3 + i % 3]) / (double)(side * side * 3);
        }
        assert_true(off < 3);
        assert_sums(&converted, converted.bytes);
        free(converted.bytes);
    }
    free(drawn);
}

static void files_that_are_no_images_are_named(void **state)
{
    (void)state;
    const struct picture_size size = {40, 60};
    unsigned long bytes = 0;
    struct converted converted;
    unsigned char *stream = write_picture("whole.jpg", size, 0, &bytes);
    assert_refused(image_to_pixels(converter, &converted, file_at("not-there"), 0, error), ERROR_INPUT,
                   "not-there: No such file");
    write_file("text.jpg", (const unsigned char *)"no picture\n", 11);
    assert_refused(image_to_pixels(converter, &converted, file_at("text.jpg"), 0, error), ERROR_INPUT, "text.jpg");
    assert_refused(image_to_jpeg(converter, &converted, file_at("text.jpg"), 0, error), ERROR_INPUT, "text.jpg");
    write_file("cut.jpg", stream, bytes / 2);
    assert_refused(image_to_pixels(converter, &converted, file_at("cut.jpg"), 0, error), ERROR_INPUT, "cut.jpg");
    assert_refused(image_to_jpeg(converter, &converted, file_at("cut.jpg"), 0, error), ERROR_INPUT, "cut.jpg");
    tjFree(stream);
}

static int start(void **state)
{
    struct error error;
    return make_scratch(state) == 0 && image_convert_begin("test_image_convert", &error) &&
                   image_converter_open(&converter, &error)
               ? 0
               : -1;
}

static int stop(void **state)
{
    image_converter_close(converter);
    image_convert_thread_end();
    return remove_scratch(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_are_taken_over_up_to_the_size),
        cmocka_unit_test(progressive_streams_become_baseline_without_loss),
        cmocka_unit_test(pixels_are_the_centre_of_the_picture),
        cmocka_unit_test(other_sizes_are_resized),
        cmocka_unit_test(files_that_are_no_images_are_named),
    };
    return cmocka_run_group_tests_name("image_convert", tests, start, stop);
}
