/* The fields of each kind of record; docs/logs.md says what they mean. */
#include "src/record/write.h"

#include "src/record/metric.h"
#include "src/record/norm_lists.h"

void metrics_record_write(struct json_line *line, const struct metrics_record *record)
{
    json_line_whole(line, "step", (int64_t)record->step);
    if (record->split[0])
        json_line_text(line, "split", record->split);
    for (const struct metric *metric = metrics_of(record); metric->name; metric++) {
        double value = metric_value(record, metric);
        if (metric->whole)
            json_line_whole(line, metric->name, (int64_t)value);
        else
            json_line_number(line, metric->name, value);
    }
    for (size_t i = 0; i < record->more_count; i++)
        json_line_number(line, record->more[i].name, *record->more[i].values);
    json_line_time(line, "time");
}

void norm_record_write(struct json_line *line, const struct norm_record *record, const struct log_field_of_run *more,
                       size_t more_count)
{
    json_line_whole(line, "step", (int64_t)record->step);
    json_line_whole(line, "layer", (int64_t)record->layer);
    for (size_t i = 0; i < NORM_LISTS; i++)
        json_line_numbers(line, norm_lists[i].name, norm_record_list(record, i), record->heads);
    json_line_number(line, "qkv_grad_norm", record->qkv_grad_norm);
    for (size_t i = 0; i < more_count; i++)
        json_line_numbers(line, more[i].name, more[i].values, record->heads);
}

static void place(struct json_line *line, const char *key, long value)
{
    if (value < 0)
        json_line_null(line, key);
    else
        json_line_whole(line, key, value);
}

void event_write(struct json_line *line, const struct event *event)
{
    json_line_whole(line, "step", (int64_t)event->step);
    json_line_text(line, "kind", event_kind_name(event->kind));
    json_line_text(line, "severity", severity_name(event->severity));
    place(line, "layer", event->layer);
    place(line, "head", event->head);
    json_line_number(line, "value", event->value);
    json_line_number(line, "threshold", event->threshold);
    json_line_text(line, "message", event->message);
    if (event->since > 0)
        json_line_whole(line, "since", (int64_t)event->since);
    if (event->predicted > 0)
        json_line_whole(line, "predicted_step", (int64_t)event->predicted);
    if (event->advice[0])
        json_line_text(line, "advice", event->advice);
    json_line_time(line, "time");
}
