/* What a finished step says. */
#ifndef QUEST_TRAIN_RECORDS_H
#define QUEST_TRAIN_RECORDS_H

#include "src/train/state.h"

/* Reads a finished step: logs it. One that was not finite is an error (shared), or where the configuration says so the
 * decision to rewind, after which no record is read. */
bool trainer_finish_record(struct trainer *trainer, struct step_record *record, struct error *error);

#endif
