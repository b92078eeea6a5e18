/* Tone curves of an RGB picture, in place, as Pillow's ImageOps and timm's RandAugment have them: each output number
 * depends on the input number and at most on its channel's histogram. `pixels` are `count` dense RGB triples. */
#ifndef QUEST_DATA_LOADERS_IMAGE_TONE_H
#define QUEST_DATA_LOADERS_IMAGE_TONE_H

#include <stddef.h>
#include <stdint.h>

/* 255 - x. */
void tone_invert(uint8_t *pixels, size_t count);
/* Keeps the top `bits` (0 to 8) of each number; none is black. */
void tone_posterise(uint8_t *pixels, size_t count, int bits);
/* 255 - x from `threshold` on (0 inverts all, 256 none). */
void tone_solarise(uint8_t *pixels, size_t count, int threshold);
/* min(255, x + add) below 128. */
void tone_solarise_add(uint8_t *pixels, size_t count, int add);
/* Each channel stretched linearly to 0 ... 255. */
void tone_stretch(uint8_t *pixels, size_t count);
/* Each channel through its cumulative histogram (ImageOps.equalize). */
void tone_equalise(uint8_t *pixels, size_t count);

#endif
