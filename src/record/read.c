/* Lines of a log back to records: whatever a line holds, what comes out is in its range. */
#include "src/record/read.h"

#include <math.h>
#include <stdio.h>

#include "src/record/metric.h"
#include "src/record/norm_lists.h"

enum { LAYERS_MAX = 4096, HEADS_MAX = 4096 };

/* A whole number from 0 to `most`. */
static bool whole(const struct log_line *line, const char *key, double most, uint64_t *value)
{
    double number = log_line_number(line, key);
    if (!(number >= 0) || number > most || number != floor(number))
        return false;
    *value = (uint64_t)number;
    return true;
}

static void read_metrics(struct metrics_record *record, const struct metric *metrics, const struct log_line *line)
{
    for (const struct metric *metric = metrics; metric->name; metric++)
        metric_set(record, metric, log_line_number(line, metric->name));
}

bool metrics_record_read(struct metrics_record *record, const struct log_line *line)
{
    const char *split = log_line_text(line, "split");
    *record = (struct metrics_record){
        .complete = log_line_has(line, "loss") && log_line_has(line, "grad_norm"),
        .time = log_line_number(line, "time"),
    };
    if (split)
        snprintf(record->split, sizeof record->split, "%s", split[0] ? split : "?");
    read_metrics(record, step_metrics, line);
    read_metrics(record, evaluation_metrics, line);
    return whole(line, "step", 0x1p53, &record->step);
}

static const double *list(const struct log_line *line, const char *key, size_t *heads)
{
    size_t count = 0;
    const double *values = log_line_list(line, key, &count);
    if (!values || count == 0 || count > HEADS_MAX)
        return NULL;
    if (*heads == 0)
        *heads = count;
    return count == *heads ? values : NULL;
}

bool norm_record_read(struct norm_record *record, const struct log_line *line)
{
    uint64_t layer;
    *record = (struct norm_record){0};
    if (!whole(line, "step", 0x1p53, &record->step) || !whole(line, "layer", LAYERS_MAX - 1, &layer))
        return false;
    record->layer = (size_t)layer;
    (void)list(line, "logit_max", &record->heads); /* where lists disagree about the heads, this one counts */
    for (size_t i = 0; i < NORM_LISTS; i++)
        norm_record_set_list(record, i, list(line, norm_lists[i].name, &record->heads));
    record->qkv_grad_norm = log_line_number(line, "qkv_grad_norm");
    return record->heads > 0;
}

static long place(const struct log_line *line, const char *key)
{
    uint64_t value;
    return whole(line, key, 1e9, &value) ? (long)value : -1;
}

bool event_read(struct event *event, const struct log_line *line)
{
    const char *kind = log_line_text(line, "kind"), *severity = log_line_text(line, "severity");
    const char *message = log_line_text(line, "message"), *advice = log_line_text(line, "advice");
    *event = (struct event){
        .kind = kind ? event_kind_from_name(kind) : EVENT_OTHER,
        .severity = severity ? severity_from_name(severity) : SEVERITY_INFO,
        .layer = place(line, "layer"),
        .head = place(line, "head"),
        .rank = -1,
        .value = log_line_number(line, "value"),
        .threshold = log_line_number(line, "threshold"),
    };
    if (!whole(line, "step", 0x1p53, &event->step) || !kind)
        return false;
    if (!whole(line, "since", 0x1p53, &event->since))
        event->since = event->step;
    (void)whole(line, "predicted_step", 0x1p53, &event->predicted);
    snprintf(event->message, sizeof event->message, "%s", message ? message : "");
    snprintf(event->advice, sizeof event->advice, "%s", advice ? advice : "");
    return true;
}
