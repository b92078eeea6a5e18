/* Two slots of device memory that take turns: one is read by the step, the other is being filled. */
#include "src/input/input.h"

#include <stdlib.h>

#include "src/input/stochastic_depth.h"

#define FIRST_MARK 4 /* marks 0..3 are the trainer's */

struct slot {
    uint8_t *pixels;
    int32_t *labels;
    float *path_scale, *path_scale_host;
    struct batch *batch; /* the loader's, kept until its copy is done; NULL: nothing here */
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

static size_t path_bytes(const struct input_options *options)
{
    return options->drop_path > 0 ? 2 * options->depth * options->loader.batch * sizeof(float) : 0;
}

void input_plan(struct memory_plan *plan, const struct input_options *options, const char *name)
{
    size_t device = options->loader.batch * (image_bytes(&options->loader) + sizeof(int32_t)) + path_bytes(options);
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
    size_t batch = input->options.loader.batch, scales = path_bytes(&input->options);
    return kernels->allocate(context, (void **)&slot->pixels, batch * input->image_bytes, "pixels", error) &&
           kernels->allocate(context, (void **)&slot->labels, batch * sizeof(int32_t), "labels", error) &&
           (scales == 0 ||
            (kernels->allocate(context, (void **)&slot->path_scale, scales, "stochastic depth", error) &&
             kernels->allocate_host(context, (void **)&slot->path_scale_host, scales, "stochastic depth", error)));
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
    if (slot->path_scale)
        kernels->release(context, slot->path_scale);
    if (slot->path_scale_host)
        kernels->release_host(context, slot->path_scale_host);
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
    if (slot->path_scale)
        stochastic_depth_draw(slot->path_scale_host, options->drop_path, options->depth, options->loader.batch,
                              options->loader.seed, slot->batch->positions, count);
    return options->kernels->prefetch(options->context, slot->pixels, slot->batch->patches, count * input->image_bytes,
                                      error) &&
           options->kernels->prefetch(options->context, slot->labels, slot->batch->labels, count * sizeof(int32_t),
                                      error) &&
           (!slot->path_scale || options->kernels->prefetch(options->context, slot->path_scale, slot->path_scale_host,
                                                            path_bytes(options), error));
}

struct input_batch input_blank(const struct input *input)
{
    const struct slot *slot = &input->slots[0]; /* allocated as zeros */
    return (struct input_batch){slot->pixels, slot->labels, slot->path_scale, NULL, input->options.loader.batch};
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
    *batch = (struct input_batch){slot->pixels, slot->labels, slot->path_scale, slot->batch,
                                  slot->batch ? slot->batch->count : 0};
    return true;
}

bool input_prefetch(struct input *input, double *wait_s, struct error *error)
{
    return input->prefetched || fill(input, wait_s, error);
}
