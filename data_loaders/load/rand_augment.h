/* RandAugment as timm draws it (Cubuk et al., 2020; timm/data/auto_augment.py 1.0.31): a few operations of fifteen,
 * each done or left out, at magnitudes about a mean. */
#ifndef QUEST_DATA_LOADERS_LOAD_RAND_AUGMENT_H
#define QUEST_DATA_LOADERS_LOAD_RAND_AUGMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "data_loaders/image/picture_op.h"
#include "src/base/error.h"

enum { RAND_AUGMENT_MOST_OPS = 8 };

struct rand_augment {
    int ops;            /* n: operations drawn for a picture, with replacement; 0 = off */
    double probability; /* p: that one is done */
    double magnitude;   /* m: 0 to 10 */
    double deviation;   /* mstd: of the magnitude's normal distribution; at least 100: uniform from 0 to m */
    double most;        /* mmax: what magnitudes are clamped to */
    bool increasing;    /* inc: every operation gets stronger as its magnitude grows */
};

/* "rand-m9-mstd0.5-inc1" -> the struct; "" or "none" turns it off. ERROR_INPUT names the part that is not known. */
bool rand_augment_parse(struct rand_augment *policy, const char *text, struct error *error);

/* What one operation will do. */
struct rand_augment_step {
    bool done;
    enum picture_op op;
    double magnitude, argument;
};
/* Step number `step` of the sample at `position`: a function of its arguments alone. */
struct rand_augment_step rand_augment_draw(const struct rand_augment *policy, uint64_t seed, uint64_t position,
                                           int step);
/* The argument of an operation at a magnitude; `negative` where its law has a sign. */
double rand_augment_argument(const struct rand_augment *policy, enum picture_op op, double magnitude, bool negative);
/* All of them, on a picture; geometric operations are bicubic and fill with `fill`. */
void rand_augment_apply(const struct rand_augment *policy, struct picture *picture, const uint8_t fill[3],
                        uint64_t seed, uint64_t position);

#endif
