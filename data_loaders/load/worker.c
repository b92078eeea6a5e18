/* The threads that make batches: each claims a few images of the oldest unfinished batch, again and again. */
#include "data_loaders/load/worker.h"

#include <string.h>

enum { SKIP_TRIES = 64 }; /* damaged images in a row after which training stops: the file is no use */

static size_t batch_count(const struct loader *loader, uint64_t number)
{
    if (!loader->options.evaluation)
        return loader->options.batch;
    uint64_t left = loader->span - number * loader->options.batch;
    return left < loader->options.batch ? (size_t)left : loader->options.batch;
}

static uint64_t position_of(const struct loader *loader, uint64_t number, size_t index)
{
    const struct loader_options *options = &loader->options;
    if (options->evaluation)
        return loader->first_image + number * options->batch + index;
    uint64_t micro_steps = options->first_step * options->accumulate + number;
    return (micro_steps * options->world_size + options->rank) * options->batch + index;
}

/* In training a damaged image is replaced by the next whole one of the file: the choice then depends on nothing but the
 * file, and is the same on any number of ranks. */
static bool fill_replacement(struct loader *loader, struct sample_maker *maker, uint8_t *patches, uint64_t position,
                             uint64_t *image, struct error *error)
{
    bool made = false;
    for (int tries = 0; !made && error->status == ERROR_INPUT && tries < SKIP_TRIES; tries++) {
        *image = (*image + 1) % loader->options.dataset->images;
        made = sample_make(maker, patches, *image, position, error);
    }
    return made;
}

static bool fill_one(struct loader *loader, struct sample_maker *maker, struct batch *batch, uint64_t number,
                     size_t index, uint64_t *damaged, struct error *error)
{
    const struct loader_options *options = &loader->options;
    uint64_t position = position_of(loader, number, index);
    uint64_t image = options->evaluation ? position : sampler_image(&loader->sampler, position);
    uint8_t *patches = batch->patches + index * loader->image_bytes;
    *damaged = UINT64_MAX;
    batch->positions[index] = position;
    batch->labels[index] = options->dataset->labels[image];
    bool made = sample_make(maker, patches, image, position, error);
    if (!made && error->status == ERROR_INPUT && !options->strict) {
        *damaged = image;
        if (options->evaluation) {
            memset(patches, 0, loader->image_bytes);
            batch->images[index] = BATCH_LEFT_OUT;
            return true;
        }
        made = fill_replacement(loader, maker, patches, position, &image, error);
        batch->labels[index] = options->dataset->labels[image];
    }
    batch->images[index] = image;
    return made;
}

/* Makes images first .. first + count of a slot, then records the outcome under the lock. */
static void fill_span(struct loader *loader, struct sample_maker *maker, struct slot *slot, uint64_t number,
                      size_t first, size_t count)
{
    size_t skipped = 0, first_skipped = SIZE_MAX, failed = SIZE_MAX;
    uint64_t skipped_image = 0;
    struct error error = {.status = ERROR_NONE};
    for (size_t index = first; index < first + count && failed == SIZE_MAX; index++) {
        uint64_t damaged;
        if (!fill_one(loader, maker, &slot->batch, number, index, &damaged, &error))
            failed = index;
        if (damaged != UINT64_MAX && skipped++ == 0) {
            first_skipped = index;
            skipped_image = damaged;
        }
    }
    pthread_mutex_lock(&loader->lock);
    slot->finished += count;
    slot->batch.skipped += skipped;
    if (first_skipped < slot->first_skipped) { /* the lowest, so that messages do not depend on timing */
        slot->first_skipped = first_skipped;
        slot->batch.skipped_image = skipped_image;
    }
    if (failed < slot->failed) {
        slot->failed = failed;
        slot->error = error;
    }
    if (slot->finished == slot->batch.count) {
        slot->state = SLOT_READY;
        pthread_cond_signal(&loader->ready);
    }
}

/* The slot of the next batch to fill, if it may be worked on. Lock held. */
static struct slot *claimable(struct loader *loader)
{
    if (loader->next_to_fill == loader->batches)
        return NULL;
    struct slot *slot = &loader->slots[loader->next_to_fill % loader->slot_count];
    if (slot->state == SLOT_FREE) {
        slot->state = SLOT_FILLING;
        slot->started = slot->finished = slot->batch.skipped = 0;
        slot->first_skipped = slot->failed = SIZE_MAX;
        slot->batch.count = batch_count(loader, loader->next_to_fill);
    }
    return slot->state == SLOT_FILLING && slot->started < slot->batch.count ? slot : NULL;
}

void *loader_work(void *argument)
{
    struct loader *loader = argument;
    pthread_mutex_lock(&loader->lock);
    struct sample_maker *maker = loader->makers[loader->threads_taken++];
    while (!loader->stopping) {
        struct slot *slot = claimable(loader);
        if (!slot) {
            pthread_cond_wait(&loader->work, &loader->lock);
            continue;
        }
        uint64_t number = loader->next_to_fill;
        size_t first = slot->started, count = slot->batch.count - first;
        if (count > loader->claim)
            count = loader->claim;
        slot->started += count;
        if (slot->started == slot->batch.count)
            loader->next_to_fill++;
        pthread_mutex_unlock(&loader->lock);
        fill_span(loader, maker, slot, number, first, count); /* takes the lock again */
    }
    pthread_mutex_unlock(&loader->lock);
    return NULL;
}
