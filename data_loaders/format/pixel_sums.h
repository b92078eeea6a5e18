/* Exact sums over pixels, from which mean and std are made; sums of several images, threads or files add up. */
#ifndef QUEST_DATA_LOADERS_FORMAT_PIXEL_SUMS_H
#define QUEST_DATA_LOADERS_FORMAT_PIXEL_SUMS_H

#include <stddef.h>
#include <stdint.h>

#include "data_loaders/image/pixels.h"

struct pixel_sums {
    uint64_t count; /* pixels */
    uint64_t sum[3], sum_of_squares[3];
};
void pixel_sums_add(struct pixel_sums *sums, const struct pixels *pixels);
void pixel_sums_merge(struct pixel_sums *sums, const struct pixel_sums *more);
/* Mean and population standard deviation per channel, in 0..1 units. */
void pixel_sums_moments(const struct pixel_sums *sums, size_t channels, float *mean, float *std);

#endif
