/* The average of the parameters as a whole: each rank keeps a share of it. Internal to src/train. */
#ifndef QUEST_TRAIN_AVERAGE_H
#define QUEST_TRAIN_AVERAGE_H

#include "src/train/state.h"

/* Collective, waits: `whole`, host [parameters.total], has all of it on rank 0; elsewhere it may be NULL. */
bool trainer_gather_average(struct trainer *trainer, float *whole, struct error *error);
/* Waits: `whole`, host, is the average from now on, of which this rank keeps its share. */
bool trainer_set_average(struct trainer *trainer, const float *whole, struct error *error);

/* Collective: the average in the parameters' place, on every rank. What they were goes to *parameters, with which
 * trainer_give_back puts them there again, bit for bit; after an error they are as they were. */
bool trainer_take_average(struct trainer *trainer, float **parameters, struct error *error);
/* Waits; frees them. */
bool trainer_give_back(struct trainer *trainer, float *parameters, struct error *error);

#endif
