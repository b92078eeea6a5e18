/* Decoding streams: a damaged one is named, and the next whole one is not the worse for it. */
#include "tests/unit/jpeg_test.h"

#include <jpeglib.h>

#include "data_loaders/format/image_read.h"
#include "data_loaders/image/jpeg_stream.h"
#include "data_loaders/import/jpeg_convert.h"

enum { SIDE = 32 };

static uint8_t *whole;
static unsigned long whole_bytes;

static int encode_stream(void **state)
{
    (void)state;
    struct synth_options synth = {.images = 1, .size = SIDE, .classes = SYNTH_CLASSES};
    uint8_t pixels[SIDE * SIDE * 3];
    unsigned char *stream = NULL;
    tjhandle encoder = tjInitCompress();
    synth_image(&synth, 0, pixels);
    int status = tjCompress2(encoder, pixels, SIDE, 0, SIDE, TJPF_RGB, &stream, &whole_bytes, TJSAMP_420, 90, 0);
    whole = malloc(whole_bytes);
    memcpy(whole, stream, whole_bytes);
    tjFree(stream);
    tjDestroy(encoder);
    return status;
}

static int free_stream(void **state)
{
    (void)state;
    free(whole);
    return 0;
}

static void cut_streams_do_not_harm_the_next(void **state)
{
    (void)state;
    struct jpeg_stream *stream = jpeg_stream_open();
    struct jpeg_converter *converter;
    struct pixels pixels;
    struct jpeg_window window = {0, 0, SIDE, SIDE};
    uint8_t decoded[SIDE * SIDE * 3];
    size_t height, width;
    assert_non_null(stream);
    assert_ok(jpeg_converter_open(&converter, error));
    for (size_t cut = 0; cut + 2 < whole_bytes; cut += 1 + cut / 16) {
        assert_false(jpeg_stream_begin(stream, whole, cut, &height, &width) &&
                     jpeg_stream_decode(stream, decoded, 1, 3, &window));
        assert_true(jpeg_stream_complaint(stream)[0] != '\0');
        assert_true(jpeg_stream_begin(stream, whole, whole_bytes, &height, &width));
        assert_true(height == SIDE && width == SIDE);
        assert_true(jpeg_stream_decode(stream, decoded, 1, 3, &window));
        assert_false(jpeg_decode(converter, whole, cut, &pixels));
        assert_true(jpeg_decode(converter, whole, whole_bytes, &pixels));
        assert_int_equal(pixels.width, SIDE);
    }
    jpeg_stream_close(stream);
    jpeg_converter_close(converter);
}

/* Every window of the picture holds the pixels that libturbojpeg gives there, for every subsampling, scale and depth.
 */
static void windows_match_libturbojpeg(void **state)
{
    (void)state;
    enum { HEIGHT = 75, WIDTH = 101, TRIALS = 60 };
    static uint8_t picture[HEIGHT * WIDTH * 3], expected[HEIGHT * WIDTH * 3], decoded[HEIGHT * WIDTH * 3];
    const int kinds[] = {TJSAMP_444, TJSAMP_422, TJSAMP_420, TJSAMP_GRAY, TJSAMP_440, TJSAMP_411};
    struct jpeg_stream *stream = jpeg_stream_open();
    tjhandle handle = tjInitTransform();
    srand(1);
    for (size_t i = 0; i < sizeof picture; i++)
        picture[i] = (uint8_t)(128 + 60 * sin((double)i / 40) + rand() % 60);
    for (size_t kind = 0; kind < 2 * sizeof kinds / sizeof *kinds; kind++)
        for (int trial = 0; trial < TRIALS; trial++) {
            unsigned char *bytes = NULL;
            unsigned long count = 0;
            tjhandle encoder = tjInitCompress(); /* 2.1 keeps a progressive stream's code for the next */
            size_t height, width, denominator = (size_t)1 << trial % 4, channels = trial % 5 ? 3 : 1;
            int flags = kind & 1 ? TJFLAG_PROGRESSIVE : 0;
            assert_int_equal(
                tjCompress2(encoder, picture, WIDTH, 0, HEIGHT, TJPF_RGB, &bytes, &count, kinds[kind / 2], 90, flags),
                0);
            size_t rows = jpeg_stream_scaled(HEIGHT, denominator), columns = jpeg_stream_scaled(WIDTH, denominator);
            if (tjDecompress2(handle, bytes, count, expected, (int)columns, 0, (int)rows,
                              channels == 1 ? TJPF_GRAY : TJPF_RGB, 0) != 0)
                fail_msg("kind %zu, trial %d: %s", kind, trial, tjGetErrorStr2(handle));
            struct jpeg_window window = {.top = (size_t)rand() % rows, .left = (size_t)rand() % columns};
            window.height = 1 + (size_t)rand() % (rows - window.top);
            window.width = 1 + (size_t)rand() % (columns - window.left);
            assert_true(jpeg_stream_begin(stream, bytes, count, &height, &width));
            assert_true(height == HEIGHT && width == WIDTH);
            memset(decoded, 0, sizeof decoded);
            assert_true(jpeg_stream_decode(stream, decoded, denominator, channels, &window));
            for (size_t y = window.top; y < window.top + window.height; y++)
                assert_memory_equal(decoded + (y * columns + window.left) * channels,
                                    expected + (y * columns + window.left) * channels, window.width * channels);
            tjFree(bytes);
            tjDestroy(encoder);
        }
    tjDestroy(handle);
    jpeg_stream_close(stream);
}

