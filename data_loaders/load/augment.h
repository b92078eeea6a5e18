/* What is drawn at random for one sample of the training sequence. A function of seed and position alone, so that
 * augmentation is the same for any number of ranks and workers, and after a resume. */
#ifndef QUEST_DATA_LOADERS_LOAD_AUGMENT_H
#define QUEST_DATA_LOADERS_LOAD_AUGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data_loaders/image/resample.h"

struct augment {
    bool flip;                /* horizontally, with probability 1/2 */
    size_t crop_padding;      /* zero-pad by this and crop at random; 0 = off */
    bool random_resized_crop; /* area in crop_scale_min..max, aspect 3/4..4/3, bilinear */
    double crop_scale_min, crop_scale_max;
};

/* Where the picture of one sample comes from: `part` of the stored image, resized to image_size where it has another
 * size, then shifted (zeros come in) and mirrored. */
struct view {
    struct rectangle part;
    ptrdiff_t shift_y, shift_x;
    bool flip;
};

/* The largest centred square: evaluation, and training without random_resized_crop. */
struct view view_centred(size_t height, size_t width);
/* The view of the sample at `position` of an image of this size. random_resized_crop is torchvision's: ten tries at an
 * area and an aspect ratio that fit, else the centred square. */
struct view view_augmented(const struct augment *augment, uint64_t seed, uint64_t position, size_t height,
                           size_t width);

#endif
