/* Pillow's Gaussian blur: three box filters along the rows, then three along the columns. */
#ifndef QUEST_DATA_LOADERS_IMAGE_BLUR_H
#define QUEST_DATA_LOADERS_IMAGE_BLUR_H

#include <stddef.h>
#include <stdint.h>

/* pixels [height, width, 3], in place; `scratch` holds as many bytes. radius: the Gaussian's standard deviation in
 * pixels, at least 0. */
void blur_gaussian(uint8_t *pixels, uint8_t *scratch, size_t height, size_t width, float radius);

#endif
