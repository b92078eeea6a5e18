/* Whether all ranks compute the same bits, where each computes all of a step for itself. */
#ifndef QUEST_TRAIN_ALIKE_H
#define QUEST_TRAIN_ALIKE_H

#include "src/train/state.h"

/* Before the first step. Under Muon, whose steps are matrix products: refuses ranks whose products round otherwise than
 * rank 0's (another kind of processor, another number of threads), as their parameters would drift apart. Collective,
 * errors are shared. */
bool trainer_check_alike(struct trainer *trainer, struct error *error);

#endif
