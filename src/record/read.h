/* Lines of a log back to the structs that they were written from. */
#ifndef QUEST_RECORD_READ_H
#define QUEST_RECORD_READ_H

#include "src/record/log_line.h"
#include "src/record/record.h"

/* false: no step in it. Missing numbers are NaN. */
bool metrics_record_read(struct metrics_record *record, const struct log_line *line);
/* The lists of one layer's record point into `line`; those that are missing or of another length are NULL. false: no
 * step, layer or list in it. */
bool norm_record_read(struct norm_record *record, const struct log_line *line);
/* false: no step or kind in it. A `since` that is not there is the step. */
bool event_read(struct event *event, const struct log_line *line);

#endif
