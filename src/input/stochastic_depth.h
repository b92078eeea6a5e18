/* Stochastic depth (Huang et al. 2016), as timm's drop_path: a branch of an image is dropped with a probability that
 * grows linearly over the blocks from 0 to `rate` (DeiT), or is `rate` in all of them (DeiT III), and scaled by
 * 1 / (1 - p) where it is kept. */
#ifndef QUEST_INPUT_STOCHASTIC_DEPTH_H
#define QUEST_INPUT_STOCHASTIC_DEPTH_H

#include <stddef.h>
#include <stdint.h>

#include "src/config/config.h"

struct stochastic_depth {
    enum drop_path_rule rule;
    double rate; /* 0: no branch is dropped */
    size_t depth;
};

/* The probability p of a block. */
double stochastic_depth_rate(const struct stochastic_depth *options, size_t block);
/* path_scale [depth, 2, stride]: 0 or 1 / (1 - p) for the attention and the MLP branch of each of `count` images. The
 * draw depends on seed and the image's position in the sequence of samples only, not on ranks. */
void stochastic_depth_draw(float *path_scale, const struct stochastic_depth *options, size_t stride, uint64_t seed,
                           const uint64_t *positions, size_t count);

#endif
