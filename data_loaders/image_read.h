/* One image of a dataset as pixels: read, and decoded where it is a JPEG stream. One reader a thread. */
#ifndef QUEST_IMAGE_READ_H
#define QUEST_IMAGE_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data_loaders/dataset.h"
#include "data_loaders/patches.h"
#include "src/error.h"

struct image_reader;

bool image_reader_open(struct image_reader **reader, const struct dataset *dataset, struct error *error);
void image_reader_close(struct image_reader *reader);

/* Reads what is stored of image i and finds its size. ERROR_INPUT: a JPEG stream whose header is damaged;
 * ERROR_RUNTIME: the file cannot be read. */
bool image_load(struct image_reader *reader, size_t image, size_t *height, size_t *width, struct error *error);
/* Pixels of the loaded image, valid until the next load. A JPEG stream may be decoded at a half, a quarter or an
 * eighth (faster), as long as height x width pixels of it become no fewer than least_height x least_width;
 * give the full size for all of it. ERROR_INPUT where the stream is damaged. */
bool image_decode(struct image_reader *reader, size_t least_height, size_t least_width, struct pixels *pixels,
                  struct error *error);

/* Only decodes a stream that lies in memory, at full size, into the reader's buffer: for checks at import and as the
 * yardstick of the loader's speed. */
bool image_decode_stream(struct image_reader *reader, const uint8_t *stream, size_t stream_bytes, struct pixels *pixels,
                         struct error *error);

#endif
