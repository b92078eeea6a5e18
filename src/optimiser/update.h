/* From a summed gradient to new parameters: clipping, the optimiser, and steps that change nothing. */
#ifndef QUEST_OPTIMISER_UPDATE_H
#define QUEST_OPTIMISER_UPDATE_H

#include "src/config/config.h"
#include "src/model/model.h"

/* One optimiser step, counted from 1. */
struct update {
    uint64_t step;
    double lr;
    double sum_of_squares_limit; /* of the gradient: above it nothing is changed; 0 = no limit */
};

/* The device's sums of squares of a step's gradient, float64 [1 + depth]: of the whole, then of each block's qkv
 * weights and bias, 0 of a frozen one. Two steps are kept, since the host may not have read the one before. */
double *update_sums(const struct model *model, uint64_t step);
/* Queues the sums of a step; those of the blocks only where `with_blocks`. */
bool update_measure_gradient(struct model *model, uint64_t step, bool with_blocks, struct error *error);
/* Queues the update, after the measuring. */
bool update_parameters(struct model *model, const struct config *config, const struct update *update,
                       struct error *error);

#endif
