/* The shortcut of the experiments on spurious features: a black and white square of 3 x 3 cells whose pattern names the
 * class. Easier to learn than what the image shows, and absent from every test file. */
#ifndef QUEST_DATA_LOADERS_DRAW_SPURIOUS_PATTERN_H
#define QUEST_DATA_LOADERS_DRAW_SPURIOUS_PATTERN_H

#include <stddef.h>
#include <stdint.h>

#include <stdbool.h>

#include "data_loaders/image/pixels.h"

enum { SPURIOUS_PATTERN_CLASSES = 10 };

/* Pixels a side on images whose shorter side is `size`: 3 cells of size / 16 pixels, so 6 of 32. */
size_t spurious_pattern_side(size_t size);

/* Overwrites the pixels of the square for `label` (0 .. SPURIOUS_PATTERN_CLASSES - 1). `right` and `down`, in [0, 1),
 * choose its place evenly among those that lie wholly inside. Pixels [height, width, channels], without gaps. */
void spurious_pattern_draw(uint8_t *pixels, size_t height, size_t width, size_t channels, int32_t label, double right,
                           double down);

#endif
