/* What resizing should give, in float64: a weighted mean under a triangle as wide as the reduction. */
#ifndef QUEST_TESTS_RESAMPLE_REFERENCE_H
#define QUEST_TESTS_RESAMPLE_REFERENCE_H

#include <math.h>

#include "data_loaders/image/resample.h"

static inline double resample_weight(size_t at, double centre, double scale)
{
    return fmax(0, 1 - fabs((double)at + 0.5 - centre) / scale);
}

/* Of an axis of `extent` pixels the first that may have a weight, and the one behind the last. */
static inline size_t resample_first(double centre, double scale)
{
    return centre - scale > 1 ? (size_t)(centre - scale) - 1 : 0;
}

static inline size_t resample_end(double centre, double scale, size_t extent)
{
    return centre + scale + 1 < (double)extent ? (size_t)(centre + scale) + 1 : extent;
}

/* Channel c of pixel (out_y, out_x) of `part` resized to size x size. */
static inline double resample_reference(const struct pixels *source, const struct rectangle *part, size_t size,
                                        size_t out_y, size_t out_x, size_t c)
{
    double step_y = part->height / (double)size, step_x = part->width / (double)size;
    double centre_y = part->top + ((double)out_y + 0.5) * step_y,
           centre_x = part->left + ((double)out_x + 0.5) * step_x;
    double scale_y = fmax(step_y, 1), scale_x = fmax(step_x, 1), sum = 0, weights = 0;
    size_t end_y = resample_end(centre_y, scale_y, source->height);
    size_t end_x = resample_end(centre_x, scale_x, source->width);
    for (size_t y = resample_first(centre_y, scale_y); y < end_y; y++)
        for (size_t x = resample_first(centre_x, scale_x); x < end_x; x++) {
            double weight = resample_weight(y, centre_y, scale_y) * resample_weight(x, centre_x, scale_x);
            sum += weight * source->bytes[y * source->stride + x * source->channels + c];
            weights += weight;
        }
    return sum / weights;
}

#endif
