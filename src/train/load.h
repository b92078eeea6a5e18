/* Where the parameters come from. */
#ifndef QUEST_TRAIN_LOAD_H
#define QUEST_TRAIN_LOAD_H

#include "src/train/state.h"

/* Parameters (and, resuming, moments, step and best top-1) from --resume, --init or the seed. Collective, errors are
 * shared. */
bool trainer_load(struct trainer *trainer, struct error *error);
/* Parameters, moments, step, best top-1 and gradient norms of the newest valid checkpoint from which step `since` was
 * not the next one, else of the newest before `seen` in the same way. Collective, errors are shared. */
bool trainer_restore(struct trainer *trainer, uint64_t since, uint64_t seen, struct error *error);

#endif
