/* A picture in memory, or a window of one. */
#ifndef QUEST_DATA_LOADERS_IMAGE_PIXELS_H
#define QUEST_DATA_LOADERS_IMAGE_PIXELS_H

#include <stddef.h>
#include <stdint.h>

enum { PIXELS_SLACK_BYTES = 64 }; /* readable past the end of any source, writable past the end of a mirrored row */

/* Rows of width * channels bytes, `stride` bytes apart, PIXELS_SLACK_BYTES readable at the end. */
struct pixels {
    const uint8_t *bytes;
    size_t height, width, channels, stride;
};

/* A rectangle of a picture in its pixels, fractions allowed. */
struct rectangle {
    double top, left, height, width;
};

#endif
