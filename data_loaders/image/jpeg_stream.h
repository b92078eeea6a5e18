/* JPEG streams decoded in part, through libjpeg-turbo's libjpeg interface: libturbojpeg 2.1 decodes all or nothing, and
 * reads each header twice. The same pixels as libturbojpeg's. One a thread. */
#ifndef QUEST_DATA_LOADERS_IMAGE_JPEG_STREAM_H
#define QUEST_DATA_LOADERS_IMAGE_JPEG_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct jpeg_stream;

struct jpeg_window {
    size_t top, left, height, width;
};

struct jpeg_stream *jpeg_stream_open(void); /* NULL: no memory */
void jpeg_stream_close(struct jpeg_stream *stream);

/* Reads the header of bytes[0..byte_count), which must stay until the picture is decoded. false: damaged. */
bool jpeg_stream_begin(struct jpeg_stream *stream, const uint8_t *bytes, size_t byte_count, size_t *height,
                       size_t *width);
bool jpeg_stream_is_cmyk(const struct jpeg_stream *stream);
/* Height or width of the picture when decoded at 1/denominator (1, 2, 4 or 8). */
size_t jpeg_stream_scaled(size_t length, size_t denominator);
/* Decodes, once after each begin, at least the window of the scaled picture to its place in pixels [scaled height,
 * scaled width, channels]; what else is in there is left as it was or overwritten. RGB or, for 1 channel, luminance.
 * The whole stream is read whatever the window. false: damaged, or cut short. */
bool jpeg_stream_decode(struct jpeg_stream *stream, uint8_t *pixels, size_t denominator, size_t channels,
                        const struct jpeg_window *window);
/* What was wrong with the last stream. */
const char *jpeg_stream_complaint(const struct jpeg_stream *stream);

#endif
