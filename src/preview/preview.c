/* The way of a training's input, by the same functions: loader, draws, patches_normalise. */
#include "src/preview/preview.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "data_loaders/load/loader.h"
#include "kernels/kernels.h"
#include "src/files/file_output.h"
#include "src/input/augmentation.h"
#include "src/preview/png.h"
#include "src/preview/sheet.h"

enum { COLUMNS = 8, GAP = 12, PICTURE_LEAST = 160 /* pixels; smaller ones are enlarged */, LABEL_LINES = 2 };

struct preview {
    const struct preview_options *options;
    struct dataset dataset;
    struct loader_options loader_options;
    struct draw_options draws;
    struct loader *loader;
    const struct kernels *kernels;
    struct context *context;
    float scale[4], shift[4];
    float *normalised; /* [batch, patches, channels, patch, patch] */
    void *block;       /* of draws; NULL: none */
    struct sheet sheet;
};

/* Whole groups of images that are mixed with each other. */
static size_t rounded_up(size_t images, size_t group)
{
    return group > 0 ? (images + group - 1) / group * group : images;
}

static bool open_loader(struct preview *preview, struct error *error)
{
    const struct config *config = preview->options->config;
    struct loader_options *loader = &preview->loader_options;
    if (!dataset_open(&preview->dataset, config->data.train, error) ||
        !input_training(loader, config, &preview->dataset, error))
        return false;
    preview->draws = input_draws(config);
    preview->draws.drop_path.rate = 0; /* not of pixels */
    loader->world_size = loader->accumulate = loader->steps = 1;
    loader->batch = rounded_up(preview->options->images, preview->draws.mix_group);
    return loader_open(&preview->loader, loader, error);
}

static bool open_kernels(struct preview *preview, struct error *error)
{
    const struct loader_options *loader = &preview->loader_options;
    const size_t channels = preview->dataset.channels, image = loader->image_size * loader->image_size * channels;
    const size_t patch = loader->patch_size, grid = loader->image_size / patch;
    struct context_options options = {.dtype = DTYPE_FLOAT32};
    options.workload = (struct workload){.batch = loader->batch,
                                         .patches = grid * grid,
                                         .patch_dim = patch * patch * channels,
                                         .dim = 64, /* no model is there: any */
                                         .hidden = 64,
                                         .heads = 1,
                                         .classes = 1};
    preview->kernels = kernels_cpu();
    for (size_t c = 0; c < channels; c++) { /* as model_set_normalisation */
        preview->scale[c] = 1.0f / (255.0f * preview->dataset.std[c]);
        preview->shift[c] = -preview->dataset.mean[c] / preview->dataset.std[c];
    }
    size_t draws = draws_bytes(&preview->draws, loader->batch);
    if (!preview->kernels->open(&preview->context, &options, error) ||
        !preview->kernels->allocate(preview->context, (void **)&preview->normalised,
                                    loader->batch * image * sizeof(float), "pictures", error))
        return false;
    return draws == 0 || preview->kernels->allocate(preview->context, &preview->block, draws, "draws", error);
}

static bool normalise(struct preview *preview, const struct batch *batch, struct error *error)
{
    const struct loader_options *loader = &preview->loader_options;
    const size_t columns = loader->image_size / loader->patch_size;
    struct model_draws draws = {0};
    if (preview->block) {
        draws_make(&preview->draws, loader, batch, preview->block);
        draws = draws_in(&preview->draws, loader, preview->block);
    }
    struct patches_normalise op = {.out = preview->normalised,
                                   .pixels = batch->patches,
                                   .scale = preview->scale,
                                   .shift = preview->shift,
                                   .erase = draws.erase,
                                   .sample = draws.sample,
                                   .seed = draws.noise_seed,
                                   .partner = draws.partner,
                                   .weight = draws.weight,
                                   .box = draws.box,
                                   .batch = batch->count,
                                   .patches = columns * columns,
                                   .columns = columns,
                                   .patch = loader->patch_size,
                                   .channels = preview->dataset.channels};
    return preview->kernels->patches_normalise(preview->context, &op, error) &&
           preview->kernels->synchronise(preview->context, error);
}

/* ---- the sheet ---- */

