/* Cutting an image into patches: the last step of the loader and the only one that touches every byte of a raw image.
 */
#ifndef QUEST_DATA_LOADERS_LOAD_PATCHES_H
#define QUEST_DATA_LOADERS_LOAD_PATCHES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data_loaders/image/pixels.h"
#include "data_loaders/load/augment.h"

/* out [(size/patch)^2, patch, patch, channels] = the size x size picture whose pixel (y, x) is pixel (y + shift_y,
 * x + shift_x) of `source`, and 0 outside it; mirrored left to right where `flip`: the view's, whose part is `source`
 * already. `scratch` has patches_scratch_bytes. Shift, flip and cut are one pass over the rows, a row of patches at a
 * time, which then goes to `out` past the caches: the next to read it is another thread or a device. */
void patches_cut(uint8_t *out, const struct pixels *source, size_t size, size_t patch, const struct view *view,
                 uint8_t *scratch);
size_t patches_scratch_bytes(size_t size, size_t patch, size_t channels);

/* to[i] = from[width - 1 - i], pixels of 1 or 3 bytes. Reads and writes at most PIXELS_SLACK_BYTES past the ends. */
void pixels_mirror(uint8_t *to, const uint8_t *from, size_t width, size_t channels);

#endif
