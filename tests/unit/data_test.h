/* What the tests of datasets and loaders share: a directory of their own and small files to read. */
#ifndef QUEST_DATA_TEST_H
#define QUEST_DATA_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <turbojpeg.h>
#include <unistd.h>

#include "data_loaders/draw/synth.h"
#include "data_loaders/format/dataset_write.h"
#include "tests/unit/scratch.h"

#define assert_ok(call)                                  \
    do {                                                 \
        struct error ok_error = {.status = ERROR_NONE};  \
        struct error *error = &ok_error;                 \
        if (!(call))                                     \
            fail_msg("%s: %s", #call, ok_error.message); \
    } while (0)

/* The call fails with this status and a message that contains `text`. */
#define assert_refused(call, expected_status, text)                                          \
    do {                                                                                     \
        struct error refused_error = {.status = ERROR_NONE};                                 \
        struct error *error = &refused_error;                                                \
        assert_false(call);                                                                  \
        assert_int_equal(refused_error.status, expected_status);                             \
        if (!strstr(refused_error.message, text))                                            \
            fail_msg("the message '%s' does not contain '%s'", refused_error.message, text); \
    } while (0)

/* Drawn shapes with label i % classes, so that image i is synth_image(i). Encoded at quality 95 for jpeg; stream
 * `damaged` (or SIZE_MAX) is cut in half. */
static inline void write_shapes(const char *path, enum encoding encoding, size_t images, size_t size, size_t damaged)
{
    struct synth_options synth = {.images = images, .size = size, .classes = SYNTH_CLASSES};
    struct dataset_layout layout = {
        .encoding = encoding, .height = size, .width = size, .channels = 3, .classes = SYNTH_CLASSES};
    struct dataset_writer *writer;
    uint8_t *pixels = malloc(size * size * 3);
    tjhandle encoder = tjInitCompress();
    assert_ok(dataset_writer_open(&writer, path, &layout, true, error));
    for (size_t i = 0; i < images; i++) {
        struct pixel_sums sums = {0};
        unsigned char *stream = NULL;
        unsigned long bytes = size * size * 3;
        synth_image(&synth, i, pixels);
        pixel_sums_add(&sums, &(struct pixels){pixels, size, size, 3, size * 3});
        if (encoding == ENCODING_JPEG)
            assert_int_equal(
                tjCompress2(encoder, pixels, (int)size, 0, (int)size, TJPF_RGB, &stream, &bytes, TJSAMP_444, 95, 0), 0);
        assert_ok(dataset_writer_append(writer, stream ? stream : pixels, i == damaged ? bytes / 2 : bytes,
                                        synth_label(&synth, i), &sums, error));
        tjFree(stream);
    }
    tjDestroy(encoder);
    free(pixels);
    assert_ok(dataset_writer_finish(writer, error));
}

#endif