/* A picture of [height, width, 3] whose colour has a quarter of the columns and half of the rows, which libturbojpeg
 * neither writes nor reads. */
static void encode_410(unsigned char **bytes, unsigned long *count, const uint8_t *picture, size_t height, size_t width)
{
    struct jpeg_compress_struct encoder;
    struct jpeg_error_mgr errors;
    encoder.err = jpeg_std_error(&errors);
    jpeg_create_compress(&encoder);
    jpeg_mem_dest(&encoder, bytes, count);
    encoder.image_width = (JDIMENSION)width;
    encoder.image_height = (JDIMENSION)height;
    encoder.input_components = 3;
    encoder.in_color_space = JCS_RGB;
    jpeg_set_defaults(&encoder);
    encoder.comp_info[0].h_samp_factor = 4;
    encoder.comp_info[0].v_samp_factor = 2;
    jpeg_start_compress(&encoder, TRUE);
    while (encoder.next_scanline < height) {
        JSAMPROW row = (JSAMPROW)picture + encoder.next_scanline * width * 3;
        jpeg_write_scanlines(&encoder, &row, 1);
    }
    jpeg_finish_compress(&encoder);
    jpeg_destroy_compress(&encoder);
}

static void windows_of_a_quarter_of_the_colour_match_the_whole(void **state)
{
    (void)state;
    enum { HEIGHT = 75, WIDTH = 101 };
    static uint8_t picture[HEIGHT * WIDTH * 3], expected[HEIGHT * WIDTH * 3], decoded[HEIGHT * WIDTH * 3];
    struct jpeg_stream *stream = jpeg_stream_open();
    unsigned char *bytes = NULL;
    unsigned long count = 0;
    size_t height, width;
    for (size_t i = 0; i < sizeof picture; i++)
        picture[i] = (uint8_t)(128 + 60 * sin((double)i / 40) + rand() % 60);
    encode_410(&bytes, &count, picture, HEIGHT, WIDTH);
    for (size_t denominator = 1; denominator <= 8; denominator *= 2) {
        size_t rows = jpeg_stream_scaled(HEIGHT, denominator), columns = jpeg_stream_scaled(WIDTH, denominator);
        struct jpeg_window all = {0, 0, rows, columns}, window = {rows / 3, columns / 2, rows / 3, columns / 3};
        assert_true(jpeg_stream_begin(stream, bytes, count, &height, &width));
        assert_true(jpeg_stream_decode(stream, expected, denominator, 3, &all));
        assert_true(jpeg_stream_begin(stream, bytes, count, &height, &width));
        assert_true(jpeg_stream_decode(stream, decoded, denominator, 3, &window));
        for (size_t y = window.top; y < window.top + window.height; y++)
            assert_memory_equal(decoded + (y * columns + window.left) * 3, expected + (y * columns + window.left) * 3,
                                window.width * 3);
    }
    free(bytes);
    jpeg_stream_close(stream);
}

/* Zeros in the place of the second half are valid code words: what is wrong shows only where the picture ends. */
static void damage_shows_whatever_the_window(void **state)
{
    (void)state;
    struct jpeg_stream *stream = jpeg_stream_open();
    struct jpeg_window window = {4, 0, SIDE / 2, SIDE};
    uint8_t decoded[SIDE * SIDE * 3];
    size_t height, width;
    uint8_t *broken = malloc(whole_bytes);
    memcpy(broken, whole, whole_bytes);
    memset(broken + whole_bytes - whole_bytes / 4, 0, whole_bytes / 4 - 2);
    assert_true(jpeg_stream_begin(stream, whole, whole_bytes, &height, &width));
    assert_true(jpeg_stream_decode(stream, decoded, 1, 3, &window));
    assert_true(jpeg_stream_begin(stream, broken, whole_bytes, &height, &width));
    assert_false(jpeg_stream_decode(stream, decoded, 1, 3, &window));
    free(broken);
    jpeg_stream_close(stream);
}

/* A stream of four colours, plain CMYK or Adobe's YCCK. */
static void encode_cmyk(unsigned char **bytes, unsigned long *count, J_COLOR_SPACE space)
{
    struct jpeg_compress_struct encoder;
    struct jpeg_error_mgr errors;
    uint8_t line[8 * 4] = {1, 2, 3, 4};
    encoder.err = jpeg_std_error(&errors);
    jpeg_create_compress(&encoder);
    jpeg_mem_dest(&encoder, bytes, count);
    encoder.image_width = encoder.image_height = 8;
    encoder.input_components = 4;
    encoder.in_color_space = JCS_CMYK;
    jpeg_set_defaults(&encoder);
    jpeg_set_colorspace(&encoder, space);
    jpeg_start_compress(&encoder, TRUE);
    while (encoder.next_scanline < 8)
        jpeg_write_scanlines(&encoder, &(JSAMPROW){line}, 1);
    jpeg_finish_compress(&encoder);
    jpeg_destroy_compress(&encoder);
}

