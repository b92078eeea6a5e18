/* What a run says on the terminal: one live line on a terminal, plain lines elsewhere. Rank 0 only. */
#ifndef QUEST_LOG_PROGRESS_H
#define QUEST_LOG_PROGRESS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#include "src/record/record.h"

struct progress {
    bool silent, live; /* live: stdout is a terminal */
    bool line_open;    /* a live line stands without its newline */
    uint64_t total_steps;
    double epochs;
};

void progress_open(struct progress *progress, bool silent, uint64_t total_steps, double epochs);
/* Replaces the live line, or prints a plain one. */
void progress_step(struct progress *progress, const struct metrics_record *metrics);
/* A line of its own, under what stands there. */
void progress_say(struct progress *progress, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same on stderr. */
void progress_warn(struct progress *progress, const char *format, ...) __attribute__((format(printf, 2, 3)));
void progress_close(struct progress *progress);

#endif
