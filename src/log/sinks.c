/* TensorBoard and Prometheus beside the log: a sink that fails is said once and costs nothing else. */
#include "src/log/sinks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/files/file_output.h"
#include "src/log/tensorboard.h"

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Tries the file itself, so that a wrong path ends the start and not the first logged step. */
static bool open_prometheus(struct run_log_sinks *sinks, const char *path, struct error *error)
{
    sinks->prometheus = strdup(path);
    if (!sinks->prometheus)
        return error_runtime(error, "%s: out of memory", path);
    return prometheus_write(path, sinks->run, &sinks->newest, sinks->event_counts, error) ||
           error_prefix(error, "log.prometheus");
}

bool run_log_sinks_open(struct run_log_sinks *sinks, const char *directory, const struct run_log_options *options,
                        struct error *error)
{
    *sinks = (struct run_log_sinks){0};
    file_last_part(sinks->run, sizeof sinks->run, directory);
    if (options->tensorboard && (!(sinks->tensorboard = file_path(directory, "tensorboard")) ||
                                 !file_make_directories(sinks->tensorboard, error)))
        return sinks->tensorboard || error_runtime(error, "%s: out of memory", directory);
    return !options->prometheus || !options->prometheus[0] || open_prometheus(sinks, options->prometheus, error);
}

void run_log_sinks_close(struct run_log_sinks *sinks)
{
    event_file_close(sinks->events);
    free(sinks->tensorboard);
    log_newest_close(&sinks->newest);
    free(sinks->prometheus);
    *sinks = (struct run_log_sinks){0};
}

void run_log_sinks_rewind(struct run_log_sinks *sinks, uint64_t step)
{
    event_file_close(sinks->events);
    sinks->events = NULL;
    sinks->purge_step = step + 1;
    if (sinks->prometheus)
        log_newest_forget(&sinks->newest);
}

/* false only for the first failure. */
static bool report(bool ok, bool *failed)
{
    bool said = *failed;
    *failed = said || !ok;
    return ok || said;
}

static bool open_events(struct run_log_sinks *sinks, struct error *error)
{
    if (sinks->events)
        return true;
    char *path = event_file_path(sinks->tensorboard);
    bool ok = path ? event_file_open(&sinks->events, path, sinks->purge_step, error)
                   : error_runtime(error, "%s: out of memory", sinks->tensorboard);
    free(path);
    return ok;
}

bool run_log_sinks_metrics(struct run_log_sinks *sinks, const struct metrics_record *record, struct error *error)
{
    bool shown = true, written = true;
    struct metrics_record metrics = *record;
    metrics.time = now_s();
    if (sinks->tensorboard)
        shown = report(open_events(sinks, error) && tensorboard_metrics(sinks->events, &metrics, error),
                       &sinks->tensorboard_failed);
    if (sinks->prometheus) {
        log_newest_metrics(&sinks->newest, &metrics);
        struct error own;
        written = report(prometheus_write(sinks->prometheus, sinks->run, &sinks->newest, sinks->event_counts, &own),
                         &sinks->prometheus_failed);
        if (!written && shown)
            *error = own;
    }
    return shown && written;
}

bool run_log_sinks_norms(struct run_log_sinks *sinks, const struct norm_record *record, struct error *error)
{
    struct newest_layer *layer;
    if (sinks->prometheus && !log_newest_norms(&sinks->newest, record, &layer, error))
        return false;
    return !sinks->tensorboard ||
           report(open_events(sinks, error) && tensorboard_norms(sinks->events, record, now_s(), error),
                  &sinks->tensorboard_failed);
}

void run_log_sinks_event(struct run_log_sinks *sinks, const struct event *event)
{
    if (event->severity >= SEVERITY_INFO)
        sinks->event_counts[event->severity - SEVERITY_INFO]++;
}
