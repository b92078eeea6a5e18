/* What run_log*.c share. */
#ifndef QUEST_LOG_FILES_H
#define QUEST_LOG_FILES_H

#include <stdio.h>

#include "src/log/run_log.h"
#include "src/log/sinks.h"

enum run_log_file { RUN_LOG_METRICS, RUN_LOG_NORMS, RUN_LOG_EVENTS, RUN_LOG_FILES };

struct log_packer; /* packer.c: the thread that compresses */

struct run_log {
    char *directory, *checkpoints;
    char *paths[RUN_LOG_FILES];
    int files[RUN_LOG_FILES]; /* open for appending */
    int lock;
    struct run_log_options options;
    struct run_log_sinks sinks;
    struct log_packer *packer; /* NULL: none is at work */
};

/* (Re)opens one log for appending, made where it does not exist. */
bool run_log_open_file(struct run_log *log, enum run_log_file which, struct error *error);
/* Opens a log or a segment for reading, compressed or not. NULL with errno set. */
FILE *run_log_open_lines(const char *path);

/* ---- the thread that compresses ---- */

/* norms.jsonl becomes a segment, a new one goes on. Also tells what an earlier compression met. */
bool run_log_rotate(struct run_log *log, struct error *error);
/* Collects the packer where it is done, or waits for it. ERROR_RUNTIME: what it met; the segment stays uncompressed. */
bool run_log_packed(struct run_log *log, bool wait, struct error *error);
/* Begins to compress what segments there are. */
bool run_log_start_packer(struct run_log *log, struct error *error);

#endif
