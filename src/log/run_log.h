/* The run directory: config.yaml, metrics.jsonl, norms.jsonl, events.jsonl, checkpoints/ (docs/logs.md). One rank
 * writes; every line is one JSON object, written with one write(2), so a reader never sees two lines mixed and a crash
 * cuts at most the last. Numbers that are not finite are written as null. */
#ifndef QUEST_LOG_RUN_LOG_H
#define QUEST_LOG_RUN_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"
#include "src/record/record.h"

struct run_log;

/* Creates DIR (and parents), takes DIR/lock (flock; a second run is refused and told which host and process hold it),
 * refuses a directory that holds a run unless `resume`. On resume the logs are cut back to `resume_step` with
 * run_log_rewind. */
bool run_log_open(struct run_log **log, const char *directory, bool resume, struct error *error);
void run_log_close(struct run_log *log);
const char *run_log_directory(const struct run_log *log);
const char *run_log_checkpoints(const struct run_log *log);
/* What is written besides config.yaml and the three .jsonl files; nothing where all is zero. */
struct run_log_options {
    bool tensorboard;       /* event files in DIR/tensorboard */
    const char *prometheus; /* file for the textfile collector; NULL or "": none */
    double segment_mib;     /* norms.jsonl becomes a compressed segment at this size; 0: never */
};
/* Before the first record. ERROR_INPUT: a path that cannot be written to. */
bool run_log_set_options(struct run_log *log, const struct run_log_options *options, struct error *error);
/* Waits until the segments are compressed: before run_log_close, which only waits for what has begun. */
bool run_log_finish(struct run_log *log, struct error *error);
/* Writes config.yaml (temporary name, rename). */
bool run_log_config(struct run_log *log, const char *yaml, struct error *error);
/* Drops records of steps after `step` and a cut-off last line from metrics, norms (and its segments) and events, so
 * that a run that goes on from there repeats no step; TensorBoard is told to forget them. At any time while the log is
 * open. The old file is kept until the new one is whole. */
bool run_log_rewind(struct run_log *log, uint64_t step, struct error *error);

/* The same for a run that goes back to `step` by itself: what is cut is kept in a new directory RUN/rewound/<number> or
 * the next free number (metrics.jsonl, norms.jsonl, events.jsonl), and events.jsonl keeps all of its lines. *directory:
 * that directory, to be freed, NULL where it could not be made. */
bool run_log_put_aside(struct run_log *log, uint64_t step, uint64_t number, char **directory, struct error *error);

/* A step or an evaluation. */
bool run_log_metrics(struct run_log *log, const struct metrics_record *record, struct error *error);
bool run_log_norms(struct run_log *log, const struct norm_record *record, struct error *error);
/* With fields of the run's own at the end. */
bool run_log_norms_and(struct run_log *log, const struct norm_record *record, const struct log_field_of_run *more,
                       size_t more_count, struct error *error);
bool run_log_event(struct run_log *log, const struct event *event, struct error *error);

#endif
