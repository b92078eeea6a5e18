/* The numbers of metrics.jsonl, one table for those who write, read and show them: a new one is a field of struct
 * metrics_record, a row here, and a value where it is measured. */
#ifndef QUEST_RECORD_METRIC_H
#define QUEST_RECORD_METRIC_H

#include "src/record/record.h"

struct metric {
    const char *name; /* in metrics.jsonl */
    size_t offset;    /* of a double in struct metrics_record */
    const char *tag;  /* in TensorBoard; NULL: not shown */
    bool whole;       /* a count */
};

/* In the order in which a line has them; they end with a name of NULL. */
extern const struct metric step_metrics[], evaluation_metrics[];

/* Those of a record's kind. */
const struct metric *metrics_of(const struct metrics_record *record);
bool metrics_are_of_average(const struct metrics_record *record);
double metric_value(const struct metrics_record *record, const struct metric *metric);
void metric_set(struct metrics_record *record, const struct metric *metric, double value);

#endif
