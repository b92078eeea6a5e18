/* Image files of any format that libvips reads -> RGB pixels or baseline JPEG streams for a dataset. Upright by EXIF,
 * sRGB, transparent parts white. JPEG files without EXIF rotation and colour profile that need no resizing do without
 * libvips, which takes thirty times as long for a small one. */
#ifndef QUEST_DATA_LOADERS_IMPORT_IMAGE_CONVERT_H
#define QUEST_DATA_LOADERS_IMPORT_IMAGE_CONVERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data_loaders/format/dataset_write.h"
#include "src/base/error.h"

/* Starts libvips for one thread an image (we run several images at once), without its cache. */
bool image_convert_begin(const char *program, struct error *error);
void image_convert_thread_end(void);

struct image_converter; /* decoder and scratch; one a thread */

bool image_converter_open(struct image_converter **converter, struct error *error);
void image_converter_close(struct image_converter *converter);

struct converted {
    uint8_t *bytes; /* pixels [height, width, 3] or a JPEG stream; caller frees with free */
    size_t byte_count, height, width;
    struct pixel_sums sums; /* over the pixels, as the loader will decode them */
};

/* Where an image is: the file `path`; or `bytes`, which messages call `path`. */
struct image_place {
    const char *path;
    const uint8_t *bytes; /* NULL: in the file */
    size_t byte_count;
};

/* Pixels; size > 0: the shorter side resized to it and the centre cut out, [size, size, 3]. ERROR_INPUT says why the
 * file cannot be read. */
bool image_to_pixels(struct image_converter *converter, struct converted *converted, const struct image_place *place,
                     size_t size, struct error *error);
/* A stream for the loader. A baseline JPEG that is upright, RGB or grayscale, and whose shorter side is at most `size`
 * (0 = any) is taken over byte for byte; a progressive one is made baseline without loss, because it decodes several
 * times as slowly; everything else is encoded at quality 90, shrunk to `size` where it is larger. */
bool image_to_jpeg(struct image_converter *converter, struct converted *converted, const struct image_place *place,
                   size_t size, struct error *error);

#endif
