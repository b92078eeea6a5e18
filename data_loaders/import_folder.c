#include "data_loaders/import.h"

#include <stdio.h>
#include <stdlib.h>

#include "data_loaders/dataset_write.h"
#include "data_loaders/folder_list.h"
#include "data_loaders/image_convert.h"
#include "data_loaders/image_read.h"
#include "data_loaders/ordered_work.h"
#include "data_loaders/work_progress.h"

struct importing {
    const struct import_folder_options *options;
    struct folder_list list;
    struct dataset_writer *writer;
    struct dataset streams;        /* only says what image_readers decode: RGB streams */
    struct image_reader **readers; /* [workers], jpeg only */
    size_t height, width, skipped; /* raw: what every image must have */
    struct work_progress progress;
};

struct imported {
    struct converted converted;
    struct pixel_sums sums;
    struct error error; /* status ERROR_NONE: fine */
};

static bool sum_stream(struct importing *importing, size_t worker, struct imported *imported)
{
    struct pixels pixels;
    if (!image_decode_stream(importing->readers[worker], imported->converted.bytes, imported->converted.byte_count,
                             &pixels, &imported->error))
        return false;
    pixel_sums_add(&imported->sums, &pixels);
    return true;
}

static bool sum_pixels(struct importing *importing, const char *path, struct imported *imported)
{
    const struct converted *converted = &imported->converted;
    if (converted->height != importing->height || converted->width != importing->width)
        return error_input(&imported->error, "%s: has %zu x %zu pixels, but the first image %zu x %zu; give --size",
                           path, converted->width, converted->height, importing->width, importing->height);
    pixel_sums_add(&imported->sums,
                   &(struct pixels){converted->bytes, converted->height, converted->width, 3, converted->width * 3});
    return true;
}

static void *convert_file(void *owner, size_t worker, size_t item)
{
    struct importing *importing = owner;
    const char *path = importing->list.files[item].path;
    const size_t size = importing->options->size;
    struct imported *imported = calloc(1, sizeof *imported);
    if (!imported)
        return NULL;
    if (importing->options->encoding == ENCODING_RAW) {
        if (image_to_pixels(&imported->converted, path, size, &imported->error))
            sum_pixels(importing, path, imported);
    } else if (image_to_jpeg(&imported->converted, path, size, &imported->error)) {
        sum_stream(importing, worker, imported);
    }
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
                                   file->label, &imported->sums, error);
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
        if (!image_to_pixels(&first, importing->list.files[i].path, 0, error))
            continue;
        importing->height = first.height;
        importing->width = first.width;
        free(first.bytes);
    }
    return importing->height > 0 ||
           error_input(error, "%s: not one image in it can be read", importing->options->directory);
}

static bool open_readers(struct importing *importing, size_t workers, struct error *error)
{
    importing->streams = (struct dataset){.encoding = ENCODING_JPEG, .channels = 3, .file = -1};
    snprintf(importing->streams.path, sizeof importing->streams.path, "%s", importing->options->directory);
    importing->readers = calloc(workers, sizeof(struct image_reader *));
    if (!importing->readers)
        return error_runtime(error, "no memory for %zu workers", workers);
    for (size_t i = 0; i < workers; i++)
        if (!image_reader_open(&importing->readers[i], &importing->streams, error))
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
    bool ok = (options->encoding == ENCODING_JPEG ? open_readers(&importing, workers, error)
                                                  : find_size(&importing, error)) &&
              convert_all(&importing, workers, images, error);
    for (size_t i = 0; importing.readers && i < workers; i++)
        image_reader_close(importing.readers[i]);
    free(importing.readers);
    folder_list_free(&importing.list);
    *skipped = importing.skipped;
    return ok;
}
