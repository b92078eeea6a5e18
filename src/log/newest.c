/* The newest of what a run logs. */
#include "src/log/newest.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/record/metric.h"

const char *const newest_statistic_names[NEWEST_STATISTICS] = {
    "q_norm_mean", "q_norm_max", "k_norm_mean", "k_norm_max", "logit_max", "entropy_mean", "entropy_min",
};
const enum norms_merge newest_statistic_merges[NEWEST_STATISTICS] = {
    NORMS_MEAN, NORMS_MAXIMUM, NORMS_MEAN, NORMS_MAXIMUM, NORMS_MAXIMUM, NORMS_MEAN, NORMS_MINIMUM,
};

void log_newest_close(struct log_newest *newest)
{
    for (size_t i = 0; i < newest->layer_count; i++)
        free(newest->layers[i].values);
    free(newest->layers);
    *newest = (struct log_newest){0};
}

void log_newest_forget(struct log_newest *newest)
{
    newest->step = 0;
    newest->evaluation.step = 0;
    for (size_t i = 0; i < newest->layer_count; i++)
        newest->layers[i].forgotten = true;
}

bool log_newest_metrics(struct log_newest *newest, const struct metrics_record *record)
{
    bool evaluation = record->split[0] != '\0';
    if (evaluation && !metrics_are_of_average(record) && record->step > newest->evaluation.step)
        newest->evaluation = *record;
    if (evaluation || record->step <= newest->step)
        return false;
    newest->step = record->step;
    newest->metrics = *record;
    return true;
}

static bool layer_of(struct log_newest *newest, const struct norm_record *record, struct newest_layer **layer,
                     struct error *error)
{
    if (record->layer >= newest->layer_count) {
        size_t count = record->layer + 1;
        struct newest_layer *layers = realloc(newest->layers, count * sizeof *layers);
        if (!layers)
            return error_runtime(error, "out of memory for layer %zu", record->layer);
        memset(layers + newest->layer_count, 0, (count - newest->layer_count) * sizeof *layers);
        newest->layers = layers;
        newest->layer_count = count;
    }
    *layer = &newest->layers[record->layer];
    if ((*layer)->heads > 0)
        return true;
    (*layer)->values = calloc(NEWEST_STATISTICS * record->heads + 1, sizeof *(*layer)->values);
    if (!(*layer)->values)
        return error_runtime(error, "out of memory for a layer of %zu heads", record->heads);
    (*layer)->heads = record->heads;
    (*layer)->forgotten = true;
    return true;
}

static float finite_or_nan(double value)
{
    return isfinite(value) ? (float)value : NAN;
}

bool log_newest_norms(struct log_newest *newest, const struct norm_record *record, struct newest_layer **layer,
                      struct error *error)
{
    struct newest_layer *at = NULL;
    *layer = NULL;
    if (!layer_of(newest, record, &at, error))
        return false;
    if (record->heads != at->heads || (!at->forgotten && record->step <= at->step))
        return true;
    const double *lists[NEWEST_STATISTICS] = {record->q_norm_mean, record->q_norm_max, record->k_norm_mean,
                                              record->k_norm_max,  record->logit_max,  record->entropy_mean,
                                              record->entropy_min};
    for (size_t i = 0; i < NEWEST_STATISTICS; i++)
        for (size_t head = 0; head < at->heads; head++)
            at->values[i * at->heads + head] = lists[i] ? finite_or_nan(lists[i][head]) : NAN;
    at->values[NEWEST_STATISTICS * at->heads] = finite_or_nan(record->qkv_grad_norm);
    at->step = record->step;
    at->forgotten = false;
    *layer = at;
    return true;
}
