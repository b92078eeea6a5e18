/* Finds the files of a pattern, opens them in order, and holds them against the first. */
#include "data_loaders/format/dataset_set.h"

#include <errno.h>
#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data_loaders/format/dataset_file.h"
#include "data_loaders/format/shard_files.h"

/* ---- names ---- */

bool dataset_shard_name(char *name, size_t name_bytes, const char *path, size_t shard, size_t shards)
{
    size_t stem = strlen(path);
    bool suffixed = stem > 3 && strcmp(path + stem - 3, ".h5") == 0;
    stem -= suffixed ? 3 : 0;
    int length = snprintf(name, name_bytes, "%.*s-%05zu-of-%05zu%s", (int)stem, path, shard, shards, path + stem);
    return length > 0 && (size_t)length < name_bytes;
}

/* The name that the missing file would have, after a file of the set; false: that one is not named so. */
static bool name_missing(char *name, size_t name_bytes, const struct dataset *file, size_t shard)
{
    char own[64];
    snprintf(own, sizeof own, "-%05zu-of-%05zu", file->shard, file->shards);
    const char *place = strstr(file->path, own);
    if (!place)
        return false;
    snprintf(name, name_bytes, "%.*s-%05zu-of-%05zu%s", (int)(place - file->path), file->path, shard, file->shards,
             place + strlen(own));
    return true;
}

