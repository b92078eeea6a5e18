/* One function a kind of record; docs/logs.md says what the fields mean. */
#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/json_line.h"
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

bool run_log_step(struct run_log *log, const struct step_metrics *metrics, struct error *error)
{
    struct json_line line;
    json_line_begin(&line);
    json_line_whole(&line, "step", (int64_t)metrics->step);
    json_line_number(&line, "epoch", metrics->epoch);
    json_line_number(&line, "loss", metrics->loss);
    json_line_number(&line, "top1", metrics->top1);
    json_line_number(&line, "lr", metrics->lr);
    json_line_number(&line, "grad_norm", metrics->grad_norm);
    json_line_number(&line, "images_per_s", metrics->images_per_s);
    json_line_number(&line, "step_time_s", metrics->step_time_s);
    json_line_number(&line, "data_wait_s", metrics->data_wait_s);
    json_line_number(&line, "comm_wait_s", metrics->comm_wait_s);
    json_line_number(&line, "mfu", metrics->mfu > 0 ? metrics->mfu : NAN);
    json_line_whole(&line, "skipped_images", (int64_t)metrics->skipped_images);
    json_line_whole(&line, "skipped_updates", (int64_t)metrics->skipped_updates);
    for (size_t i = 0; i < metrics->more_count; i++)
        json_line_number(&line, metrics->more[i].name, *metrics->more[i].values);
    json_line_time(&line, "time");
    bool logged = append(log, RUN_LOG_METRICS, &line, error);
    struct norms_metrics numbers = {.step = metrics->step,
                                    .epoch = metrics->epoch,
                                    .loss = metrics->loss,
                                    .lr = metrics->lr,
                                    .grad_norm = metrics->grad_norm,
                                    .top1 = metrics->top1,
                                    .images_per_s = metrics->images_per_s,
                                    .step_time_s = metrics->step_time_s,
                                    .data_wait_s = metrics->data_wait_s,
                                    .comm_wait_s = metrics->comm_wait_s,
                                    .mfu = metrics->mfu > 0 ? metrics->mfu : NAN,
                                    .skipped_images = (double)metrics->skipped_images};
    return run_log_sinks_metrics(&log->sinks, &numbers, logged ? error : &(struct error){0}) && logged;
}

bool run_log_evaluation(struct run_log *log, const struct evaluation_metrics *metrics, struct error *error)
{
    struct json_line line;
    json_line_begin(&line);
    json_line_whole(&line, "step", (int64_t)metrics->step);
    json_line_text(&line, "split", metrics->split);
    json_line_number(&line, "epoch", metrics->epoch);
    json_line_number(&line, "top1", metrics->top1);
    json_line_number(&line, "top5", metrics->top5);
    json_line_number(&line, "loss", metrics->loss);
    json_line_whole(&line, "images", (int64_t)metrics->images);
    json_line_whole(&line, "skipped_images", (int64_t)metrics->skipped_images);
    json_line_number(&line, "seconds", metrics->seconds);
    json_line_time(&line, "time");
    bool logged = append(log, RUN_LOG_METRICS, &line, error);
    struct norms_metrics numbers = {
        .step = metrics->step, .evaluation = true, .top1 = metrics->top1, .top5 = metrics->top5, .loss = metrics->loss};
    return run_log_sinks_metrics(&log->sinks, &numbers, logged ? error : &(struct error){0}) && logged;
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
    json_line_text(&line, "kind", event->kind);
    json_line_text(&line, "severity", event->severity);
    place(&line, "layer", event->layer);
    place(&line, "head", event->head);
    json_line_number(&line, "value", event->value);
    json_line_number(&line, "threshold", event->threshold);
    json_line_text(&line, "message", event->message);
    if (event->since > 0)
        json_line_whole(&line, "since", (int64_t)event->since);
    if (event->predicted_step > 0)
        json_line_whole(&line, "predicted_step", (int64_t)event->predicted_step);
    if (event->advice)
        json_line_text(&line, "advice", event->advice);
    json_line_time(&line, "time");
    run_log_sinks_event(&log->sinks, event);
    return append(log, RUN_LOG_EVENTS, &line, error);
}
