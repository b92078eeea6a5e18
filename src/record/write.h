/* Records as lines of JSON; read.h reads them back. */
#ifndef QUEST_RECORD_WRITE_H
#define QUEST_RECORD_WRITE_H

#include "src/record/json_line.h"
#include "src/record/record.h"

/* Each writes the fields into a line that has begun, in the order in which docs/logs.md lists them, with the time of
 * now; ending the line is the caller's. */
void metrics_record_write(struct json_line *line, const struct metrics_record *record);
/* `more`: fields of the run's own, at the end. */
void norm_record_write(struct json_line *line, const struct norm_record *record, const struct log_field_of_run *more,
                       size_t more_count);
void event_write(struct json_line *line, const struct event *event);

#endif
