/* Lays out and fills the block of draws (draws.h). */
#include "src/input/draws.h"

/* Offsets into the block. */
struct layout {
    size_t path_scale, erase, sample, box, partner, partner_labels, weight, bytes;
};

static void place(size_t *offset, struct layout *layout, size_t bytes)
{
    *offset = layout->bytes;
    layout->bytes += (bytes + 63) / 64 * 64; /* as the ops want their pointers */
}

static bool erases(const struct draw_options *options)
{
    return options->erase.probability > 0;
}

static bool mixes(const struct draw_options *options)
{
    return options->mix_group > 0;
}

static struct layout lay_out(const struct draw_options *options, size_t batch)
{
    struct layout layout = {0};
    if (options->drop_path.rate > 0)
        place(&layout.path_scale, &layout, 2 * options->drop_path.depth * batch * sizeof(float));
    if (erases(options)) {
        place(&layout.erase, &layout, batch * sizeof(struct pixel_box));
        place(&layout.sample, &layout, batch * sizeof(uint64_t));
    }
    if (mixes(options)) {
        place(&layout.box, &layout, batch * sizeof(struct pixel_box));
        place(&layout.partner, &layout, batch * sizeof(int32_t));
        place(&layout.partner_labels, &layout, batch * sizeof(int32_t));
        place(&layout.weight, &layout, batch * sizeof(float));
    }
    return layout;
}

size_t draws_bytes(const struct draw_options *options, size_t batch)
{
    return lay_out(options, batch).bytes;
}

static void *at(void *block, size_t offset)
{
    return (char *)block + offset;
}

struct model_draws draws_in(const struct draw_options *options, const struct loader_options *loader, void *block)
{
    const struct layout layout = lay_out(options, loader->batch);
    struct model_draws draws = {.noise_seed = loader->seed};
    if (options->drop_path.rate > 0)
        draws.path_scale = at(block, layout.path_scale);
    if (erases(options)) {
        draws.erase = at(block, layout.erase);
        draws.sample = at(block, layout.sample);
    }
    if (mixes(options)) {
        draws.box = at(block, layout.box);
        draws.partner = at(block, layout.partner);
        draws.partner_labels = at(block, layout.partner_labels);
        draws.weight = at(block, layout.weight);
    }
    return draws;
}

static struct pixel_box pixel_box(const struct box *box)
{
    return (struct pixel_box){(int32_t)box->top, (int32_t)box->left, (int32_t)box->height, (int32_t)box->width};
}

static void make_erasing(const struct draw_options *options, const struct loader_options *loader,
                         const struct batch *batch, struct pixel_box *erase, uint64_t *sample)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct box box = {0};
        bool erased = erase_drawn(&box, &options->erase, loader->seed, batch->positions[i], loader->image_size,
                                  loader->image_size);
        erase[i] = erased ? pixel_box(&box) : (struct pixel_box){0};
        sample[i] = batch->positions[i];
    }
}

static void make_mixing(const struct draw_options *options, const struct loader_options *loader,
                        const struct batch *batch, const struct layout *layout, void *block)
{
    struct pixel_box *box = at(block, layout->box);
    int32_t *partner = at(block, layout->partner), *partner_labels = at(block, layout->partner_labels);
    float *weight = at(block, layout->weight);
    const size_t group = options->mix_group;
    for (size_t i = 0; i < batch->count; i++) {
        size_t other = i / group * group + (i % group + group / 2) % group;
        uint64_t item = options->mix_per_image ? batch->positions[i] : batch->positions[i] / group;
        struct mix_draw drawn = mix_drawn(&options->mix, loader->seed, item, loader->image_size, loader->image_size);
        partner[i] = (int32_t)other;
        partner_labels[i] = batch->labels[other];
        weight[i] = (float)drawn.lambda;
        box[i] = drawn.cutmix ? pixel_box(&drawn.box) : (struct pixel_box){0};
    }
}

void draws_make(const struct draw_options *options, const struct loader_options *loader, const struct batch *batch,
                void *block)
{
    const struct layout layout = lay_out(options, loader->batch);
    if (options->drop_path.rate > 0)
        stochastic_depth_draw(at(block, layout.path_scale), &options->drop_path, loader->batch, loader->seed,
                              batch->positions, batch->count);
    if (erases(options))
        make_erasing(options, loader, batch, at(block, layout.erase), at(block, layout.sample));
    if (mixes(options))
        make_mixing(options, loader, batch, &layout, block);
}
