/* Imports a folder of classes, into one file or a set: many threads convert, one writes in the order of the list. */
#include "data_loaders/import/import.h"

#include <stdio.h>
#include <stdlib.h>

#include "data_loaders/format/dataset_write.h"
#include "data_loaders/import/folder_list.h"
#include "data_loaders/import/image_convert.h"
#include "data_loaders/import/import_set.h"
#include "src/base/ordered_work.h"
#include "src/base/stop_signal.h"
#include "src/base/work_progress.h"

struct importing {
    const struct import_folder_options *options;
    struct folder_list list;
    struct dataset_writer *writer;
    struct image_converter **converters; /* [workers] */
    size_t height, width;                /* raw: what every image must have */
    size_t first, step;                  /* item i of the file being made is file first + i * step of the list */
    size_t skipped;                      /* of the file being made */
    size_t done;                         /* of the list, before the file being made */
    struct work_progress progress;
};

static const struct folder_file *file_of(const struct importing *importing, size_t item)
{
    return &importing->list.files[importing->first + item * importing->step];
}

/* How many of the list a file holds. */
static size_t items_of(const struct importing *importing, size_t first)
{
    return (importing->list.file_count - first + importing->step - 1) / importing->step;
}

struct imported {
    struct converted converted;
    struct error error; /* status ERROR_NONE: fine */
};

static bool check_size(const struct importing *importing, const char *path, struct imported *imported)
{
    const struct converted *converted = &imported->converted;
    return (converted->height == importing->height && converted->width == importing->width) ||
           error_input(&imported->error, "%s: has %zu x %zu pixels, but the first image %zu x %zu; give --size", path,
                       converted->width, converted->height, importing->width, importing->height);
}

static void *convert_file(void *owner, size_t worker, size_t item)
{
    struct importing *importing = owner;
    const struct image_place place = {.path = file_of(importing, item)->path};
    const size_t size = importing->options->size;
    struct imported *imported = calloc(1, sizeof *imported);
    if (!imported)
        return NULL;
    struct image_converter *converter = importing->converters[worker];
    if (importing->options->encoding == ENCODING_JPEG)
        image_to_jpeg(converter, &imported->converted, &place, size, &imported->error);
    else if (image_to_pixels(converter, &imported->converted, &place, size, &imported->error))
        check_size(importing, place.path, imported);
    return imported;
}

static void drop(void *owner, void *result)
{
    (void)owner;
    struct imported *imported = result;
    if (imported)
        free(imported->converted.bytes);
    free(imported);
}

static bool keep(void *owner, size_t item, void *result, struct error *error)
{
    struct importing *importing = owner;
    struct imported *imported = result;
    const struct folder_file *file = file_of(importing, item);
    bool ok = imported != NULL || error_runtime(error, "%s: no memory", file->path);
    if (ok && imported->error.status != ERROR_NONE) {
        work_progress_clear(&importing->progress);
        fprintf(stderr, "skipped: %s\n", imported->error.message);
        importing->skipped++;
    } else if (ok) {
        ok = dataset_writer_append(importing->writer, imported->converted.bytes, imported->converted.byte_count,
                                   file->label, &imported->converted.sums, error);
    }
    drop(owner, result);
    work_progress_update(&importing->progress, importing->done + item + 1);
    return ok;
}

static void thread_end(void *owner)
{
    (void)owner;
    image_convert_thread_end();
}

/* Raw without --size: the first readable file decides. */
static bool find_size(struct importing *importing, struct error *error)
{
    importing->height = importing->width = importing->options->size;
    for (size_t i = 0; importing->height == 0 && i < importing->list.file_count; i++) {
        struct converted first;
        const struct image_place place = {.path = importing->list.files[i].path};
        if (!image_to_pixels(importing->converters[0], &first, &place, 0, error))
            continue;
        importing->height = first.height;
        importing->width = first.width;
        free(first.bytes);
    }
    return importing->height > 0 ||
           error_input(error, "%s: not one image in it can be read", importing->options->directory);
}

static bool open_converters(struct importing *importing, size_t workers, struct error *error)
{
    importing->converters = calloc(workers, sizeof(struct image_converter *));
    if (!importing->converters)
        return error_runtime(error, "no memory for %zu workers", workers);
    for (size_t i = 0; i < workers; i++)
        if (!image_converter_open(&importing->converters[i], error))
            return false;
    return true;
}

/* Makes one file of the images first, first + step, ... of the list. */
static bool make_file(struct importing *importing, const char *path, const struct dataset_layout *layout,
                      size_t workers, size_t *images, struct error *error)
{
    importing->skipped = 0;
    if (!dataset_writer_open(&importing->writer, path, layout, importing->options->force, error))
        return false;
    struct ordered_work work = {.items = items_of(importing, importing->first),
                                .workers = workers,
                                .owner = importing,
                                .make = convert_file,
                                .take = keep,
                                .drop = drop,
                                .thread_end = thread_end};
    bool ok = ordered_work_run(&work, error);
    *images = dataset_writer_images(importing->writer);
    importing->done += work.items;
    if (ok)
        return dataset_writer_finish(importing->writer, error);
    work_progress_clear(&importing->progress);
    dataset_writer_discard(importing->writer);
    return false;
}

