/* The algorithms of a run's matrix products: timed before the first step, the same on all ranks that can have the same,
 * kept beside the run. Internal to src/train. */
#ifndef QUEST_TRAIN_PRODUCTS_H
#define QUEST_TRAIN_PRODUCTS_H

#include "src/train/state.h"

/* Collective, once the model is open and before the first step. With train.products tuned: what the run directory's
 * products.jsonl holds for this GPU is taken; of the ranks with the same GPU and libraries the first times what is not
 * there, on a rehearsal of a step whose results are thrown away, and the others take its choices. Products that are
 * met only later (a last batch of an evaluation that is not full) take the first offer. */
bool trainer_products_open(struct trainer *trainer, struct error *error);
/* Rank 0, after a step: writes products.jsonl where products were added, or an offer was refused at a call, which it
 * warns of. */
void trainer_products_keep(struct trainer *trainer);
void trainer_products_close(struct trainer *trainer);

#endif
