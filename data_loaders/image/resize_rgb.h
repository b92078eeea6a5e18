/* The pass along RGB rows of resize.h by AVX2, two output pixels at a time. Weights of 22 bits are split into a high
 * and a low part of 16, which are multiplied and added in pairs; the sums are those of 32-bit multiplications, bit for
 * bit. */
#ifndef QUEST_DATA_LOADERS_IMAGE_RESIZE_RGB_H
#define QUEST_DATA_LOADERS_IMAGE_RESIZE_RGB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Readable past the end of a row, and writable past the end of an output row. */
enum { RESIZE_RGB_SLACK_BYTES = 16 };

struct resize_rgb {
    size_t size, groups, capacity; /* output pixels; groups of four taps */
    const int32_t *first;          /* [size], the caller's */
    int16_t *weights;              /* [pixel pairs, groups, 2 pairs of taps, {high, low}, 16] */
};

/* For every output pixel its first input pixel and `taps` weights (resize.c). `first` must outlive the plan. false: not
 * on this processor, or no memory; the caller goes another way. */
bool resize_rgb_plan(struct resize_rgb *plan, const int32_t *first, const int32_t *weight, size_t taps, size_t size);
/* out [size, 3] = the weighted sums of row [.., 3], rounded by `bits` and clamped. */
void resize_rgb_row(const struct resize_rgb *plan, uint8_t *out, const uint8_t *row, int bits);
void resize_rgb_release(struct resize_rgb *plan);

#endif
