/* The pass down the columns of resize.h by AVX2: one output row from `taps` rows. Weights of 22 bits are split as in
 * resize_rgb.h; the sums are those of 32-bit multiplications, bit for bit. */
#ifndef QUEST_DATA_LOADERS_IMAGE_RESIZE_DOWN_H
#define QUEST_DATA_LOADERS_IMAGE_RESIZE_DOWN_H

#include <stddef.h>
#include <stdint.h>

/* out[0 .. done) = the sums of `taps` rows that lie `stride` bytes apart, each times its weight, rounded by `bits` and
 * clamped. Returns `done`, the largest part of `count` that is whole vectors; 0 on other processors. */
size_t resize_down(uint8_t *out, const uint8_t *first_row, size_t stride, const int32_t *weight, size_t taps,
                   size_t count, int bits);

#endif
