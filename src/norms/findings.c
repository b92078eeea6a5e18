/* A log goes through the rules line by line; what they raise is kept, sorted and summed up. */
#include "src/norms/findings.h"

#include <stdlib.h>
#include <string.h>

#include "src/config/schema.h"
#include "src/record/read.h"

enum { EVENTS_MAX = 20000 };

static void keep(void *owner, const struct event *event)
{
    struct norms_findings *findings = owner;
    if (findings->count == EVENTS_MAX) {
        findings->dropped++;
        return;
    }
    if (findings->count == findings->capacity) {
        size_t capacity = findings->capacity ? 2 * findings->capacity : 64;
        struct event *events = realloc(findings->events, capacity * sizeof *events);
        if (!events) {
            findings->out_of_memory = true;
            return;
        }
        findings->events = events;
        findings->capacity = capacity;
    }
    findings->events[findings->count++] = *event;
}

/* As the run's config.yaml gives it; the default where it does not, or not as a configuration may. */
static double limit_of(const struct norms_run *run, const char *path)
{
    struct config config;
    struct error error;
    double limit;
    const struct config_key *key = &config_keys[config_key_find(&config_schema, path)];
    const char *text = norms_run_setting(run, path);
    if (!text || !config_value_set(&config, key, text, false, &error))
        config_value_set(&config, key, key->initial, false, &error);
    memcpy(&limit, (const char *)&config + key->offset, sizeof limit);
    return limit;
}

bool norms_findings_open(struct norms_findings *findings, const struct norms_run *run, struct error *error)
{
    *findings = (struct norms_findings){0};
    struct diagnosis_options options = diagnosis_defaults();
    options.kind = run->kind;
    options.tokens = run->tokens;
    diagnosis_set_limits(&options, &(struct diagnosis_limits){
                                       .horizon_steps = limit_of(run, "diagnosis.horizon_steps"),
                                       .logit_critical = limit_of(run, "diagnosis.logit_critical"),
                                       .entropy_critical = limit_of(run, "diagnosis.entropy_critical"),
                                       .key_outlier = limit_of(run, "diagnosis.key_outlier"),
                                       .spike_z = limit_of(run, "diagnosis.spike_z"),
                                   });
    return diagnosis_open(&findings->diagnosis, &options, keep, findings, error);
}

void norms_findings_close(struct norms_findings *findings)
{
    diagnosis_close(findings->diagnosis);
    free(findings->events);
    *findings = (struct norms_findings){0};
}

void norms_findings_metrics(struct norms_findings *findings, const struct metrics_record *metrics)
{
    if (metrics->split[0])
        return;
    findings->steps++;
    findings->newest_step = metrics->step > findings->newest_step ? metrics->step : findings->newest_step;
    if (metrics->complete)
        diagnosis_step(findings->diagnosis, metrics->step, metrics->loss, metrics->grad_norm);
}

bool norms_findings_record(struct norms_findings *findings, const struct norm_record *record, struct error *error)
{
    findings->newest_step = record->step > findings->newest_step ? record->step : findings->newest_step;
    if (!diagnosis_norms(findings->diagnosis, record, error))
        return false;
    return !findings->out_of_memory || error_runtime(error, "out of memory for the events");
}

void norms_findings_event(struct norms_findings *findings, const struct event *event)
{
    if (event->kind != EVENT_RANK_SKEW && event->kind != EVENT_NONFINITE)
        return;
    struct event copy = *event;
    copy.predicted = 0;
    copy.advice[0] = '\0';
    for (size_t i = 0; i < findings->count; i++) {
        struct event *old = &findings->events[i];
        if (old->kind == copy.kind && old->step == copy.step && (old->layer == copy.layer || old->layer < 0)) {
            *old = copy; /* the trainer saw the same and knows more: the tensor's name */
            return;
        }
    }
    keep(findings, &copy);
}

static int by_step(const void *a, const void *b)
{
    const struct event *first = a, *second = b;
    if (first->step != second->step)
        return first->step < second->step ? -1 : 1;
    if (first->severity != second->severity)
        return first->severity > second->severity ? -1 : 1;
    return first->kind != second->kind ? (first->kind < second->kind ? -1 : 1)
                                       : (first->layer > second->layer) - (first->layer < second->layer);
}

void norms_findings_sort(struct norms_findings *findings)
{
    if (findings->count > 1)
        qsort(findings->events, findings->count, sizeof *findings->events, by_step);
}

static bool take_record(struct norms_findings *findings, struct norms_series *series, const struct norm_record *record,
                        struct error *error)
{
    return (!series || norms_series_record(series, record, error)) && norms_findings_record(findings, record, error);
}

static bool take_line(struct norms_findings *findings, struct norms_series *series, struct norms_run *run,
                      struct log_reader *reader, struct error *error)
{
    struct metrics_record metrics;
    struct norm_record record;
    struct event event;
    if (reader == &run->metrics && metrics_record_read(&metrics, &reader->line)) {
        norms_findings_metrics(findings, &metrics);
        if (series)
            norms_series_metrics(series, &metrics);
    } else if (reader == &run->norms && norm_record_read(&record, &reader->line)) {
        return take_record(findings, series, &record, error);
    } else if (reader == &run->events && event_read(&event, &reader->line)) {
        norms_findings_event(findings, &event);
    } else {
        reader->damaged++;
    }
    return true;
}

bool norms_findings_read(struct norms_findings *findings, struct norms_run *run, struct norms_series *series,
                         bool *restarted, struct error *error)
{
    struct log_reader *readers[] = {&run->metrics, &run->norms, &run->events};
    for (size_t i = 0; i < 3; i++) {
        enum log_reader_result result;
        while ((result = log_reader_next(readers[i], error)) == LOG_READER_LINE)
            if (!take_line(findings, series, run, readers[i], error))
                return false;
        if (result == LOG_READER_FAILED)
            return false;
        if (result == LOG_READER_RESTARTED && restarted)
            *restarted = true;
    }
    return true;
}

enum severity norms_findings_worst(const struct norms_findings *findings)
{
    enum severity worst = SEVERITY_HEALTHY;
    for (size_t i = 0; i < findings->count; i++)
        if (findings->events[i].severity > worst)
            worst = findings->events[i].severity;
    return worst;
}
