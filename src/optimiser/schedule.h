/* Learning rate of optimiser step t = 1 .. total: linear warm-up, then cosine decay to min_lr or a constant. */
#ifndef QUEST_OPTIMISER_SCHEDULE_H
#define QUEST_OPTIMISER_SCHEDULE_H

#include <stdint.h>

#include "src/config/config.h"

double schedule_learning_rate(const struct config *config, uint64_t step, uint64_t total_steps);
/* Steps of the whole run: train.steps, or as many batches as hold train.epochs epochs (the last one rounded up). */
uint64_t schedule_total_steps(const struct config *config, uint64_t images);

#endif
