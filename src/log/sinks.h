/* Where else a run's numbers go than to the three .jsonl files: TensorBoard's event files and Prometheus' text file. */
#ifndef QUEST_LOG_SINKS_H
#define QUEST_LOG_SINKS_H

#include "src/log/event_file.h"
#include "src/log/prometheus.h"
#include "src/log/run_log.h"

struct run_log_sinks {
    char *tensorboard;         /* directory; NULL: off */
    struct event_file *events; /* NULL: none open; the next number opens one */
    uint64_t purge_step;       /* it tells TensorBoard to forget the steps from here on */
    bool tensorboard_failed;   /* and was reported: a full disk fails at every step, and is said once */
    char *prometheus;          /* path; NULL: off */
    bool prometheus_failed;
    char run[128];
    struct log_newest newest; /* for prometheus */
    uint64_t event_counts[PROMETHEUS_SEVERITIES];
};

/* ERROR_INPUT names the key whose path cannot be used. */
bool run_log_sinks_open(struct run_log_sinks *sinks, const char *directory, const struct run_log_options *options,
                        struct error *error);
void run_log_sinks_close(struct run_log_sinks *sinks);
/* The run goes on after `step`. */
void run_log_sinks_rewind(struct run_log_sinks *sinks, uint64_t step);

/* Each false: one of the files could not be written, for the first time in this run. */
bool run_log_sinks_metrics(struct run_log_sinks *sinks, const struct metrics_record *record, struct error *error);
bool run_log_sinks_norms(struct run_log_sinks *sinks, const struct norm_record *record, struct error *error);
void run_log_sinks_event(struct run_log_sinks *sinks, const struct event *event);

#endif
