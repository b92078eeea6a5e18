/* One function a kind of record; docs/logs.md says what the fields mean. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/json_line.h"
#include "src/metric.h"
#include "src/norm_lists.h"
#include "src/run_log_files.h"

/* Where the disk is full a part of a line may have been written: it is cut off again, so that a later line starts
 * on its own. */
static bool append(struct run_log *log, enum run_log_file which, struct json_line *line, struct error *error)
{
    int file = log->files[which];
    struct stat before;
    ssize_t written = -1;
    if (json_line_end(line) && fstat(file, &before) == 0) {
        do
            written = write(file, line->text, line->bytes);
        while (written < 0 && errno == EINTR);
        if (written >= 0 && (size_t)written < line->bytes)
            errno = ftruncate(file, before.st_size) == 0 ? ENOSPC : errno;
    } else {
        errno = ENOMEM;
    }
    int problem = errno;
    size_t bytes = line->bytes;
    bool ok = written >= 0 && (size_t)written == bytes;
    json_line_free(line);
    if (!ok)
        return error_runtime(error, "%s: cannot be written: %s", log->paths[which], strerror(problem));
    bool full = which == RUN_LOG_NORMS && log->options.segment_mib > 0 &&
                (double)before.st_size + (double)bytes >= 0x1p20 * log->options.segment_mib;
    return !full || run_log_rotate(log, error);
}

bool run_log_metrics(struct run_log *log, const struct metrics_record *record, struct error *error)
{
    struct json_line line;
    json_line_begin(&line);
    json_line_whole(&line, "step", (int64_t)record->step);
    if (record->split[0])
        json_line_text(&line, "split", record->split);
    for (const struct metric *metric = metrics_of(record); metric->name; metric++) {
        double value = metric_value(record, metric);
        if (metric->whole)
            json_line_whole(&line, metric->name, (int64_t)value);
        else
            json_line_number(&line, metric->name, value);
    }
    for (size_t i = 0; i < record->more_count; i++)
        json_line_number(&line, record->more[i].name, *record->more[i].values);
    json_line_time(&line, "time");
    bool logged = append(log, RUN_LOG_METRICS, &line, error);
    return run_log_sinks_metrics(&log->sinks, record, logged ? error : &(struct error){0}) && logged;
}

bool run_log_norms(struct run_log *log, const struct norm_record *record, struct error *error)
{
    return run_log_norms_and(log, record, NULL, 0, error);
}

bool run_log_norms_and(struct run_log *log, const struct norm_record *record, const struct log_field_of_run *more,
                       size_t more_count, struct error *error)
{
    struct json_line line;
    json_line_begin(&line);
    json_line_whole(&line, "step", (int64_t)record->step);
    json_line_whole(&line, "layer", (int64_t)record->layer);
    for (size_t i = 0; i < NORM_LISTS; i++)
        json_line_numbers(&line, norm_lists[i].name, norm_record_list(record, i), record->heads);
    json_line_number(&line, "qkv_grad_norm", record->qkv_grad_norm);
    for (size_t i = 0; i < more_count; i++)
        json_line_numbers(&line, more[i].name, more[i].values, record->heads);
    bool logged = append(log, RUN_LOG_NORMS, &line, error);
    return run_log_sinks_norms(&log->sinks, record, logged ? error : &(struct error){0}) && logged;
}

static void place(struct json_line *line, const char *key, long value)
{
    if (value < 0)
        json_line_null(line, key);
    else
        json_line_whole(line, key, value);
}

bool run_log_event(struct run_log *log, const struct event *event, struct error *error)
{
    struct json_line line;
    json_line_begin(&line);
    json_line_whole(&line, "step", (int64_t)event->step);
    json_line_text(&line, "kind", event_kind_name(event->kind));
    json_line_text(&line, "severity", severity_name(event->severity));
    place(&line, "layer", event->layer);
    place(&line, "head", event->head);
    json_line_number(&line, "value", event->value);
    json_line_number(&line, "threshold", event->threshold);
    json_line_text(&line, "message", event->message);
    if (event->since > 0)
        json_line_whole(&line, "since", (int64_t)event->since);
    if (event->predicted > 0)
        json_line_whole(&line, "predicted_step", (int64_t)event->predicted);
    if (event->advice[0])
        json_line_text(&line, "advice", event->advice);
    json_line_time(&line, "time");
    run_log_sinks_event(&log->sinks, event);
    return append(log, RUN_LOG_EVENTS, &line, error);
}
