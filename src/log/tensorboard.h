/* A run's numbers as TensorBoard shows them (docs/monitoring.md lists the tags): from the trainer as it goes, and from
 * a log by quest-norms export. */
#ifndef QUEST_LOG_TENSORBOARD_H
#define QUEST_LOG_TENSORBOARD_H

#include "src/base/error.h"
#include "src/log/event_file.h"
#include "src/record/record.h"

/* A logged step (train/loss, ...) or an evaluation (evaluation/top1, ...); numbers that are unknown are left out. */
bool tensorboard_metrics(struct event_file *file, const struct metrics_record *record, struct error *error);
/* One layer's record: each list as a scalar (the mean over heads of means and deviations, the largest of maxima, the
 * smallest of minima) and as a histogram over the heads. Lists that are NULL are left out. */
bool tensorboard_norms(struct event_file *file, const struct norm_record *record, double time, struct error *error);

#endif
