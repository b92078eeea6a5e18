/* What run_log*.c share. */
#ifndef QUEST_RUN_LOG_FILES_H
#define QUEST_RUN_LOG_FILES_H

#include "src/run_log.h"

enum run_log_file { RUN_LOG_METRICS, RUN_LOG_NORMS, RUN_LOG_EVENTS, RUN_LOG_FILES };

struct run_log {
    char *directory, *checkpoints;
    char *paths[RUN_LOG_FILES];
    int files[RUN_LOG_FILES]; /* open for appending */
    int lock;
};

/* (Re)opens one log for appending, made where it does not exist. */
bool run_log_open_file(struct run_log *log, enum run_log_file which, struct error *error);

#endif
