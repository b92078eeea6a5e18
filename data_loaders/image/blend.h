/* Enhancements of an RGB picture as Pillow's ImageEnhance has them: a blend of the picture x with a degenerate one d,
 * trunc(d + factor (x - d)) in float32, clamped to 0 ... 255; factor 1 changes nothing. `pixels` are dense RGB triples,
 * changed in place. */
#ifndef QUEST_DATA_LOADERS_IMAGE_BLEND_H
#define QUEST_DATA_LOADERS_IMAGE_BLEND_H

#include <stddef.h>
#include <stdint.h>

/* Luminance of ITU-R 601-2 in Pillow's fixed point. */
static inline uint8_t luminance(uint8_t red, uint8_t green, uint8_t blue)
{
    return (uint8_t)((19595u * red + 38470u * green + 7471u * blue + 32768u) >> 16);
}

/* Every channel becomes the luminance. */
void blend_greyscale(uint8_t *pixels, size_t count);
/* With black. */
void blend_brightness(uint8_t *pixels, size_t count, float factor);
/* With the picture's mean luminance. */
void blend_contrast(uint8_t *pixels, size_t count, float factor);
/* With the picture in grey: saturation. */
void blend_colour(uint8_t *pixels, size_t count, float factor);
/* With the picture smoothed by a 3 x 3 filter (1 1 1, 1 5 1, 1 1 1) / 13, whose border stays as it is. `scratch` holds
 * as many bytes as the picture. */
void blend_sharpness(uint8_t *pixels, uint8_t *scratch, size_t height, size_t width, float factor);

#endif
