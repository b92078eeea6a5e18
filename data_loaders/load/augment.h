/* What is drawn at random for one sample of the training sequence. A function of seed and position alone, so that
 * augmentation is the same for any number of ranks and workers, and after a resume. */
#ifndef QUEST_DATA_LOADERS_LOAD_AUGMENT_H
#define QUEST_DATA_LOADERS_LOAD_AUGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data_loaders/image/resample.h"
#include "data_loaders/load/boxes.h"
#include "data_loaders/load/rand_augment.h"

enum interpolation {
    INTERPOLATION_FAST,     /* bilinear (resample.h); JPEG streams are decoded smaller where the crop allows it */
    INTERPOLATION_BILINEAR, /* Pillow's (resize.h) */
    INTERPOLATION_BICUBIC
};

struct augment {
    enum interpolation interpolation;
    bool
        reduced_decode; /* training: JPEG streams are decoded smaller where the crop allows it, Pillow's resizing too */
    double crop_share;  /* evaluation: the centre square's part of the shorter side; 0 = 1 */
    bool flip;          /* horizontally, with probability 1/2 */
    size_t crop_padding;      /* zero-pad by this and crop at random; 0 = off */
    bool random_resized_crop; /* area in crop_scale_min..max, aspect 3/4..4/3 */
    double crop_scale_min, crop_scale_max;
    bool simple_crop;     /* the shorter side to image_size, four pixels reflected on all sides, a random square */
    bool three_augment;   /* three_augment.h */
    double colour_jitter; /* strength; 0 = off */
    struct rand_augment rand_augment;
};

/* Whether samples go through compose.h: they are resized as Pillow does or their colours are changed. */
bool augment_composes(const struct augment *augment);

/* Where the picture of one sample comes from: `part` of the stored image, resized to image_size where it has another
 * size, then shifted (zeros come in) and mirrored. */
struct view {
    struct rectangle part;
    ptrdiff_t shift_y, shift_x;
    bool flip;
};

/* The largest centred square: evaluation, and training without random_resized_crop. */
struct view view_centred(size_t height, size_t width);
/* random_resized_crop: torchvision's, ten tries at an area and an aspect ratio that fit, else box_crop_fallback. */
struct box crop_drawn(const struct augment *augment, uint64_t seed, uint64_t position, size_t height, size_t width);
/* The view of the sample at `position` of an image of this size. */
struct view view_augmented(const struct augment *augment, uint64_t seed, uint64_t position, size_t height,
                           size_t width);

#endif
