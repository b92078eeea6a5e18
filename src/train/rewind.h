/* Back to the last good checkpoint. */
#ifndef QUEST_TRAIN_REWIND_H
#define QUEST_TRAIN_REWIND_H

#include "src/train/state.h"

/* Back to a good checkpoint as the diagnosis has decided, with logs, input, diagnosis and learning rate set for going
 * on from there. Collective, errors are shared. */
bool trainer_rewind(struct trainer *trainer, struct error *error);
/* Whether the configuration asks for rewinding at all. */
bool trainer_may_rewind(const struct trainer *trainer);

#endif
