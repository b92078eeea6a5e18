/* Mixup (Zhang et al., 2018), cutmix (Yun et al., 2019) and random erasing (Zhong et al., 2020) as timm draws them:
 * what is done with a sample after it was normalised. Functions of seed and position alone. */
#ifndef QUEST_DATA_LOADERS_LOAD_MIX_H
#define QUEST_DATA_LOADERS_LOAD_MIX_H

#include <stdbool.h>
#include <stdint.h>

#include "data_loaders/load/boxes.h"

struct mix {
    double mixup_alpha, cutmix_alpha; /* of Beta(alpha, alpha); 0 = off */
    double probability;               /* that a group is mixed at all */
    double switch_probability;        /* of cutmix, where both are on */
    enum cutmix_rule rule;
};

/* What becomes of a group of samples that share a draw. */
struct mix_draw {
    bool cutmix;
    double lambda;  /* weight of the sample itself: 1 leaves it alone; of a cutmix corrected to the box */
    struct box box; /* of a cutmix: what comes from the partner */
};
struct mix_draw mix_drawn(const struct mix *mix, uint64_t seed, uint64_t group, size_t height, size_t width);

/* A number of Beta(alpha, alpha); `item` and `draw` number what it is for. */
double beta_drawn(double alpha, uint64_t seed, uint64_t item, uint32_t draw);

struct erase {
    double probability;
    double area_min, area_max; /* shares of the picture; timm: 0.02 and 1/3 */
};
/* The box of the sample at `position` that is filled with noise, in one of 1 / probability samples: area uniform,
 * height over width log-uniform in 0.3 ... 1 / 0.3. false: none. */
bool erase_drawn(struct box *box, const struct erase *erase, uint64_t seed, uint64_t position, size_t height,
                 size_t width);

#endif
