/* The data of a run: opened by each rank, the same on all. */
#ifndef QUEST_TRAIN_DATASETS_H
#define QUEST_TRAIN_DATASETS_H

#include "src/train/state.h"

/* Training and validation file, with classes and channels that fit each other and the configuration. */
bool trainer_open_datasets(struct trainer *trainer, struct error *error);
/* Copies the datasets to data.stage, where it is set: the ranks of a host share the files among them, and read from the
 * copies. Collective. A host without room reads from the files' own place; rank 0 says so. */
bool trainer_stage_datasets(struct trainer *trainer, struct error *error);
/* Whether all ranks read the same data under the same configuration. Collective, errors are shared. */
bool trainer_check_same(struct trainer *trainer, struct error *error);

#endif
