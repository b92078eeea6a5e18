/* Imports the images of tars: threads take the next image in turn and convert it, one thread writes in their order. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data_loaders/format/dataset_set.h"
#include "data_loaders/format/dataset_write.h"
#include "data_loaders/import/image_convert.h"
#include "data_loaders/import/import.h"
#include "data_loaders/import/tar_images.h"
#include "src/base/ordered_work.h"
#include "src/base/stop_signal.h"
#include "src/base/work_progress.h"

enum { SKIPPED_NAMED = 100 }; /* of a million damaged images the first are enough to see what is wrong */

struct importing {
    const struct import_tar_options *options;
    struct tar_images *images;
    struct image_converter **converters; /* [workers] */
    pthread_mutex_t lock;                /* of images, next, ended and error */
    pthread_cond_t turn;
    size_t next; /* the item whose turn it is to read */
    bool ended;  /* there is no further image, or reading failed: */
    struct error error;
    struct dataset_writer **writers; /* [files] */
    size_t files, *left_out;         /* [files] */
    size_t taken, skipped;
    bool all_taken;
    struct work_progress progress;
};

struct imported {
    struct tar_image image;
    struct converted converted;
    bool end;
};

/* Images come out of the tars in the order of items, whichever thread asks. */
static void read_next(struct importing *importing, size_t item, struct imported *imported)
{
    pthread_mutex_lock(&importing->lock);
    while (importing->next != item)
        pthread_cond_wait(&importing->turn, &importing->lock);
    if (!importing->ended &&
        !tar_images_next(importing->images, &imported->image, &importing->ended, &importing->error))
        importing->ended = true;
    imported->end = importing->ended;
    importing->next++;
    pthread_cond_broadcast(&importing->turn);
    pthread_mutex_unlock(&importing->lock);
}

static void *convert_image(void *owner, size_t worker, size_t item)
{
    struct importing *importing = owner;
    const struct import_tar_options *options = importing->options;
    struct imported nothing = {.end = true}, *imported = calloc(1, sizeof *imported);
    read_next(importing, item, imported ? imported : &nothing);
    if (!imported) { /* the others must have their turn all the same */
        tar_image_free(&nothing.image);
        return NULL;
    }
    struct tar_image *image = &imported->image;
    if (imported->end || !image->bytes)
        return imported;
    const struct image_place place = {image->name, image->bytes, image->byte_count};
    struct image_converter *converter = importing->converters[worker];
    (options->encoding == ENCODING_JPEG ? image_to_jpeg : image_to_pixels)(converter, &imported->converted, &place,
                                                                           options->size, &image->error);
    free(image->bytes);
    image->bytes = NULL;
    return imported;
}

static void drop(void *owner, void *result)
{
    (void)owner;
    struct imported *imported = result;
    if (!imported)
        return;
    tar_image_free(&imported->image);
    free(imported->converted.bytes);
    free(imported);
}

static void skip(struct importing *importing, size_t file, const struct tar_image *image)
{
    work_progress_clear(&importing->progress);
    if (importing->skipped < SKIPPED_NAMED)
        fprintf(stderr, "skipped: %s\n", image->error.message);
    else if (importing->skipped == SKIPPED_NAMED)
        fprintf(stderr, "skipped: more than %d; the others are only counted\n", SKIPPED_NAMED);
    importing->left_out[file]++;
    importing->skipped++;
}

