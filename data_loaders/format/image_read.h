/* One image of a dataset as pixels: read, and decoded where it is a JPEG stream. One reader a thread. */
#ifndef QUEST_DATA_LOADERS_FORMAT_IMAGE_READ_H
#define QUEST_DATA_LOADERS_FORMAT_IMAGE_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data_loaders/format/dataset.h"
#include "data_loaders/image/pixels.h"
#include "data_loaders/image/resample.h"
#include "src/base/error.h"

struct image_reader;

bool image_reader_open(struct image_reader **reader, const struct dataset *dataset, struct error *error);
void image_reader_close(struct image_reader *reader);

/* Reads what is stored of image i and finds its size. ERROR_INPUT: a JPEG stream whose header is damaged;
 * ERROR_RUNTIME: the file cannot be read. */
bool image_load(struct image_reader *reader, size_t image, size_t *height, size_t *width, struct error *error);
/* Pixels of the loaded image, valid until the next load; once a load. For a JPEG stream only those that resizing `part`
 * (of the full picture) to size x size needs are decoded, the others are unspecified; and it may be decoded at a half,
 * a quarter or an eighth, as long as the part keeps `size` pixels (0: never). NULL: all of it at its full size.
 * ERROR_INPUT where the stream is damaged, inside the part or not. */
bool image_decode(struct image_reader *reader, const struct rectangle *part, size_t size, struct pixels *pixels,
                  struct error *error);

#endif
