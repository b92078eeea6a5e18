/* DeiT III's 3-Augment and colour jitter (Touvron et al., 2022; augment.py of DeiT, timm's ColorJitter). */
#ifndef QUEST_DATA_LOADERS_LOAD_THREE_AUGMENT_H
#define QUEST_DATA_LOADERS_LOAD_THREE_AUGMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "data_loaders/image/picture_op.h"

/* What is drawn for the sample at `position`. */
struct three_augment_draw {
    enum { THREE_GREYSCALE, THREE_SOLARISE, THREE_BLUR } change; /* with equal chances */
    double radius;                                               /* of the blur: uniform in 0.1 ... 2 */
};
struct three_augment_draw three_augment_draw(uint64_t seed, uint64_t position);
void three_augment_apply(struct picture *picture, uint64_t seed, uint64_t position);

/* Brightness, contrast and saturation, each by a factor uniform in max(0, 1 - strength) ... 1 + strength, in one of the
 * six orders. */
struct colour_jitter_draw {
    enum picture_op op[3];
    double factor[3];
};
struct colour_jitter_draw colour_jitter_draw(double strength, uint64_t seed, uint64_t position);
/* `grey`: the picture is, and saturation, which changes nothing then (its luminance is itself), is left out. */
void colour_jitter_apply(struct picture *picture, double strength, uint64_t seed, uint64_t position, bool grey);

#endif
