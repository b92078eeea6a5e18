/* The parameters of another run, or of another program, as the first ones of this run. */
#ifndef QUEST_TRAIN_INIT_H
#define QUEST_TRAIN_INIT_H

#include "src/checkpoint/checkpoint.h"
#include "src/train/state.h"

/* --init: fills the memory of the model's `tensors` [parameters.count] from the file. A position table of another
 * square grid is resampled, a head for another number of classes starts anew from the seed, and both are said; all else
 * must fit. On rank 0; ERROR_INPUT. */
bool trainer_init(struct trainer *trainer, const struct checkpoint_tensor *tensors, struct error *error);

#endif