/* rgb [size, size, 3] from image i: colours again, grey in all three channels where there is one. */
static void colour(uint8_t *rgb, const struct preview *preview, size_t image)
{
    const size_t size = preview->loader_options.image_size, patch = preview->loader_options.patch_size;
    const size_t channels = preview->dataset.channels, columns = size / patch;
    const float *from = preview->normalised + image * size * size * channels;
    for (size_t i = 0; i < size * size * 3; i++) {
        size_t y = i / 3 / size, x = i / 3 % size, c = channels == 1 ? 0 : i % 3;
        size_t at = (y / patch * columns + x / patch) * channels + c;
        float number = from[(at * patch + y % patch) * patch + x % patch];
        float level = rintf((number - preview->shift[c]) / preview->scale[c]);
        rgb[i] = (uint8_t)(level > 0 ? level < 255 ? level : 255 : 0);
    }
}

static void name_class(char *text, size_t text_bytes, const struct preview *preview, int32_t label, const float *weight)
{
    char number[24] = "", share[16] = "";
    snprintf(number, sizeof number, "class %d", (int)label);
    if (weight)
        snprintf(share, sizeof share, "%.2f ", (double)*weight);
    snprintf(text, text_bytes, "%s%s", share,
             preview->dataset.class_names ? preview->dataset.class_names[label] : number);
}

static void label(struct preview *preview, const struct batch *batch, size_t image, size_t top, size_t left,
                  size_t width)
{
    char text[256];
    struct model_draws draws = {0};
    if (preview->block)
        draws = draws_in(&preview->draws, &preview->loader_options, preview->block);
    bool mixed = draws.weight && draws.weight[image] < 1;
    name_class(text, sizeof text, preview, batch->labels[image], mixed ? &draws.weight[image] : NULL);
    sheet_text(&preview->sheet, top, left, width, text);
    if (!mixed)
        return;
    float rest = 1 - draws.weight[image];
    name_class(text, sizeof text, preview, draws.partner_labels[image], &rest);
    sheet_text(&preview->sheet, top + SHEET_LINE, left, width, text);
}

static bool lay_out(struct preview *preview, const struct batch *batch, struct error *error)
{
    const size_t size = preview->loader_options.image_size, images = preview->options->images;
    const size_t times = size < PICTURE_LEAST ? (PICTURE_LEAST + size - 1) / size : 1, side = times * size;
    const size_t columns = images < COLUMNS ? images : COLUMNS, rows = (images + columns - 1) / columns;
    const size_t across = side + GAP, down = side + GAP + LABEL_LINES * SHEET_LINE;
    uint8_t *rgb = malloc(size * size * 3);
    bool ok = rgb && sheet_open(&preview->sheet, GAP + rows * down, GAP + columns * across);
    for (size_t i = 0; ok && i < images; i++) {
        size_t top = GAP + i / columns * down, left = GAP + i % columns * across;
        colour(rgb, preview, i);
        sheet_picture(&preview->sheet, top, left, rgb, size, times);
        label(preview, batch, i, top + side + 2, left, side);
    }
    free(rgb);
    return ok || error_runtime(error, "no memory for %zu pictures of %zu pixels", images, size);
}

static bool draw(struct preview *preview, FILE *file, struct error *error)
{
    struct batch *batch;
    if (!open_loader(preview, error) || !open_kernels(preview, error) ||
        !loader_next(preview->loader, &batch, NULL, error))
        return false;
    bool ok = normalise(preview, batch, error) && lay_out(preview, batch, error);
    loader_release(preview->loader, batch);
    return ok && png_write(file, preview->sheet.pixels, preview->sheet.height, preview->sheet.width, error);
}

static void release(struct preview *preview)
{
    sheet_close(&preview->sheet);
    if (preview->loader)
        loader_close(preview->loader);
    if (preview->context) {
        preview->kernels->release(preview->context, preview->normalised);
        preview->kernels->release(preview->context, preview->block);
        preview->kernels->close(preview->context);
    }
    dataset_close(&preview->dataset);
}

bool preview_write(const struct preview_options *options, struct error *error)
{
    struct preview preview = {.options = options, .dataset = {.file = -1}};
    struct file_output output;
    if (!file_output_open(&output, options->out, error))
        return false;
    bool ok = draw(&preview, output.file, error);
    release(&preview);
    return file_output_close(&output, ok, error);
}
