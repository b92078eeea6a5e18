/* Resizing as Pillow does it, bit for bit: bicubic (a = -1/2) or bilinear, with a filter as wide as the reduction where
 * the picture shrinks; along the rows first, then down the columns, rounded to uint8 between. */
#ifndef QUEST_DATA_LOADERS_IMAGE_RESIZE_H
#define QUEST_DATA_LOADERS_IMAGE_RESIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data_loaders/image/pixels.h"

enum resize_filter { RESIZE_BILINEAR, RESIZE_BICUBIC };

struct resizer; /* scratch that grows to the largest picture met; one a thread */

struct resizer *resizer_open(void); /* NULL: no memory */
void resizer_close(struct resizer *resizer);

/* A window of the resized picture: all of it where rows = height and columns = width. */
struct resize_window {
    size_t height, width; /* of the whole resized picture */
    size_t top, left, rows, columns;
    struct rectangle part; /* of the source, what is resized; no height: all of it */
};

static inline struct resize_window resize_window_whole(size_t height, size_t width)
{
    return (struct resize_window){.height = height, .width = width, .rows = height, .columns = width};
}

/* out [rows, columns, channels], dense and with PIXELS_SLACK_BYTES writable behind it: the window of all of `source`
 * resized; no pixel outside `source` is used (of those outside `part` as many as the filter
 * reaches), and only the rows that the window needs. 1 or 3 channels. An axis that
 * keeps its length is copied. false only where memory ran out. */
bool resize(struct resizer *resizer, uint8_t *out, const struct resize_window *window, const struct pixels *source,
            enum resize_filter filter);

/* timm's evaluation: the shorter side to floor(size / crop_share), then the centre of size x size (torchvision's
 * Resize and CenterCrop: the longer side truncated, the corner rounded half to even). */
struct resize_window resize_window_centred(size_t height, size_t width, size_t size, double crop_share);

#endif
