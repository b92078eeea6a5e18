/* Opening, closing, and what the trainer sees of the batches that the workers make. */
#include "data_loaders/load/loader.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "data_loaders/load/worker.h"
#include "src/base/clock.h"

enum {
    HELD_BATCHES = 2, /* what the trainer may hold: one that it computes on, one that is being uploaded */
    CLAIM_BYTES =
        1 << 17 /* a worker claims images of about this many bytes at a time, so that the lock costs nothing */
};

/* ---- opening and closing ---- */

bool loader_check(const struct loader_options *options, struct error *error)
{
    const struct dataset *dataset = options->dataset;
    const size_t size = options->image_size, patch = options->patch_size;
    if (size == 0 || patch == 0 || size % patch != 0)
        return error_input(error, "image_size %zu is not a multiple of patch_size %zu", size, patch);
    if (options->batch == 0 || options->world_size == 0 || options->rank >= options->world_size ||
        (!options->evaluation && options->accumulate == 0))
        return error_input(error, "batch %zu, accumulate %zu and rank %zu of %zu do not make a loader", options->batch,
                           options->accumulate, options->rank, options->world_size);
    if (dataset->encoding == ENCODING_RAW && (dataset->height < size || dataset->width < size))
        return error_input(error,
                           "%s: images have %zu x %zu pixels, but the patch grid covers %zu x %zu; lower "
                           "model.image_size or import the images again with --size %zu",
                           dataset->path, dataset->width, dataset->height, size, size, size);
    if (options->augment.crop_padding >= size)
        return error_input(error, "crop_padding %zu is not smaller than image_size %zu", options->augment.crop_padding,
                           size);
    const struct augment *augment = &options->augment;
    if (dataset->channels != 3 &&
        (augment->three_augment || augment->colour_jitter > 0 || augment->rand_augment.ops > 0))
        return error_input(error, "%s: pictures have %zu channel; colour operations change red, green and blue",
                           dataset->path, dataset->channels);
    if (options->augment.random_resized_crop &&
        !(options->augment.crop_scale_min > 0 && options->augment.crop_scale_min <= options->augment.crop_scale_max &&
          options->augment.crop_scale_max <= 1))
        return error_input(error, "crop_scale_min %g and crop_scale_max %g are not an increasing range within 0..1",
                           options->augment.crop_scale_min, options->augment.crop_scale_max);
    return true;
}

static size_t slots_for(const struct loader_options *options)
{
    return (options->prefetch > 0 ? options->prefetch : 1) + HELD_BATCHES;
}

static size_t workers_for(const struct loader_options *options)
{
    return options->workers > 0 ? options->workers : 1;
}

static struct sample_options sample_options_of(const struct loader_options *options)
{
    return (struct sample_options){.dataset = options->dataset,
                                   .image_size = options->image_size,
                                   .patch_size = options->patch_size,
                                   .evaluation = options->evaluation,
                                   .seed = options->seed,
                                   .augment = options->augment};
}

static size_t patches_bytes(const struct loader_options *options)
{
    return options->batch * options->image_size * options->image_size * options->dataset->channels;
}

static bool allocate_ordinary(void *owner, void **memory, size_t bytes, struct error *error)
{
    (void)owner;
    const size_t huge_page = (size_t)2 << 20;
    *memory = NULL;
    if (posix_memalign(memory, bytes >= huge_page ? huge_page : 64, bytes) != 0)
        return error_runtime(error, "no memory for a batch of %zu bytes", bytes);
    if (bytes >= huge_page)
        madvise(*memory, bytes / huge_page * huge_page, MADV_HUGEPAGE); /* advice: a kernel may say no */
    return true;
}

static void release_ordinary(void *owner, void *memory)
{
    (void)owner;
    free(memory);
}

static void plan(struct loader *loader)
{
    struct loader_options *options = &loader->options;
    if (!options->allocate) {
        options->allocate = allocate_ordinary;
        options->release = release_ordinary;
    }
    uint64_t images = options->dataset->images;
    loader->sampler =
        (struct sampler){images, options->seed, options->shuffle, options->repeats, options->shuffle_window};
    loader->image_bytes = patches_bytes(options) / options->batch;
    loader->claim = loader->image_bytes < CLAIM_BYTES ? CLAIM_BYTES / loader->image_bytes : 1;
    /* A batch is shared among all workers: its first images are waited for, so none should take it whole. */
    size_t share = (options->batch + workers_for(options) - 1) / workers_for(options);
    if (loader->claim > share)
        loader->claim = share;
    if (options->evaluation) {
        loader->first_image = options->rank * images / options->world_size;
        loader->span = (options->rank + 1) * images / options->world_size - loader->first_image;
        loader->batches = (loader->span + options->batch - 1) / options->batch;
    } else {
        loader->batches = options->steps ? options->steps * options->accumulate : UINT64_MAX;
    }
}

