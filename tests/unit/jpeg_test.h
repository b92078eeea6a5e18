/* Datasets of JPEG pictures of any size for the tests: smooth ones, so that a decoder's scaling changes little, and
 * with slopes everywhere, so that a part taken from the wrong place shows. */
#ifndef QUEST_JPEG_TEST_H
#define QUEST_JPEG_TEST_H

#include "data_test.h"

#include <math.h>

struct picture_size {
    size_t height, width;
};

/* Number `seed` of the smooth pictures, [height, width, 3]. Caller frees. */
static inline uint8_t *draw_picture(size_t height, size_t width, size_t seed)
{
    uint8_t *pixels = malloc(height * width * 3);
    for (size_t y = 0; y < height; y++)
        for (size_t x = 0; x < width; x++)
            for (size_t c = 0; c < 3; c++)
                pixels[(y * width + x) * 3 + c] =
                    (uint8_t)lround(128 + 50 * sin((double)x / (30 + (double)c * 4) + (double)seed) +
                                    50 * cos((double)y / (26 + (double)c * 5) + 2 * (double)c));
    return pixels;
}

/* Caller frees with tjFree. */
static inline unsigned char *encode_picture(const uint8_t *pixels, struct picture_size size, int flags,
                                            unsigned long *bytes)
{
    unsigned char *stream = NULL;
    tjhandle encoder = tjInitCompress();
    assert_int_equal(tjCompress2(encoder, pixels, (int)size.width, 0, (int)size.height, TJPF_RGB, &stream, bytes,
                                 TJSAMP_444, 98, flags),
                     0);
    tjDestroy(encoder);
    return stream;
}

/* A dataset of these streams; labels 0, 1, 0, 1 ... */
static inline void write_streams(const char *path, unsigned char *const *streams, const unsigned long *bytes,
                                 size_t count, size_t channels)
{
    const struct dataset_layout layout = {.encoding = ENCODING_JPEG, .channels = channels, .classes = 2};
    const uint8_t colours[6] = {10, 20, 30, 200, 190, 180};
    struct dataset_writer *writer;
    struct pixel_sums sums = {0};
    pixel_sums_add(&sums, &(struct pixels){colours, 1, 2, 3, 6}); /* any moments will do */
    assert_ok(dataset_writer_open(&writer, path, &layout, true, error));
    for (size_t i = 0; i < count; i++)
        assert_ok(dataset_writer_append(writer, streams[i], bytes[i], (int32_t)(i % 2), &sums, error));
    assert_ok(dataset_writer_finish(writer, error));
}

/* Image i is the smooth picture i of sizes[i]. */
static inline void write_pictures(const char *path, const struct picture_size *sizes, size_t count)
{
    unsigned char **streams = calloc(count, sizeof *streams);
    unsigned long *bytes = calloc(count, sizeof *bytes);
    for (size_t i = 0; i < count; i++) {
        uint8_t *pixels = draw_picture(sizes[i].height, sizes[i].width, i);
        streams[i] = encode_picture(pixels, sizes[i], 0, &bytes[i]);
        free(pixels);
    }
    write_streams(path, streams, bytes, count, 3);
    for (size_t i = 0; i < count; i++)
        tjFree(streams[i]);
    free(streams);
    free(bytes);
}

#endif
