/* Evaluations of a run. Internal to src/train. */
#ifndef QUEST_TRAIN_EVALUATE_H
#define QUEST_TRAIN_EVALUATE_H

#include "src/train/state.h"

/* Collective, with no step in flight: evaluates and logs the parameters, and their average where there is one.
 * *is_best: the parameters' top-1 (as in DeiT not the average's) is the highest so far; best_top1 is then this one. The
 * average is put in the parameters' place for its evaluation, and they back after it, bit for bit, also after an error.
 */
bool trainer_evaluate(struct trainer *trainer, bool *is_best, struct error *error);

#endif
