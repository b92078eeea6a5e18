/* Imports a folder of classes: many threads convert, one writes in the order of the list. */
#include "data_loaders/import/import.h"

#include <stdio.h>
#include <stdlib.h>

#include "data_loaders/format/dataset_write.h"
#include "data_loaders/import/folder_list.h"
#include "data_loaders/import/image_convert.h"
#include "src/base/ordered_work.h"
#include "src/base/work_progress.h"

struct importing {
    const struct import_folder_options *options;
    struct folder_list list;
    struct dataset_writer *writer;
    struct image_converter **converters; /* [workers] */
    size_t height, width, skipped;       /* raw: what every image must have */
    struct work_progress progress;
};

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
    const char *path = importing->list.files[item].path;
    const size_t size = importing->options->size;
    struct imported *imported = calloc(1, sizeof *imported);
    if (!imported)
        return NULL;
    struct image_converter *converter = importing->converters[worker];
    if (importing->options->encoding == ENCODING_JPEG)
        image_to_jpeg(converter, &imported->converted, path, size, &imported->error);
    else if (image_to_pixels(converter, &imported->converted, path, size, &imported->error))
        check_size(importing, path, imported);
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
    const struct folder_file *file = &importing->list.files[item];
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
    work_progress_update(&importing->progress, item + 1);
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
        if (!image_to_pixels(importing->converters[0], &first, importing->list.files[i].path, 0, error))
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

static bool convert_all(struct importing *importing, size_t workers, size_t *images, struct error *error)
{
    const struct import_folder_options *options = importing->options;
    struct dataset_layout layout = {.encoding = options->encoding,
                                    .height = importing->height,
                                    .width = importing->width,
                                    .channels = 3,
                                    .classes = importing->list.classes,
                                    .class_names = (const char *const *)importing->list.class_names};
    if (!dataset_writer_open(&importing->writer, options->out, &layout, options->force, error))
        return false;
    struct ordered_work work = {.items = importing->list.file_count,
                                .workers = workers,
                                .owner = importing,
                                .make = convert_file,
                                .take = keep,
                                .drop = drop,
                                .thread_end = thread_end};
    importing->progress = work_progress_begin("importing", importing->list.file_count);
    bool ok = ordered_work_run(&work, error);
    *images = dataset_writer_images(importing->writer);
    if (!ok) {
        work_progress_clear(&importing->progress);
        dataset_writer_discard(importing->writer);
        return false;
    }
    work_progress_end(&importing->progress, *images);
    return dataset_writer_finish(importing->writer, error);
}

bool import_folder(const struct import_folder_options *options, size_t *images, size_t *skipped, struct error *error)
{
    struct importing importing = {.options = options};
    size_t workers = options->workers ? options->workers : ordered_work_cpus();
    if (!folder_list_read(&importing.list, options->directory, error))
        return false;
    bool ok = open_converters(&importing, workers, error) &&
              (options->encoding == ENCODING_JPEG || find_size(&importing, error)) &&
              convert_all(&importing, workers, images, error);
    for (size_t i = 0; importing.converters && i < workers; i++)
        image_converter_close(importing.converters[i]);
    free(importing.converters);
    folder_list_free(&importing.list);
    *skipped = importing.skipped;
    return ok;
}
