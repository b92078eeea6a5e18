/* Which numbers of a run become which tags. */
#include "src/log/tensorboard.h"

#include <math.h>
#include <stdio.h>

#include "src/record/metric.h"
#include "src/record/norm_lists.h"

bool tensorboard_metrics(struct event_file *file, const struct metrics_record *record, struct error *error)
{
    char tag[64];
    for (const struct metric *metric = metrics_of(record); metric->name; metric++) {
        if (!metric->tag)
            continue;
        snprintf(tag, sizeof tag, "%s%s", metric->tag, metrics_are_of_average(record) ? "_ema" : "");
        event_file_scalar(file, tag, metric_value(record, metric));
    }
    return event_file_write(file, record->step, record->time, error);
}

static double over_heads(const double *values, size_t heads, enum norms_merge merge)
{
    double sum = 0, low = INFINITY, high = -INFINITY;
    size_t known = 0;
    for (size_t i = 0; i < heads; i++) {
        if (!isfinite(values[i]))
            continue;
        sum += values[i];
        low = fmin(low, values[i]);
        high = fmax(high, values[i]);
        known++;
    }
    if (known == 0)
        return NAN;
    return merge == NORMS_MAXIMUM ? high : merge == NORMS_MINIMUM ? low : sum / (double)known;
}

bool tensorboard_norms(struct event_file *file, const struct norm_record *record, double time, struct error *error)
{
    char tag[64];
    for (size_t i = 0; i < NORM_LISTS; i++) {
        const double *values = norm_record_list(record, i);
        if (!values)
            continue;
        snprintf(tag, sizeof tag, "%s/layer_%02zu", norm_lists[i].name, record->layer);
        event_file_scalar(file, tag, over_heads(values, record->heads, norm_lists[i].merge));
        snprintf(tag, sizeof tag, "heads_%s/layer_%02zu", norm_lists[i].name, record->layer);
        event_file_histogram(file, tag, values, record->heads);
    }
    snprintf(tag, sizeof tag, "qkv_grad_norm/layer_%02zu", record->layer);
    event_file_scalar(file, tag, record->qkv_grad_norm);
    return event_file_write(file, record->step, time, error);
}
