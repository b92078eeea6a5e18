/* Where a NaN or Inf came from. */
#ifndef QUEST_TRAIN_NONFINITE_H
#define QUEST_TRAIN_NONFINITE_H

#include "src/train/state.h"

/* Says where the NaN or Inf of `step` came from, in an event and the error; true: the run is to be rewound. */
bool trainer_report_nonfinite(struct trainer *trainer, uint64_t step, struct error *error);

#endif