static int bytewise(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool find_files(glob_t *found, const char *pattern, struct error *error)
{
    errno = 0;
    int status = glob(pattern, GLOB_NOSORT | GLOB_ERR, NULL, found);
    if (status == GLOB_NOSPACE)
        return error_runtime(error, "%s: no memory for the list of its files", pattern);
    if (status == GLOB_ABORTED)
        return error_input(error, "%s: its folder cannot be read: %s", pattern, strerror(errno));
    if (status != 0)
        return error_input(error, "%s: no file has a name that fits this pattern", pattern);
    qsort(found->gl_pathv, found->gl_pathc, sizeof *found->gl_pathv, bytewise);
    return true;
}

/* ---- whether the files fit together ---- */

static bool same_names(const struct dataset *first, const struct dataset *file, struct error *error)
{
    if (file->import[0] && strcmp(file->import, first->import) == 0)
        return true;
    if (!first->class_names != !file->class_names)
        return error_input(error, "%s: %s names for its classes, but %s %s; import both alike", file->path,
                           file->class_names ? "has" : "has no", first->path, first->class_names ? "has" : "has none");
    for (size_t i = 0; first->class_names && i < first->classes; i++)
        if (strcmp(first->class_names[i], file->class_names[i]) != 0)
            return error_input(error,
                               "%s: class %zu is '%.100s', but '%.100s' in %s; import both with the same classes",
                               file->path, i, file->class_names[i], first->class_names[i], first->path);
    return true;
}

static bool fits(const struct dataset *first, const struct dataset *file, struct error *error)
{
    if (file->encoding != first->encoding)
        return error_input(error, "%s: holds %s, but %s holds %s; import both with one --encoding", file->path,
                           file->encoding == ENCODING_RAW ? "pixels" : "JPEG streams", first->path,
                           first->encoding == ENCODING_RAW ? "pixels" : "JPEG streams");
    if (file->classes != first->classes)
        return error_input(error, "%s: has %zu classes, but %s has %zu; they are not of one dataset", file->path,
                           file->classes, first->path, first->classes);
    if (file->channels != first->channels)
        return error_input(error, "%s: has %zu channels, but %s has %zu; they are not of one dataset", file->path,
                           file->channels, first->path, first->channels);
    if (file->height != first->height || file->width != first->width)
        return error_input(error, "%s: images have %zu x %zu pixels, but in %s %zu x %zu; import both with one --size",
                           file->path, file->width, file->height, first->path, first->width, first->height);
    if (file->shards != first->shards)
        return error_input(error, "%s: belongs to a set of %zu files, but %s to one of %zu; the pattern takes in both",
                           file->path, file->shards ? file->shards : 1, first->path, first->shards ? first->shards : 1);
    if (file->shards > 0 && strcmp(file->import, first->import) != 0)
        return error_input(error, "%s: comes of another import than %s; make the whole set anew", file->path,
                           first->path);
    return same_names(first, file, error);
}

/* Numbered files: every number once. */
static bool is_complete(const struct dataset *set, struct error *error)
{
    const size_t shards = set->files[0].shards;
    const struct dataset **by_number = calloc(shards ? shards : 1, sizeof(struct dataset *));
    bool ok = by_number ? true : error_runtime(error, "%s: no memory for a list of its files", set->path);
    for (size_t i = 0; ok && shards > 0 && i < set->file_count; i++) {
        const struct dataset *file = &set->files[i], **place = &by_number[file->shard];
        if (*place)
            ok = error_input(error, "%s: is file %zu of %zu, counted from 0, and so is %s; remove one", file->path,
                             file->shard, shards, (*place)->path);
        *place = file;
    }
    for (size_t i = 0; ok && i < shards; i++) {
        char name[1100];
        if (!by_number[i] && name_missing(name, sizeof name, &set->files[0], i))
            ok = error_input(error, "%s: is missing; %zu of the %zu files of %s are there", name, set->file_count,
                             shards, set->path);
        else if (!by_number[i])
            ok = error_input(error, "%s: file %zu of %zu, counted from 0, is missing", set->path, i, shards);
    }
    free(by_number);
    return ok;
}

/* ---- one dataset out of many ---- */

static void merge_moments(struct dataset *set)
{
    bool exact = true;
    uint64_t pixels = 0;
    for (size_t i = 0; i < set->file_count; i++) {
        exact = exact && set->files[i].sums.count > 0 && set->files[i].sums.count <= UINT64_MAX / 255 / 255 - pixels;
        pixels += exact ? set->files[i].sums.count : 0;
    }
    for (size_t i = 0; exact && i < set->file_count; i++)
        pixel_sums_merge(&set->sums, &set->files[i].sums);
    if (exact) {
        pixel_sums_moments(&set->sums, set->channels, set->mean, set->std);
        return;
    }
    for (size_t c = 0; c < set->channels; c++) {
        double mean = 0, square = 0;
        for (size_t i = 0; i < set->file_count; i++) {
            const struct dataset *file = &set->files[i];
            double share = (double)file->images / (double)set->images, average = (double)file->mean[c];
            mean += share * average;
            square += share * (average * average + (double)file->std[c] * (double)file->std[c]);
        }
        set->mean[c] = (float)mean;
        set->std[c] = (float)sqrt(square - mean * mean);
    }
}

/* Opens file `number` and takes what the set keeps of it: labels for now with the file, the descriptor. */
static bool add_file(struct dataset *set, size_t number, const char *path, struct error *error)
{
    struct dataset *file = &set->files[number], *first = &set->files[0];
    if (!dataset_file_open(file, path, number > 0 ? first->import : "", error))
        return false;
    set->file_count = number + 1;
    file->first = set->images;
    set->images += file->images;
    if (number > 0 && !fits(first, file, error))
        return false;
    for (size_t i = 0; number > 0 && file->class_names && i < file->classes; i++)
        free(file->class_names[i]);
    if (number > 0) {
        free(file->class_names);
        file->class_names = NULL;
    }
    int descriptor = file->file;
    if (!shard_files_add(set->descriptors, number, file->path, descriptor, error))
        return false;
    file->file = -1;
    return true;
}

static bool gather(struct dataset *set, struct error *error)
{
    struct dataset *first = &set->files[0];
    set->encoding = first->encoding;
    set->classes = first->classes;
    set->channels = first->channels;
    set->height = first->height;
    set->width = first->width;
    set->class_names = first->class_names;
    first->class_names = NULL;
    set->labels = malloc(set->images * sizeof *set->labels);
    if (!set->labels)
        return error_runtime(error, "%s: no memory for %zu labels", set->path, set->images);
    for (size_t i = 0; i < set->file_count; i++) {
        struct dataset *file = &set->files[i];
        memcpy(set->labels + file->first, file->labels, file->images * sizeof *file->labels);
        free(file->labels);
        file->labels = NULL;
        set->left_out += file->left_out;
    }
    merge_moments(set);
    return true;
}

static bool open_all(struct dataset *set, char **paths, size_t count, struct error *error)
{
    set->files = calloc(count, sizeof *set->files);
    set->descriptors = shard_files_open(count, 0);
    if (!set->files || !set->descriptors)
        return error_runtime(error, "%s: no memory for %zu files", set->path, count);
    for (size_t i = 0; i < count; i++)
        if (!add_file(set, i, paths[i], error))
            return false;
    return is_complete(set, error) && gather(set, error);
}

bool dataset_set_open(struct dataset *dataset, const char *pattern, struct error *error)
{
    glob_t found = {0};
    *dataset = (struct dataset){.file = -1};
    if (strlen(pattern) >= sizeof dataset->path)
        return error_input(error, "%s: the pattern is longer than %zu bytes", pattern, sizeof dataset->path - 1);
    memcpy(dataset->path, pattern, strlen(pattern) + 1);
    bool ok = find_files(&found, pattern, error) && open_all(dataset, found.gl_pathv, found.gl_pathc, error);
    globfree(&found);
    if (!ok)
        dataset_set_close(dataset);
    return ok;
}

void dataset_set_close(struct dataset *dataset)
{
    shard_files_close(dataset->descriptors);
    for (size_t i = 0; i < dataset->file_count; i++)
        dataset_file_close(&dataset->files[i]);
    free(dataset->files);
    dataset_file_close(dataset);
}
