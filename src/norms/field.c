/* Reads one field, of metrics.jsonl or of norms.jsonl, into buckets: whatever a run may have logged under its name. */
#include "src/norms/field.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS_MAX = 4096, HEADS_MAX = 4096 };

/* A field that is not known has no better summary of neighbouring records than the mean. */
static const enum norms_merge merges[HEADS_MAX] = {NORMS_MEAN};

static void add(struct norms_buckets *buckets, double step, const double *values)
{
    float row[HEADS_MAX];
    if (buckets->count > 0 && step <= (double)buckets->steps[buckets->count - 1])
        return;
    for (size_t i = 0; i < buckets->columns; i++)
        row[i] = isfinite(values[i]) ? (float)values[i] : NAN;
    norms_buckets_add(buckets, (uint64_t)step, row);
}

static bool layer_of(struct norms_field *field, size_t layer, size_t heads, struct error *error)
{
    if (layer >= field->layer_count) {
        struct norms_buckets *layers = realloc(field->layers, (layer + 1) * sizeof *layers);
        if (!layers)
            return error_runtime(error, "out of memory for layer %zu", layer);
        memset(layers + field->layer_count, 0, (layer + 1 - field->layer_count) * sizeof *layers);
        field->layers = layers;
        field->layer_count = layer + 1;
    }
    return field->layers[layer].columns > 0 ||
           norms_buckets_open(&field->layers[layer], heads, NORMS_POINTS, merges, error);
}

static bool take_line(struct norms_field *field, const struct log_line *line, const char *name, struct error *error)
{
    size_t heads = 1;
    double step = log_line_number(line, "step"), layer = log_line_number(line, "layer");
    double number = log_line_number(line, name);
    const double *list = log_line_list(line, name, &heads), *values = list ? list : &number;
    if (!log_line_has(line, name) || log_line_text(line, "split") || !(step >= 0 && step < 0x1p53))
        return true;
    if (isnan(layer)) {
        if (!list)
            add(&field->model, step, values);
        return true;
    }
    if (!(layer >= 0 && layer < LAYERS_MAX) || heads == 0 || heads > HEADS_MAX)
        return true;
    if (!layer_of(field, (size_t)layer, heads, error))
        return false;
    if (field->layers[(size_t)layer].columns == heads)
        add(&field->layers[(size_t)layer], step, values);
    return true;
}

static bool read_log(struct norms_field *field, const char *path, const char *name, struct error *error)
{
    struct log_reader reader;
    enum log_reader_result result;
    if (!log_reader_open(&reader, path, error))
        return false;
    while ((result = log_reader_next(&reader, error)) == LOG_READER_LINE)
        if (!take_line(field, &reader.line, name, error)) {
            result = LOG_READER_FAILED;
            break;
        }
    log_reader_close(&reader);
    return result != LOG_READER_FAILED;
}

bool norms_field_read(struct norms_field *field, const struct norms_run *run, const char *name, struct error *error)
{
    *field = (struct norms_field){0};
    return norms_buckets_open(&field->model, 1, METRICS_POINTS, merges, error) &&
           read_log(field, run->metrics.path, name, error) && read_log(field, run->norms.path, name, error);
}

void norms_field_close(struct norms_field *field)
{
    norms_buckets_close(&field->model);
    for (size_t i = 0; i < field->layer_count; i++)
        norms_buckets_close(&field->layers[i]);
    free(field->layers);
    *field = (struct norms_field){0};
}
