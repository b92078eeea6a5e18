/* Curves of bounded length from logs of any length. */
#include "src/norms/series.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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
    }
    free(series->layers);
    norms_buckets_close(&series->metrics);
    log_newest_close(&series->newest);
    *series = (struct norms_series){0};
}

void norms_series_metrics(struct norms_series *series, const struct metrics_record *metrics)
{
    if (!log_newest_metrics(&series->newest, metrics))
        return;
    const double values[METRICS_COLUMNS] = {metrics->loss, metrics->grad_norm, metrics->lr, metrics->images_per_s};
    float row[METRICS_COLUMNS];
    for (size_t i = 0; i < METRICS_COLUMNS; i++)
        row[i] = isfinite(values[i]) ? (float)values[i] : NAN;
    norms_buckets_add(&series->metrics, metrics->step, row);
}

static bool open_layer(struct norms_layer *layer, size_t heads, struct error *error)
{
    size_t columns = NEWEST_STATISTICS * heads + 1;
    layer->merges = calloc(columns, sizeof *layer->merges);
    if (!layer->merges)
        return error_runtime(error, "out of memory for a layer of %zu heads", heads);
    for (size_t i = 0; i < NEWEST_STATISTICS * heads; i++)
        layer->merges[i] = newest_statistic_merges[i / heads];
    layer->merges[columns - 1] = NORMS_MAXIMUM;
    layer->heads = heads;
    return norms_buckets_open(&layer->buckets, columns, NORMS_POINTS, layer->merges, error);
}

static bool layer_of(struct norms_series *series, size_t index, size_t heads, struct norms_layer **layer,
                     struct error *error)
{
    if (index >= series->layer_count) {
        struct norms_layer *layers = realloc(series->layers, (index + 1) * sizeof *layers);
        if (!layers)
            return error_runtime(error, "out of memory for layer %zu", index);
        memset(layers + series->layer_count, 0, (index + 1 - series->layer_count) * sizeof *layers);
        series->layers = layers;
        series->layer_count = index + 1;
    }
    *layer = &series->layers[index];
    return (*layer)->heads > 0 || open_layer(*layer, heads, error);
}

bool norms_series_record(struct norms_series *series, const struct norm_record *record, struct error *error)
{
    struct newest_layer *newest;
    struct norms_layer *layer = NULL;
    if (!log_newest_norms(&series->newest, record, &newest, error) ||
        (newest && !layer_of(series, record->layer, newest->heads, &layer, error)))
        return false;
    if (!newest)
        return true;
    norms_buckets_add(&layer->buckets, record->step, newest->values);
    series->records++;
    return true;
}
