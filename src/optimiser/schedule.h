/* Learning rate of optimiser step 1 .. steps: linear warm-up, then cosine decay to min_lr or a constant, by our rule or
 * by those of timm (timm 1.0.31, CosineLRScheduler) and DeiT (its main.py).
 *
 * With s(t): t < W: warmup_lr + t (peak - warmup_lr) / W, else min_lr + (peak - min_lr)(1 + cos(pi t / T)) / 2, min_lr
 * from T on. W is the warm-up, T what is left of the run without the cool-down; under warmup_prefix the cosine has t -
 * W and T is shorter by W. cosine, constant  step n has W steps' linear rise from warmup_lr, of which the last is at
 * the peak; then the cosine over the steps after them timm_updates      step n has s(n - 1), W and T in steps
 *   timm_epochs       epoch e (from 0) has s(e)
 *   deit              epoch e has s(max(e - 1, 0)): DeiT sets an epoch's rate after it. Also after a resume, where DeiT
 *                     itself forgets to be late for one epoch.
 * Batches go on from one epoch into the next: a step is of the epoch that its first sample is of. */
#ifndef QUEST_OPTIMISER_SCHEDULE_H
#define QUEST_OPTIMISER_SCHEDULE_H

#include <stdint.h>

#include "src/config/config.h"

struct schedule_run {
    uint64_t steps;         /* of the whole run */
    uint64_t epoch_samples; /* of the training set, repeated ones counted (sampler_epoch_samples) */
};

/* Steps of the whole run: train.steps, or as many batches as hold train.epochs epochs (the last one rounded up). */
struct schedule_run schedule_run_of(const struct config *config, uint64_t epoch_samples);
/* A run that never leaves its warm-up and cool-down would not do what its schedule says: ERROR_INPUT. */
bool schedule_check(const struct config *config, const struct schedule_run *run, struct error *error);
double schedule_learning_rate(const struct config *config, const struct schedule_run *run, uint64_t step);

#endif
