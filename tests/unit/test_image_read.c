/* Decoding streams: a damaged one is named, and the next whole one is not the worse for it. */
#include "tests/unit/data_test.h"

#include "data_loaders/image_read.h"
#include "data_loaders/jpeg_convert.h"

enum { SIDE = 32 };

static uint8_t *whole;
static unsigned long whole_bytes;
static struct dataset streams = {.encoding = ENCODING_JPEG, .channels = 3, .file = -1, .path = "streams"};

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
    struct image_reader *reader;
    struct jpeg_converter *converter;
    struct pixels pixels;
    assert_ok(image_reader_open(&reader, &streams, error));
    assert_ok(jpeg_converter_open(&converter, error));
    for (size_t cut = 0; cut + 2 < whole_bytes; cut += 1 + cut / 16) {
        assert_refused(image_decode_stream(reader, whole, cut, &pixels, error), ERROR_INPUT,
                       "streams: image 0 is a damaged JPEG stream: ");
        assert_ok(image_decode_stream(reader, whole, whole_bytes, &pixels, error));
        assert_int_equal(pixels.height, SIDE);
        assert_int_equal(pixels.width, SIDE);
        assert_false(jpeg_decode(converter, whole, cut, &pixels));
        assert_true(jpeg_decode(converter, whole, whole_bytes, &pixels));
        assert_int_equal(pixels.width, SIDE);
    }
    image_reader_close(reader);
    jpeg_converter_close(converter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cut_streams_do_not_harm_the_next)};
    return cmocka_run_group_tests_name("image_read", tests, encode_stream, free_stream);
}
