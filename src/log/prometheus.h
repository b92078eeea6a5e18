/* A run's newest numbers in Prometheus' text format, for the node exporter's textfile collector (docs/monitoring.md
 * lists the metrics): from the trainer at each logged step, and from a log by quest-norms export. */
#ifndef QUEST_LOG_PROMETHEUS_H
#define QUEST_LOG_PROMETHEUS_H

#include "src/log/newest.h"

enum { PROMETHEUS_SEVERITIES = 3 };

/* `path` is replaced by a rename: a reader sees the old numbers or the new. run: the label that tells runs apart.
 * events: raised so far, as info, warning and critical. */
bool prometheus_write(const char *path, const char *run, const struct log_newest *newest,
                      const uint64_t events[PROMETHEUS_SEVERITIES], struct error *error);

#endif
