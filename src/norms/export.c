/* quest-norms export: the whole log as CSV or as TensorBoard's event file, or the newest numbers for Prometheus'
 * textfile collector. */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/base/command_line.h"
#include "src/files/file_output.h"
#include "src/log/prometheus.h"
#include "src/log/tensorboard.h"
#include "src/norms/norms.h"
#include "src/norms/reading.h"
#include "src/record/metric.h"
#include "src/record/norm_lists.h"
#include "src/record/read.h"

typedef unsigned long long ull;

/* ---- CSV: one row a logged step (layer and head empty), then one a step, layer and head ---- */

static void put_csv(FILE *out, double value)
{
    if (isfinite(value))
        fprintf(out, ",%.9g", value);
    else
        putc(',', out);
}

static void put_csv_head(FILE *out, const struct norm_record *record, size_t head)
{
    fprintf(out, "%llu,%zu,%zu,,,,", (ull)record->step, record->layer, head);
    for (size_t i = 0; i < NORM_LISTS; i++) {
        const double *values = norm_record_list(record, i);
        put_csv(out, values ? values[head] : NAN);
    }
    put_csv(out, record->qkv_grad_norm);
    putc('\n', out);
}

static void put_csv_metrics(FILE *out, const struct metrics_record *metrics)
{
    const double values[] = {metrics->loss, metrics->grad_norm, metrics->lr, metrics->images_per_s};
    if (metrics->split[0])
        return;
    fprintf(out, "%llu,,", (ull)metrics->step);
    for (size_t i = 0; i < 4; i++)
        put_csv(out, values[i]);
    fputs(",,,,,,,,,,,,\n", out);
}

static bool put_csv_log(FILE *out, struct log_reader *reader, bool of_norms, struct error *error)
{
    enum log_reader_result result;
    struct metrics_record metrics;
    struct norm_record record;
    while ((result = log_reader_next(reader, error)) == LOG_READER_LINE) {
        bool ok = of_norms ? norm_record_read(&record, &reader->line) : metrics_record_read(&metrics, &reader->line);
        if (ok && !of_norms)
            put_csv_metrics(out, &metrics);
        for (size_t head = 0; ok && of_norms && head < record.heads; head++)
            put_csv_head(out, &record, head);
        reader->damaged += !ok;
    }
    return result != LOG_READER_FAILED;
}

static bool export_csv(const struct norms_arguments *arguments, struct error *error)
{
    struct norms_run run;
    struct file_output output;
    bool ok = norms_run_open(&run, arguments->runs[0], error) && file_output_open(&output, arguments->csv, error);
    if (ok) {
        fputs("step,layer,head,loss,grad_norm,lr,images_per_s,q_norm_mean,q_norm_std,q_norm_min,q_norm_max,k_norm_mean,"
              "k_norm_std,k_norm_min,k_norm_max,logit_max,entropy_mean,entropy_min,qkv_grad_norm\n",
              output.file);
        ok = put_csv_log(output.file, &run.metrics, false, error) && put_csv_log(output.file, &run.norms, true, error);
        ok = file_output_close(&output, ok, error);
        norms_run_warn(&run);
    }
    norms_run_close(&run);
    return ok;
}

/* ---- Prometheus ---- */

static bool export_prometheus(const struct norms_arguments *arguments, struct error *error)
{
    struct norms_reading *reading;
    bool ok = norms_readings_open(&reading, arguments->runs, 1, error);
    if (ok) {
        uint64_t events[PROMETHEUS_SEVERITIES] = {0};
        for (size_t i = 0; i < reading->findings.count; i++)
            events[reading->findings.events[i].severity - SEVERITY_INFO]++;
        ok = prometheus_write(arguments->prometheus, reading->run.name, &reading->series.newest, events, error);
    }
    norms_readings_close(reading, 1);
    return ok;
}

/* ---- TensorBoard ---- */

/* Records are read as far as the metrics of their step, which say when they were logged. */
struct board {
    struct norms_run run;
    struct event_file *file;
    uint64_t step, evaluation_step, average_step, norms_step; /* the newest that were written */
    size_t norms_layer;
    double time;
};

