/* What resizing should give, in float64: a weighted mean under a triangle as wide as the reduction. */
#ifndef QUEST_TESTS_RESAMPLE_REFERENCE_H
#define QUEST_TESTS_RESAMPLE_REFERENCE_H

#include <math.h>

#include "data_loaders/resample.h"

/* Channel c of pixel (out_y, out_x) of `part` resized to size x size. */
static inline double resample_reference(const struct pixels *source, const struct rectangle *part, size_t size,
                                        size_t out_y, size_t out_x, size_t c)
{
    double step_y = part->height / (double)size, step_x = part->width / (double)size;
    double centre_y = part->top + ((double)out_y + 0.5) * step_y,
           centre_x = part->left + ((double)out_x + 0.5) * step_x;
    double scale_y = fmax(step_y, 1), scale_x = fmax(step_x, 1), sum = 0, weights = 0;
    for (size_t y = 0; y < source->height; y++) {
        double weight_y = fmax(0, 1 - fabs((double)y + 0.5 - centre_y) / scale_y);
        if (weight_y == 0)
            continue;
        for (size_t x = 0; x < source->width; x++) {
            double weight = weight_y * fmax(0, 1 - fabs((double)x + 0.5 - centre_x) / scale_x);
            sum += weight * source->bytes[y * source->stride + x * source->channels + c];
            weights += weight;
        }
    }
    return sum / weights;
}

#endif
