/* The pass along RGB rows of resize.h by AVX-512 (VBMI and VNNI), five output pixels at a time: one shuffle gathers
 * four taps of 15 numbers as bytes. Weights of 22 bits are split into three signed digits of 8; the sums are those of
 * 32-bit multiplications, bit for bit. */
#ifndef QUEST_DATA_LOADERS_IMAGE_RESIZE_RGB_WIDE_H
#define QUEST_DATA_LOADERS_IMAGE_RESIZE_RGB_WIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct resize_rgb_wide {
    size_t size, tap_groups, capacity; /* output pixels; groups of four taps */
    const int32_t *first;              /* [size], the caller's */
    uint8_t *tables;                   /* [groups of 5 pixels, groups of taps, {index, 3 digits}, 64] */
};

/* As resize_rgb_plan. false also where five pixels look at more than one shuffle reaches. */
bool resize_rgb_wide_plan(struct resize_rgb_wide *plan, const int32_t *first, const int32_t *weight, size_t taps,
                          size_t size);
/* Reads and writes up to PIXELS_SLACK_BYTES past the rows' ends (pixels.h). */
void resize_rgb_wide_row(const struct resize_rgb_wide *plan, uint8_t *out, const uint8_t *row, int bits);
void resize_rgb_wide_release(struct resize_rgb_wide *plan);

#endif
