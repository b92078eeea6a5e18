/* Resizing part of a picture: bilinear where it grows, and where it shrinks a triangle filter as wide as the
 * reduction (what Pillow and torchvision call antialiased bilinear). */
#ifndef QUEST_DATA_LOADERS_IMAGE_RESAMPLE_H
#define QUEST_DATA_LOADERS_IMAGE_RESAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data_loaders/image/pixels.h"

struct resampler; /* scratch that grows to the largest picture met; one a thread */

struct resampler *resampler_open(void); /* NULL: no memory */
void resampler_close(struct resampler *resampler);

/* out [size, size, channels] = `part` of `source`, resized. 1 or 3 channels.
 * false only where memory ran out. */
bool resample(struct resampler *resampler, uint8_t *out, size_t size, const struct pixels *source,
              const struct rectangle *part);

#endif
