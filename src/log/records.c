/* One function a kind of record: appended to its file, and given to the sinks. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/log/files.h"
#include "src/record/write.h"

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
    metrics_record_write(&line, record);
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
    norm_record_write(&line, record, more, more_count);
    bool logged = append(log, RUN_LOG_NORMS, &line, error);
    return run_log_sinks_norms(&log->sinks, record, logged ? error : &(struct error){0}) && logged;
}

bool run_log_event(struct run_log *log, const struct event *event, struct error *error)
{
    struct json_line line;
    json_line_begin(&line);
    event_write(&line, event);
    run_log_sinks_event(&log->sinks, event);
    return append(log, RUN_LOG_EVENTS, &line, error);
}
