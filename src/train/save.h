/* Checkpoints of a run. */
#ifndef QUEST_TRAIN_SAVE_H
#define QUEST_TRAIN_SAVE_H

#include "src/train/state.h"

/* Rank 0 writes a checkpoint of the last finished step and prunes old ones; others wait. A failure is a warning and an
 * event: the run goes on with the previous checkpoint. *saved tells, on every rank. */
bool trainer_save(struct trainer *trainer, bool *saved, struct error *error);
/* The same where there is a checkpoint of this step already: it is replaced. */
bool trainer_save_again(struct trainer *trainer, bool *saved, struct error *error);
/* Marks the newest checkpoint as the best. */
void trainer_mark_best(struct trainer *trainer);

#endif