/* A log that repeats steps (a resume without a cut) is shown once. */
static bool is_new_record(struct board *board, const struct norm_record *record)
{
    if (record->step < board->norms_step ||
        (record->step == board->norms_step && record->layer <= board->norms_layer && board->norms_step > 0))
        return false;
    board->norms_step = record->step;
    board->norms_layer = record->layer;
    return true;
}

/* The records up to `step`; the first one after it is kept in the reader's line. */
static bool put_board_norms(struct board *board, uint64_t step, bool *pending, struct error *error)
{
    struct log_reader *reader = &board->run.norms;
    struct norm_record record;
    for (;;) {
        if (!*pending) {
            enum log_reader_result result = log_reader_next(reader, error);
            if (result != LOG_READER_LINE)
                return result != LOG_READER_FAILED;
        }
        *pending = norm_record_read(&record, &reader->line);
        if (*pending && record.step > step)
            return true;
        if (*pending && is_new_record(board, &record) && !tensorboard_norms(board->file, &record, board->time, error))
            return false;
        reader->damaged += !*pending;
        *pending = false;
    }
}

static bool put_board(struct board *board, struct error *error)
{
    struct log_reader *reader = &board->run.metrics;
    struct metrics_record metrics;
    enum log_reader_result result;
    bool pending = false;
    board->time = (double)time(NULL);
    while ((result = log_reader_next(reader, error)) == LOG_READER_LINE) {
        if (!metrics_record_read(&metrics, &reader->line)) {
            reader->damaged++;
            continue;
        }
        uint64_t *newest = metrics_are_of_average(&metrics) ? &board->average_step
                           : metrics.split[0]               ? &board->evaluation_step
                                                            : &board->step;
        if (metrics.step <= *newest)
            continue;
        *newest = metrics.step;
        metrics.time = board->time = isfinite(metrics.time) ? metrics.time : board->time;
        if (!put_board_norms(board, metrics.step, &pending, error) ||
            !tensorboard_metrics(board->file, &metrics, error))
            return false;
    }
    return result != LOG_READER_FAILED && put_board_norms(board, UINT64_MAX, &pending, error);
}

/* Another writer's files beside ours would show every step twice. */
static bool refuse_others(const char *directory, const char *own, struct error *error)
{
    char other[256] = "";
    DIR *listing = opendir(directory);
    for (struct dirent *entry; listing && (entry = readdir(listing));)
        if (strstr(entry->d_name, "tfevents") && strcmp(entry->d_name, own) != 0)
            snprintf(other, sizeof other, "%s", entry->d_name);
    if (listing)
        closedir(listing);
    return !other[0] ||
           error_input(error, "--tensorboard: %s holds %s already; name another directory", directory, other);
}

/* The name is always the same, so that a second export takes the place of the first. */
static bool export_tensorboard(const struct norms_arguments *arguments, struct error *error)
{
    static const char name[] = EVENT_FILE_PREFIX "0000000000.quest-norms";
    const char *directory = arguments->tensorboard;
    struct board board = {0};
    char *path = file_path(directory, name), *temporary = file_path(directory, ".quest-norms.new");
    bool ok = path && temporary ? norms_run_open(&board.run, arguments->runs[0], error)
                                : error_runtime(error, "%s: out of memory", directory);
    ok = ok && file_make_directories(directory, error) && refuse_others(directory, name, error) &&
         event_file_open(&board.file, temporary, 0, error);
    if (ok) {
        ok = put_board(&board, error);
        if (ok && rename(temporary, path) != 0)
            ok = error_runtime(error, "%s: cannot be written: %s", path, strerror(errno));
        if (!ok)
            unlink(temporary);
        norms_run_warn(&board.run);
    }
    event_file_close(board.file);
    norms_run_close(&board.run);
    free(temporary);
    free(path);
    return ok;
}

int norms_export(const void *from)
{
    const struct norms_arguments *arguments = from;
    struct error error;
    bool ok = arguments->csv || arguments->prometheus || arguments->tensorboard ||
              error_input(&error, "nothing to write: give --csv FILE, --prometheus FILE or --tensorboard DIR");
    ok = ok && (!arguments->csv || export_csv(arguments, &error));
    ok = ok && (!arguments->prometheus || export_prometheus(arguments, &error));
    ok = ok && (!arguments->tensorboard || export_tensorboard(arguments, &error));
    return ok ? 0 : command_line_fail(&error);
}
