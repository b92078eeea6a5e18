#include "src/norms_series.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const norms_head_statistics[NORMS_HEAD_STATISTICS] = {
    "q_norm_mean", "q_norm_max", "k_norm_mean", "k_norm_max", "logit_max", "entropy_mean", "entropy_min",
};
static const enum norms_merge head_merges[NORMS_HEAD_STATISTICS] = {
    NORMS_MEAN, NORMS_MAXIMUM, NORMS_MEAN, NORMS_MAXIMUM, NORMS_MAXIMUM, NORMS_MEAN, NORMS_MINIMUM,
};
const char *const norms_metrics_columns[METRICS_COLUMNS] = {"loss", "grad_norm", "lr", "images_per_s"};
static const enum norms_merge metrics_merges[METRICS_COLUMNS] = {NORMS_MEAN, NORMS_MAXIMUM, NORMS_MEAN, NORMS_MEAN};

bool norms_buckets_open(struct norms_buckets *buckets, size_t columns, size_t capacity, const enum norms_merge *merges,
                        struct error *error)
{
    *buckets = (struct norms_buckets){.columns = columns, .capacity = capacity, .stride = 1, .merges = merges};
    buckets->steps = calloc(capacity, sizeof *buckets->steps);
    buckets->values = calloc(capacity * columns, sizeof *buckets->values);
    buckets->known = calloc(columns, sizeof *buckets->known);
    return (buckets->steps && buckets->values && buckets->known) ||
           error_runtime(error, "out of memory for %zu numbers of the log", capacity * columns);
}

void norms_buckets_close(struct norms_buckets *buckets)
{
    free(buckets->steps);
    free(buckets->values);
    free(buckets->known);
    *buckets = (struct norms_buckets){0};
}

/* `weight`: what share of the mean the new number is. */
static float merge(enum norms_merge how, float old, float new, float weight)
{
    if (isnan(old) || isnan(new))
        return isnan(old) ? new : old;
    if (how == NORMS_MEAN)
        return old + (new - old) * weight;
    return (how == NORMS_MAXIMUM) == (new > old) ? new : old;
}

static void halve(struct norms_buckets *buckets)
{
    size_t columns = buckets->columns;
    for (size_t i = 0; 2 * i + 1 < buckets->count; i++) {
        const float *first = buckets->values + 2 * i * columns, *second = first + columns;
        for (size_t j = 0; j < columns; j++)
            buckets->values[i * columns + j] = merge(buckets->merges[j], first[j], second[j], 0.5f);
        buckets->steps[i] = buckets->steps[2 * i + 1];
    }
    buckets->count /= 2;
    buckets->stride *= 2;
}

void norms_buckets_add(struct norms_buckets *buckets, uint64_t step, const float *row)
{
    size_t columns = buckets->columns;
    if (buckets->count == 0 || buckets->filled == buckets->stride) {
        if (buckets->count == buckets->capacity)
            halve(buckets);
        buckets->count++;
        buckets->filled = 0;
        memset(buckets->known, 0, columns * sizeof *buckets->known);
        for (size_t j = 0; j < columns; j++)
            buckets->values[(buckets->count - 1) * columns + j] = NAN;
    }
    float *bucket = buckets->values + (buckets->count - 1) * columns;
    for (size_t j = 0; j < columns; j++) {
        buckets->known[j] += !isnan(row[j]);
        bucket[j] = merge(buckets->merges[j], bucket[j], row[j], 1 / fmaxf(buckets->known[j], 1));
    }
    buckets->steps[buckets->count - 1] = step;
    buckets->filled++;
}

bool norms_series_open(struct norms_series *series, struct error *error)
{
    *series = (struct norms_series){0};
    return norms_buckets_open(&series->metrics, METRICS_COLUMNS, METRICS_POINTS, metrics_merges, error);
}

void norms_series_close(struct norms_series *series)
{
    for (size_t i = 0; i < series->layer_count; i++) {
        norms_buckets_close(&series->layers[i].buckets);
        free(series->layers[i].merges);
        free(series->layers[i].row);
    }
    free(series->layers);
    norms_buckets_close(&series->metrics);
    *series = (struct norms_series){0};
}

void norms_series_forget(struct norms_series *series)
{
    series->newest_step = 0;
    series->evaluation.step = 0;
    for (size_t i = 0; i < series->layer_count; i++)
        series->layers[i].buckets.count = 0;
}

static float finite_or_nan(double value)
{
    return isfinite(value) ? (float)value : NAN;
}

void norms_series_metrics(struct norms_series *series, const struct norms_metrics *metrics)
{
    if (metrics->evaluation && metrics->step > series->evaluation.step)
        series->evaluation = *metrics;
    if (metrics->evaluation || metrics->step <= series->newest_step)
        return;
    series->newest_step = metrics->step;
    series->newest = *metrics;
    const double values[METRICS_COLUMNS] = {metrics->loss, metrics->grad_norm, metrics->lr, metrics->images_per_s};
    float row[METRICS_COLUMNS];
    for (size_t i = 0; i < METRICS_COLUMNS; i++)
        row[i] = finite_or_nan(values[i]);
    norms_buckets_add(&series->metrics, metrics->step, row);
}

static bool open_layer(struct norms_layer *layer, size_t heads, struct error *error)
{
    size_t columns = NORMS_HEAD_STATISTICS * heads + 1;
    layer->merges = calloc(columns, sizeof *layer->merges);
    layer->row = calloc(columns, sizeof *layer->row);
    if (!layer->merges || !layer->row)
        return error_runtime(error, "out of memory for a layer of %zu heads", heads);
    for (size_t i = 0; i < NORMS_HEAD_STATISTICS * heads; i++)
        layer->merges[i] = head_merges[i / heads];
    layer->merges[columns - 1] = NORMS_MAXIMUM;
    layer->heads = heads;
    return norms_buckets_open(&layer->buckets, columns, NORMS_POINTS, layer->merges, error);
}

static bool layer_of(struct norms_series *series, const struct norm_record *record, struct norms_layer **layer,
                     struct error *error)
{
    if (record->layer >= series->layer_count) {
        size_t count = record->layer + 1;
        struct norms_layer *layers = realloc(series->layers, count * sizeof *layers);
        if (!layers)
            return error_runtime(error, "out of memory for layer %zu", record->layer);
        memset(layers + series->layer_count, 0, (count - series->layer_count) * sizeof *layers);
        series->layers = layers;
        series->layer_count = count;
    }
    *layer = &series->layers[record->layer];
    return (*layer)->heads > 0 || open_layer(*layer, record->heads, error);
}

bool norms_series_record(struct norms_series *series, const struct norm_record *record, struct error *error)
{
    struct norms_layer *layer = NULL;
    if (!layer_of(series, record, &layer, error))
        return false;
    if (record->heads != layer->heads || (layer->buckets.count > 0 && record->step <= layer->newest_step))
        return true;
    const double *lists[NORMS_HEAD_STATISTICS] = {record->q_norm_mean, record->q_norm_max, record->k_norm_mean,
                                                  record->k_norm_max,  record->logit_max,  record->entropy_mean,
                                                  record->entropy_min};
    for (size_t i = 0; i < NORMS_HEAD_STATISTICS; i++)
        for (size_t head = 0; head < layer->heads; head++)
            layer->row[i * layer->heads + head] = lists[i] ? finite_or_nan(lists[i][head]) : NAN;
    layer->row[NORMS_HEAD_STATISTICS * layer->heads] = finite_or_nan(record->qkv_grad_norm);
    norms_buckets_add(&layer->buckets, record->step, layer->row);
    layer->newest_step = record->step;
    series->records++;
    return true;
}
