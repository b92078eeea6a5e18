/* Two slots of device memory that take turns: one is read by the step, the other is being filled. */
#include "src/input/input.h"

#include <stdlib.h>

#define FIRST_MARK 4 /* marks 0..3 are the trainer's */

struct slot {
    uint8_t *pixels;
    int32_t *labels;
    void *draws, *draws_host; /* draws.h; NULL: nothing is drawn */
    struct batch *batch;      /* the loader's, kept until its copy is done; NULL: nothing here */
};

struct input {
    struct input_options options;
    struct loader *loader;
    struct slot slots[2];
    size_t current;  /* slot of the batch in use */
    bool prefetched; /* the other slot was filled, or found to be past the end */
    size_t image_bytes;
};

static size_t image_bytes(const struct loader_options *loader)
{
    return loader->image_size * loader->image_size * loader->dataset->channels;
}

void input_plan(struct memory_plan *plan, const struct input_options *options, const char *name)
{
    size_t batch = options->loader.batch;
    size_t device = batch * (image_bytes(&options->loader) + sizeof(int32_t)) + draws_bytes(&options->draws, batch);
    memory_plan_add(plan, name, 2 * device);
}

static bool allocate_host(void *owner, void **memory, size_t bytes, struct error *error)
{
    struct input *input = owner;
    return input->options.kernels->allocate_host(input->options.context, memory, bytes, "batch buffers", error);
}

static void release_host(void *owner, void *memory)
{
    struct input *input = owner;
    input->options.kernels->release_host(input->options.context, memory);
}

static bool open_slot(struct input *input, struct slot *slot, struct error *error)
{
    const struct kernels *kernels = input->options.kernels;
    struct context *context = input->options.context;
    size_t batch = input->options.loader.batch, draws = draws_bytes(&input->options.draws, batch);
    return kernels->allocate(context, (void **)&slot->pixels, batch * input->image_bytes, "pixels", error) &&
           kernels->allocate(context, (void **)&slot->labels, batch * sizeof(int32_t), "labels", error) &&
           (draws == 0 || (kernels->allocate(context, &slot->draws, draws, "draws", error) &&
                           kernels->allocate_host(context, &slot->draws_host, draws, "draws", error)));
}

bool input_open(struct input **out, const struct input_options *options, struct error *error)
{
    struct input *input = calloc(1, sizeof *input);
    *out = input;
    if (!input)
        return error_runtime(error, "out of memory for the input buffers");
    input->options = *options;
    input->options.loader.allocate = allocate_host;
    input->options.loader.release = release_host;
    input->options.loader.owner = input;
    input->image_bytes = image_bytes(&options->loader);
    input->current = 1;
    return open_slot(input, &input->slots[0], error) && open_slot(input, &input->slots[1], error) &&
           loader_open(&input->loader, &input->options.loader, error);
}

static void close_slot(struct input *input, struct slot *slot)
{
    const struct kernels *kernels = input->options.kernels;
    struct context *context = input->options.context;
    if (slot->batch)
        loader_release(input->loader, slot->batch);
    if (slot->pixels)
        kernels->release(context, slot->pixels);
    if (slot->labels)
        kernels->release(context, slot->labels);
    if (slot->draws)
        kernels->release(context, slot->draws);
    if (slot->draws_host)
        kernels->release_host(context, slot->draws_host);
}

void input_close(struct input *input)
{
    struct error ignored;
    if (!input)
        return;
    input->options.kernels->synchronise(input->options.context, &ignored);
    close_slot(input, &input->slots[0]);
    close_slot(input, &input->slots[1]);
    if (input->loader)
        loader_close(input->loader);
    free(input);
}

/* Takes a batch from the loader and starts its copy into the slot that is not in use. */
static bool fill(struct input *input, double *wait_s, struct error *error)
{
    const struct input_options *options = &input->options;
    struct slot *slot = &input->slots[!input->current];
    double waited = 0;
    if (!loader_next(input->loader, &slot->batch, &waited, error))
        return false;
    *wait_s += waited;
    input->prefetched = true;
    if (!slot->batch)
        return true;
    size_t count = slot->batch->count;
    if (slot->draws)
        draws_make(&options->draws, &options->loader, slot->batch, slot->draws_host);
    return options->kernels->prefetch(options->context, slot->pixels, slot->batch->patches, count * input->image_bytes,
                                      error) &&
           options->kernels->prefetch(options->context, slot->labels, slot->batch->labels, count * sizeof(int32_t),
                                      error) &&
           (!slot->draws || options->kernels->prefetch(options->context, slot->draws, slot->draws_host,
                                                       draws_bytes(&options->draws, options->loader.batch), error));
}

static struct input_batch batch_in(const struct input *input, const struct slot *slot, size_t count)
{
    const struct input_options *options = &input->options;
    struct input_batch batch = {.pixels = slot->pixels, .labels = slot->labels, .host = slot->batch, .count = count};
    if (slot->draws)
        batch.draws = draws_in(&options->draws, &options->loader, slot->draws);
    return batch;
}

struct input_batch input_blank(const struct input *input)
{
    return batch_in(input, &input->slots[0], input->options.loader.batch); /* allocated as zeros */
}

bool input_next(struct input *input, struct input_batch *batch, double *wait_s, struct error *error)
{
    const struct kernels *kernels = input->options.kernels;
    struct context *context = input->options.context;
    if (!input->prefetched && !(kernels->prefetch_begin(context, error) && fill(input, wait_s, error)))
        return false;
    /* The copy of the new batch is ordered before what comes now; the old slot is free once its ops have run. */
    struct slot *old = &input->slots[input->current];
    if (old->batch) {
        if (!kernels->wait_mark(context, FIRST_MARK + (int)input->current, error))
            return false;
        loader_release(input->loader, old->batch);
        old->batch = NULL;
    }
    input->current = !input->current;
    input->prefetched = false;
    struct slot *slot = &input->slots[input->current];
    if (!kernels->prefetch_end(context, error) || !kernels->mark(context, FIRST_MARK + (int)input->current, error) ||
        !kernels->prefetch_begin(context, error))
        return false;
    *batch = batch_in(input, slot, slot->batch ? slot->batch->count : 0);
    return true;
}

bool input_prefetch(struct input *input, double *wait_s, struct error *error)
{
    return input->prefetched || fill(input, wait_s, error);
}
