/* The horizontal pass of the resampler for RGB rows, five output pixels at a time: their taps are gathered by shuffles
 * and multiplied in pairs. Only where the program is compiled for AVX-512 (BW). */
#ifndef QUEST_DATA_LOADERS_IMAGE_RESAMPLE_RGB_H
#define QUEST_DATA_LOADERS_IMAGE_RESAMPLE_RGB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RESAMPLE_RGB_SLACK_BYTES = 128 }; /* readable past the end of a row */

struct resample_rgb {
    size_t size, taps, capacity;
    const int32_t *first; /* [size], the caller's */
    int16_t *tables;      /* [groups, pairs of taps, {index, weight}, 32] */
};

/* For every output pixel its first input pixel and `taps` weights, as resample.c plans them; `first` must outlive the
 * use of the plan. false: not on this processor, not for so many taps, or no memory; the caller goes another way. */
bool resample_rgb_plan(struct resample_rgb *plan, const int32_t *first, const int16_t *weight, size_t taps,
                       size_t size);
/* out [size, 3] = the weighted sums of row [columns, 3], shifted right by `bits` with rounding. */
void resample_rgb_row(const struct resample_rgb *plan, uint8_t *out, const int16_t *row, int bits);

#endif
