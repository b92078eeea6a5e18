/* `quest-data info`: the same numbers as a table and as JSON. */
#include "data_loaders/format/dataset_report.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { CLASSES_IN_TABLE = 20 };

/* Images of every class. Caller frees. */
static size_t *count_classes(const struct dataset *dataset, struct error *error)
{
    size_t *counts = calloc(dataset->classes, sizeof *counts);
    if (!counts) {
        error_runtime(error, "no memory for %zu classes", dataset->classes);
        return NULL;
    }
    for (size_t i = 0; i < dataset->images; i++)
        counts[dataset->labels[i]]++;
    return counts;
}

static double stored_bytes(const struct dataset *dataset)
{
    double bytes = 0;
    for (size_t i = 0; i < dataset->images; i++)
        bytes += (double)dataset_stored_bytes(dataset, i);
    return bytes;
}

static bool flushed(FILE *stream, struct error *error)
{
    return (fflush(stream) == 0 && !ferror(stream)) ||
           error_runtime(error, "the report cannot be written: %s", strerror(errno));
}

bool dataset_report_table(const struct dataset *dataset, FILE *stream, struct error *error)
{
    size_t *counts = count_classes(dataset, error);
    if (!counts)
        return false;
    fprintf(stream, "%-12s %s\n", "file", dataset->path);
    if (dataset->files)
        fprintf(stream, "%-12s %zu\n", "files", dataset->file_count);
    if (dataset->shards > 0)
        fprintf(stream, "%-12s %zu of %zu, counted from 0\n", "shard", dataset->shard, dataset->shards);
    fprintf(stream, "%-12s %zu\n", "images", dataset->images);
    fprintf(stream, "%-12s %s, %.1f MB\n", "encoding", dataset->encoding == ENCODING_RAW ? "raw" : "jpeg",
            stored_bytes(dataset) / 1e6);
    if (dataset->encoding == ENCODING_RAW)
        fprintf(stream, "%-12s %zu x %zu x %zu\n", "size", dataset->height, dataset->width, dataset->channels);
    else
        fprintf(stream, "%-12s each its own, %zu channels\n", "size", dataset->channels);
    for (int row = 0; row < 2; row++) {
        const float *values = row ? dataset->std : dataset->mean;
        fprintf(stream, "%-12s", row ? "std" : "mean");
        for (size_t c = 0; c < dataset->channels; c++)
            fprintf(stream, " %.4f", (double)values[c]);
        fputc('\n', stream);
    }
    fprintf(stream, "%-12s %zu\n", "classes", dataset->classes);
    for (size_t k = 0; k < dataset->classes && k < CLASSES_IN_TABLE; k++)
        fprintf(stream, "  %-10zu %8zu images  %s\n", k, counts[k],
                dataset->class_names ? dataset->class_names[k] : "");
    if (dataset->classes > CLASSES_IN_TABLE)
        fprintf(stream, "  ... and %zu more\n", dataset->classes - CLASSES_IN_TABLE);
    free(counts);
    return flushed(stream, error);
}

static json_t *numbers(const float *values, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_real((double)values[i]));
    return list;
}

static json_t *class_list(const struct dataset *dataset, const size_t *counts)
{
    json_t *list = json_array();
    for (size_t k = 0; k < dataset->classes; k++) {
        json_t *entry = json_pack("{s:I}", "images", (json_int_t)counts[k]);
        if (dataset->class_names) /* a name that is not UTF-8 is left out */
            json_object_set_new(entry, "name", json_string(dataset->class_names[k]));
        json_array_append_new(list, entry);
    }
    return list;
}

bool dataset_report_json(const struct dataset *dataset, FILE *stream, struct error *error)
{
    size_t *counts = count_classes(dataset, error);
    if (!counts)
        return false;
    json_t *root =
        json_pack("{s:s, s:I, s:s, s:I, s:I, s:I, s:I, s:f, s:o, s:o, s:o}", "file", dataset->path, "images",
                  (json_int_t)dataset->images, "encoding", dataset->encoding == ENCODING_RAW ? "raw" : "jpeg", "height",
                  (json_int_t)dataset->height, "width", (json_int_t)dataset->width, "channels",
                  (json_int_t)dataset->channels, "classes", (json_int_t)dataset->classes, "stored_bytes",
                  stored_bytes(dataset), "mean", numbers(dataset->mean, dataset->channels), "std",
                  numbers(dataset->std, dataset->channels), "class_list", class_list(dataset, counts));
    free(counts);
    if (root && dataset->files)
        json_object_set_new(root, "files", json_integer((json_int_t)dataset->file_count));
    if (root && dataset->shards > 0) {
        json_object_set_new(root, "shard", json_integer((json_int_t)dataset->shard));
        json_object_set_new(root, "shards", json_integer((json_int_t)dataset->shards));
    }
    bool ok = root && json_dumpf(root, stream, JSON_COMPACT) == 0;
    json_decref(root);
    fputc('\n', stream);
    return ok ? flushed(stream, error) : error_runtime(error, "the report cannot be written as JSON");
}
