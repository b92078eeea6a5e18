/* What the optimiser keeps on the device beside parameters and gradients: moments, and tables of what it does to which
 * tensor. */
#ifndef QUEST_MODEL_OPTIMISER_STATE_H
#define QUEST_MODEL_OPTIMISER_STATE_H

#include "src/model/model.h"

/* The views; none where the model is not open for training. */
void optimiser_state_cut(struct model *model, struct memory_cutter *cutter, enum optimiser kind);
/* Waits. Fills the tables in; moments are zero as all memory is at first. */
bool optimiser_state_upload(struct model *model, struct error *error);

#endif