/* Image i goes to file i % files. */
static bool keep(void *owner, size_t item, void *result, struct error *error)
{
    struct importing *importing = owner;
    struct imported *imported = result;
    size_t file = item % importing->files;
    bool ok = imported != NULL || error_runtime(error, "no memory for image %zu", item);
    if (ok && imported->end) {
        importing->all_taken = true;
        ok = false; /* ends the work; import_all knows better */
    } else if (ok && imported->image.error.status != ERROR_NONE) {
        skip(importing, file, &imported->image);
    } else if (ok) {
        ok = dataset_writer_append(importing->writers[file], imported->converted.bytes, imported->converted.byte_count,
                                   imported->image.label, &imported->converted.sums, error);
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

static bool import_all(struct importing *importing, size_t workers, struct error *error)
{
    struct ordered_work work = {.items = SIZE_MAX / 2,
                                .workers = workers,
                                .owner = importing,
                                .make = convert_image,
                                .take = keep,
                                .drop = drop,
                                .thread_end = thread_end};
    if (!ordered_work_run(&work, error) && importing->all_taken) {
        if (importing->error.status != ERROR_NONE)
            *error = importing->error;
        return importing->error.status == ERROR_NONE;
    }
    return stop_signal_raised() ? error_runtime(error, "interrupted; nothing is kept") : false;
}

/* ---- the files ---- */

static bool name_file(const struct importing *importing, size_t file, char *path, size_t path_bytes)
{
    const struct import_tar_options *options = importing->options;
    if (options->shards > 0)
        return dataset_shard_name(path, path_bytes, options->out, file, options->shards);
    int length = snprintf(path, path_bytes, "%s", options->out);
    return length >= 0 && (size_t)length < path_bytes;
}

static bool open_files(struct importing *importing, struct error *error)
{
    const struct import_tar_options *options = importing->options;
    const size_t files = options->shards ? options->shards : 1;
    struct dataset_layout layout = {.encoding = options->encoding,
                                    .height = options->size,
                                    .width = options->size,
                                    .channels = 3,
                                    .classes = tar_images_classes(importing->images),
                                    .class_names = tar_images_class_names(importing->images),
                                    .shards = options->shards};
    importing->writers = calloc(files, sizeof(struct dataset_writer *));
    importing->left_out = calloc(files, sizeof *importing->left_out);
    if (!importing->writers || !importing->left_out)
        return error_runtime(error, "no memory for %zu files", files);
    for (; importing->files < files; importing->files++) {
        char path[4096];
        layout.shard = importing->files;
        layout.left_out = &importing->left_out[importing->files];
        if (!name_file(importing, importing->files, path, sizeof path))
            return error_input(error, "%s: the path is longer than %zu bytes", options->out, sizeof path - 1);
        if (!dataset_writer_open(&importing->writers[importing->files], path, &layout, options->force, error))
            return false;
    }
    return true;
}

/* All or none: files that are finished go again where another fails. The last opened first, because each writer gives
 * HDF5's messages back to where it found them going. */
static bool finish_files(struct importing *importing, struct error *error)
{
    char path[4096];
    for (size_t i = 0; i < importing->files; i++)
        dataset_writer_set_classes(importing->writers[i], tar_images_classes(importing->images));
    for (size_t i = importing->files; i-- > 0;) {
        struct dataset_writer *writer = importing->writers[i];
        importing->writers[i] = NULL;
        if (dataset_writer_finish(writer, error))
            continue;
        for (size_t j = i + 1; j < importing->files; j++)
            if (name_file(importing, j, path, sizeof path))
                unlink(path);
        return false;
    }
    return true;
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

static void close_all(struct importing *importing, size_t workers)
{
    for (size_t i = importing->files; i-- > 0;)
        if (importing->writers[i])
            dataset_writer_discard(importing->writers[i]);
    for (size_t i = 0; importing->converters && i < workers; i++)
        image_converter_close(importing->converters[i]);
    free(importing->converters);
    free(importing->writers);
    free(importing->left_out);
    tar_images_close(importing->images);
}

bool import_tar(const struct import_tar_options *options, struct imported_images *result, struct error *error)
{
    struct importing importing = {.options = options};
    size_t workers = options->workers ? options->workers : ordered_work_cpus();
    *result = (struct imported_images){0};
    pthread_mutex_init(&importing.lock, NULL);
    pthread_cond_init(&importing.turn, NULL);
    bool ok = options->encoding == ENCODING_JPEG || options->size > 0 ||
              error_input(error, "--size S is needed: the images of a tar as pixels must have one size");
    ok = ok && tar_images_open(&importing.images, &options->from, error) && open_files(&importing, error) &&
         open_converters(&importing, workers, error);
    importing.progress = work_progress_begin("importing", 0);
    ok = ok && import_all(&importing, workers, error);
    for (size_t i = 0; i < importing.files; i++)
        result->images += importing.writers[i] ? dataset_writer_images(importing.writers[i]) : 0;
    if (ok)
        work_progress_end(&importing.progress, result->images);
    else
        work_progress_clear(&importing.progress);
    ok = ok && finish_files(&importing, error);
    result->skipped = importing.skipped;
    close_all(&importing, workers);
    pthread_cond_destroy(&importing.turn);
    pthread_mutex_destroy(&importing.lock);
    return ok;
}