static bool allocate_slots(struct loader *loader, struct error *error)
{
    const struct loader_options *options = &loader->options;
    loader->slots = calloc(slots_for(options), sizeof *loader->slots);
    if (!loader->slots)
        return error_runtime(error, "no memory for %zu batches", slots_for(options));
    for (; loader->slot_count < slots_for(options); loader->slot_count++) {
        struct slot *slot = &loader->slots[loader->slot_count];
        void *patches = NULL;
        if (!options->allocate(options->owner, &patches, patches_bytes(options), error))
            return false;
        slot->batch = (struct batch){.patches = patches,
                                     .labels = malloc(options->batch * sizeof(int32_t)),
                                     .images = malloc(options->batch * sizeof(uint64_t)),
                                     .positions = malloc(options->batch * sizeof(uint64_t)),
                                     .slot = loader->slot_count};
        if (!slot->batch.labels || !slot->batch.images || !slot->batch.positions) {
            loader->slot_count++; /* so that closing frees what this slot did get */
            return error_runtime(error, "no memory for a batch of %zu images", options->batch);
        }
    }
    return true;
}

/* Signals are for the trainer's own thread, which finishes its step; workers inherit a mask that blocks them all. */
static bool start_workers(struct loader *loader, struct error *error)
{
    const size_t workers = workers_for(&loader->options);
    struct sample_options sample_options = sample_options_of(&loader->options);
    loader->makers = calloc(workers, sizeof(struct sample_maker *));
    loader->threads = calloc(workers, sizeof *loader->threads);
    if (!loader->makers || !loader->threads)
        return error_runtime(error, "no memory for %zu workers", workers);
    for (size_t i = 0; i < workers; i++)
        if (!sample_maker_open(&loader->makers[i], &sample_options, error))
            return false;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = 0;
    for (; failure == 0 && loader->thread_count < workers; loader->thread_count += failure == 0)
        failure = pthread_create(&loader->threads[loader->thread_count], NULL, loader_work, loader);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failure == 0 || error_runtime(error, "cannot start loader thread %zu of %zu: %s", loader->thread_count + 1,
                                         workers, strerror(failure));
}

bool loader_open(struct loader **loader, const struct loader_options *options, struct error *error)
{
    if (!loader_check(options, error))
        return false;
    struct loader *opened = calloc(1, sizeof *opened);
    if (!opened)
        return error_runtime(error, "no memory for a loader");
    opened->options = *options;
    pthread_mutex_init(&opened->lock, NULL);
    pthread_cond_init(&opened->work, NULL);
    pthread_cond_init(&opened->ready, NULL);
    plan(opened);
    if (!allocate_slots(opened, error) || !start_workers(opened, error)) {
        loader_close(opened);
        return false;
    }
    *loader = opened;
    return true;
}

void loader_close(struct loader *loader)
{
    if (!loader)
        return;
    pthread_mutex_lock(&loader->lock);
    loader->stopping = true;
    pthread_cond_broadcast(&loader->work);
    pthread_mutex_unlock(&loader->lock);
    for (size_t i = 0; i < loader->thread_count; i++)
        pthread_join(loader->threads[i], NULL);
    for (size_t i = 0; loader->makers && i < workers_for(&loader->options); i++)
        sample_maker_close(loader->makers[i]);
    for (size_t i = 0; i < loader->slot_count; i++) {
        struct batch *batch = &loader->slots[i].batch;
        loader->options.release(loader->options.owner, batch->patches);
        free(batch->labels);
        free(batch->images);
        free(batch->positions);
    }
    pthread_cond_destroy(&loader->ready);
    pthread_cond_destroy(&loader->work);
    pthread_mutex_destroy(&loader->lock);
    free(loader->makers);
    free(loader->threads);
    free(loader->slots);
    free(loader);
}

size_t loader_memory_bytes(const struct loader_options *options)
{
    struct sample_options sample_options = sample_options_of(options);
    size_t a_batch = patches_bytes(options) + options->batch * (sizeof(int32_t) + 2 * sizeof(uint64_t));
    return slots_for(options) * (a_batch + sizeof(struct slot)) +
           workers_for(options) * sample_maker_bytes(&sample_options);
}

/* ---- the trainer's side ---- */

bool loader_next(struct loader *loader, struct batch **batch, double *wait_s, struct error *error)
{
    const double start_s = clock_s();
    bool ok = true;
    *batch = NULL;
    pthread_mutex_lock(&loader->lock);
    if (loader->next_to_use < loader->batches) {
        struct slot *slot = &loader->slots[loader->next_to_use % loader->slot_count];
        while (slot->state != SLOT_READY)
            pthread_cond_wait(&loader->ready, &loader->lock);
        if (slot->failed != SIZE_MAX) {
            *error = slot->error;
            ok = false; /* the slot stays as it is: every later call says the same */
        } else {
            slot->state = SLOT_HELD;
            *batch = &slot->batch;
            loader->next_to_use++;
        }
    }
    pthread_mutex_unlock(&loader->lock);
    if (wait_s)
        *wait_s = clock_s() - start_s;
    return ok;
}

void loader_release(struct loader *loader, struct batch *batch)
{
    pthread_mutex_lock(&loader->lock);
    loader->slots[batch->slot].state = SLOT_FREE;
    pthread_cond_broadcast(&loader->work);
    pthread_mutex_unlock(&loader->lock);
}
