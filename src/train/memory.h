/* Whether a run fits into the memory that there is. Internal to src/train. */
#ifndef QUEST_TRAIN_MEMORY_H
#define QUEST_TRAIN_MEMORY_H

#include "src/train/state.h"

/* Plans the run's memory, prints the plan, holds it to what is free and opens the model. */
bool trainer_open_model(struct trainer *trainer, struct error *error);
/* Collective; on GPUs alone. A whole step on blank input that changes nothing that a run keeps, so that what libraries
 * load and allocate at a first use is there, or missing, before the first step; says what the device then has in use.
 */
bool trainer_warm_up(struct trainer *trainer, struct error *error);

#endif
