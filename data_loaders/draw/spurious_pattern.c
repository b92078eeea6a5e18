/* The patterns of the ten classes, and drawing one into an image. */
#include "data_loaders/draw/spurious_pattern.h"

#include <string.h>

enum { CELLS = 3 };

/* A bit a cell. Any two differ in at least three cells, mirrored or not, because training may flip images. */
static const uint16_t pattern_bits[SPURIOUS_PATTERN_CLASSES] = {0x152, 0x13b, 0x085, 0x191, 0x035,
                                                                0x1c7, 0x166, 0x0ae, 0x196, 0x0e2};

/* Whole pixels, so that the cells stay black and white. */
static size_t cell_pixels(size_t size)
{
    return size >= 32 ? size / 16 : 1;
}

size_t spurious_pattern_side(size_t size)
{
    return CELLS * cell_pixels(size);
}

void spurious_pattern_draw(uint8_t *pixels, size_t height, size_t width, size_t channels, int32_t label, double right,
                           double down)
{
    size_t cell = cell_pixels(height < width ? height : width), side = CELLS * cell;
    size_t left = (size_t)(right * (double)(width - side + 1)), top = (size_t)(down * (double)(height - side + 1));
    for (size_t y = 0; y < side; y++)
        for (size_t column = 0; column < CELLS; column++) {
            bool white = pattern_bits[label] >> (CELLS * (y / cell) + column) & 1;
            memset(pixels + ((top + y) * width + left + column * cell) * channels, white ? 255 : 0, cell * channels);
        }
}