/* Writes another size into a stream's frame header. */
static void claim_size(unsigned char *stream, unsigned long count, unsigned height, unsigned width)
{
    unsigned long at = 0;
    while (at + 9 < count && !(stream[at] == 0xFF && stream[at + 1] == 0xC0))
        at++;
    assert_true(at + 9 < count);
    stream[at + 5] = (unsigned char)(height >> 8), stream[at + 6] = (unsigned char)height;
    stream[at + 7] = (unsigned char)(width >> 8), stream[at + 8] = (unsigned char)width;
}

static void streams_that_are_no_use_are_named(void **state)
{
    (void)state;
    enum { COUNT = 5 };
    unsigned char *streams[COUNT] = {NULL};
    unsigned long bytes[COUNT] = {0};
    size_t height, width;
    struct dataset dataset;
    struct image_reader *reader;
    encode_cmyk(&streams[0], &bytes[0], JCS_CMYK);
    encode_cmyk(&streams[1], &bytes[1], JCS_YCCK);
    for (size_t i = 2; i < COUNT; i++) {
        streams[i] = malloc(whole_bytes);
        bytes[i] = whole_bytes;
        memcpy(streams[i], whole, whole_bytes);
    }
    claim_size(streams[2], bytes[2], 16384, 16385);
    claim_size(streams[3], bytes[3], 16384, 16384); /* 2^28 pixels are allowed */
    streams[4][0] = 0;
    make_scratch(state);
    write_streams(scratch_path("odd.h5"), streams, bytes, COUNT, 3);
    assert_ok(dataset_open(&dataset, scratch_path("odd.h5"), error));
    assert_ok(image_reader_open(&reader, &dataset, error));
    assert_refused(image_load(reader, 0, &height, &width, error), ERROR_INPUT, "image 0 is a CMYK JPEG stream");
    assert_refused(image_load(reader, 1, &height, &width, error), ERROR_INPUT, "image 1 is a CMYK JPEG stream");
    assert_refused(image_load(reader, 2, &height, &width, error), ERROR_INPUT, "says 16385 x 16384 pixels");
    assert_ok(image_load(reader, 3, &height, &width, error));
    assert_true(height == 16384 && width == 16384);
    assert_refused(image_load(reader, 4, &height, &width, error), ERROR_INPUT, "image 4 is a damaged JPEG stream: Not");
    image_reader_close(reader);
    dataset_close(&dataset);
    for (size_t i = 0; i < COUNT; i++)
        free(streams[i]);
    remove_scratch(state);
}

/* As small as the part allows, and no smaller: the decoded picture's size says at which scale. */
static void parts_keep_the_pixels_that_they_need(void **state)
{
    (void)state;
    const struct {
        struct rectangle part;
        size_t size, height, width;
    } cases[] = {
        {{0, 0, 64, 90}, 64, 64, 90}, {{0, 0, 64, 90}, 33, 64, 90}, {{0, 0, 64, 90}, 32, 32, 45},
        {{0, 0, 64, 64}, 16, 16, 23}, {{0, 0, 64, 64}, 17, 32, 45}, {{0, 0, 64, 64}, 8, 8, 12},
        {{0, 0, 64, 64}, 4, 8, 12},   {{9, 9, 20, 60}, 20, 64, 90}, {{9, 9, 60, 20}, 20, 64, 90},
        {{9, 9, 20, 60}, 10, 32, 45}, {{9, 9, 60, 20}, 11, 64, 90},
    };
    const struct picture_size size = {64, 90};
    struct dataset dataset;
    struct image_reader *reader;
    struct pixels pixels;
    size_t height, width;
    make_scratch(state);
    write_pictures(scratch_path("part.h5"), &size, 1);
    assert_ok(dataset_open(&dataset, scratch_path("part.h5"), error));
    assert_ok(image_reader_open(&reader, &dataset, error));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_ok(image_load(reader, 0, &height, &width, error));
        assert_true(height == 64 && width == 90);
        assert_ok(image_decode(reader, &cases[i].part, cases[i].size, &pixels, error));
        assert_int_equal(pixels.height, cases[i].height);
        assert_int_equal(pixels.width, cases[i].width);
    }
    image_reader_close(reader);
    dataset_close(&dataset);
    remove_scratch(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cut_streams_do_not_harm_the_next),
                                       cmocka_unit_test(windows_match_libturbojpeg),
                                       cmocka_unit_test(windows_of_a_quarter_of_the_colour_match_the_whole),
                                       cmocka_unit_test(damage_shows_whatever_the_window),
                                       cmocka_unit_test(streams_that_are_no_use_are_named),
                                       cmocka_unit_test(parts_keep_the_pixels_that_they_need)};
    return cmocka_run_group_tests_name("image_read", tests, encode_stream, free_stream);
}