static struct dataset_layout layout_of(const struct importing *importing)
{
    return (struct dataset_layout){.encoding = importing->options->encoding,
                                   .height = importing->height,
                                   .width = importing->width,
                                   .channels = 3,
                                   .classes = importing->list.classes,
                                   .class_names = (const char *const *)importing->list.class_names};
}

static bool make_one(struct importing *importing, size_t workers, struct imported_images *result, struct error *error)
{
    struct dataset_layout layout = layout_of(importing);
    importing->step = 1;
    importing->progress = work_progress_begin("importing", importing->list.file_count);
    bool ok = make_file(importing, importing->options->out, &layout, workers, &result->images, error);
    if (ok)
        work_progress_end(&importing->progress, result->images);
    result->skipped = importing->skipped;
    return ok;
}

/* ---- sets ---- */

/* What is there of this rank's files; all are looked at before one is made. */
static bool look_at_shards(const struct importing *importing, const char *id, struct import_shard *shards,
                           struct error *error)
{
    const struct import_folder_options *options = importing->options;
    if (options->shards > importing->list.file_count)
        return error_input(error, "--shards %zu: %s holds only %zu images", options->shards, options->directory,
                           importing->list.file_count);
    for (size_t i = options->rank; i < options->shards; i += options->ranks)
        if (!import_shard_look(&shards[i], options, id, i, error))
            return false;
    return true;
}

static bool make_shard(struct importing *importing, struct import_shard *shard, const struct dataset_layout *layout,
                       size_t workers, struct error *error)
{
    import_shard_clean(shard);
    importing->first = layout->shard;
    if (make_file(importing, shard->path, layout, workers, &shard->images, error)) {
        shard->skipped = importing->skipped;
        return true;
    }
    if (stop_signal_raised())
        error_runtime(error,
                      "interrupted; files of the set that are finished stay, and the same command makes the rest");
    return false;
}

static bool make_shards(struct importing *importing, const char *id, struct import_shard *shards, size_t workers,
                        struct imported_images *result, struct error *error)
{
    const struct import_folder_options *options = importing->options;
    struct dataset_layout layout = layout_of(importing);
    size_t total = 0;
    for (size_t i = options->rank; i < options->shards; i += options->ranks)
        total += shards[i].finished ? 0 : items_of(importing, i);
    layout.shards = options->shards;
    layout.import = id;
    layout.left_out = &importing->skipped;
    importing->progress = work_progress_begin(options->rank == 0 ? "importing" : NULL, total);
    for (size_t i = options->rank; i < options->shards; i += options->ranks) {
        layout.shard = i;
        result->files_kept += shards[i].finished;
        if (!shards[i].finished && !make_shard(importing, &shards[i], &layout, workers, error))
            return false;
        result->images += shards[i].images;
        result->skipped += shards[i].skipped;
    }
    work_progress_end(&importing->progress, importing->done);
    return true;
}

/* ---- both ---- */

static bool prepare(struct importing *importing, size_t workers, struct error *error)
{
    const struct import_folder_options *options = importing->options;
    return folder_list_read(&importing->list, options->directory, error) &&
           open_converters(importing, workers, error) &&
           (options->encoding == ENCODING_JPEG || find_size(importing, error));
}

static bool import_set(struct importing *importing, size_t workers, struct imported_images *result, struct error *error)
{
    const struct import_folder_options *options = importing->options;
    char id[IMPORT_ID_BYTES] = "";
    struct import_shard *shards = calloc(options->shards, sizeof *shards);
    bool ok = shards ? true : error_runtime(error, "no memory for a set of %zu files", options->shards);
    importing->step = options->shards;
    ok = ok && prepare(importing, workers, error);
    if (ok) {
        import_set_identify(id, options, &importing->list, importing->height, importing->width);
        ok = look_at_shards(importing, id, shards, error);
    }
    ok = options->agree ? options->agree(options->owner, id, ok, error) : ok;
    ok = ok && make_shards(importing, id, shards, workers, result, error);
    free(shards);
    return ok;
}

bool import_folder(const struct import_folder_options *from, struct imported_images *result, struct error *error)
{
    struct import_folder_options options = *from;
    struct importing importing = {.options = &options};
    size_t workers = options.workers ? options.workers : ordered_work_cpus();
    options.ranks = options.ranks ? options.ranks : 1;
    *result = (struct imported_images){0};
    bool ok = options.shards > 0 ? import_set(&importing, workers, result, error)
                                 : prepare(&importing, workers, error) && make_one(&importing, workers, result, error);
    for (size_t i = 0; importing.converters && i < workers; i++)
        image_converter_close(importing.converters[i]);
    free(importing.converters);
    folder_list_free(&importing.list);
    return ok;
}
