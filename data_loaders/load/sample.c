/* Read, decode, augment, cut: one sample from its place in the sequence to patches. */
#include "data_loaders/load/sample.h"

#include <stdlib.h>

#include "data_loaders/format/image_read.h"
#include "data_loaders/image/resample.h"
#include "data_loaders/load/compose.h"
#include "data_loaders/load/patches.h"

struct sample_maker {
    struct sample_options options;
    struct image_reader *reader;
    struct resampler *resampler;
    uint8_t *picture;          /* [image_size, image_size, channels] after resizing */
    uint8_t *scratch;          /* of patches_cut */
    struct composer *composer; /* NULL: samples are only cut out, shifted and mirrored */
};

static size_t picture_bytes(const struct sample_options *options)
{
    return options->image_size * options->image_size * options->dataset->channels + PIXELS_SLACK_BYTES;
}

bool sample_maker_open(struct sample_maker **maker, const struct sample_options *options, struct error *error)
{
    struct sample_maker *opened = calloc(1, sizeof *opened);
    if (!opened)
        return error_runtime(error, "no memory for a loader's worker");
    opened->options = *options;
    opened->resampler = resampler_open();
    opened->picture = malloc(picture_bytes(options));
    opened->scratch =
        malloc(patches_scratch_bytes(options->image_size, options->patch_size, options->dataset->channels));
    bool ok = (opened->resampler && opened->picture && opened->scratch) ||
              error_runtime(error, "no memory for a loader's worker");
    if (!ok || !image_reader_open(&opened->reader, options->dataset, error) ||
        (augment_composes(&options->augment) && !composer_open(&opened->composer, options, error))) {
        sample_maker_close(opened);
        return false;
    }
    *maker = opened;
    return true;
}

void sample_maker_close(struct sample_maker *maker)
{
    if (!maker)
        return;
    image_reader_close(maker->reader);
    composer_close(maker->composer);
    resampler_close(maker->resampler);
    free(maker->picture);
    free(maker->scratch);
    free(maker);
}

size_t sample_maker_bytes(const struct sample_options *options)
{
    const struct dataset *dataset = options->dataset;
    size_t pixels = dataset->encoding == ENCODING_RAW ? dataset->height * dataset->width : 1000000;
    return picture_bytes(options) + pixels * dataset->channels +
           patches_scratch_bytes(options->image_size, options->patch_size, dataset->channels) +
           (augment_composes(&options->augment) ? composer_bytes(options) : 0);
}

/* The view's part as a window of image_size x image_size pixels: a pointer into the image where it already has the
 * size, else resized into the maker's picture. */
static bool make_picture(struct sample_maker *maker, const struct pixels *image, const struct rectangle *part,
                         struct pixels *picture, struct error *error)
{
    const size_t size = maker->options.image_size;
    if (part->height == (double)size && part->width == (double)size) {
        size_t start = (size_t)part->top * image->stride + (size_t)part->left * image->channels;
        *picture = (struct pixels){image->bytes + start, size, size, image->channels, image->stride};
        return true;
    }
    if (!resample(maker->resampler, maker->picture, size, image, part))
        return error_runtime(error, "no memory for resizing an image of %zu x %zu pixels", image->width, image->height);
    *picture = (struct pixels){maker->picture, size, size, image->channels, size * image->channels};
    return true;
}

/* The middle of a part, with `share` of its sides. */
static struct rectangle smaller(const struct rectangle *part, double share)
{
    return (struct rectangle){part->top + (1 - share) / 2 * part->height, part->left + (1 - share) / 2 * part->width,
                              part->height * share, part->width * share};
}

/* The sample's part of the loaded image; its shift and mirroring are left to patches_cut. */
static bool look_at(struct sample_maker *maker, size_t height, size_t width, uint64_t position, struct view *view,
                    struct pixels *picture, struct error *error)
{
    const struct sample_options *options = &maker->options;
    struct pixels decoded;
    *view = options->evaluation ? view_centred(height, width)
                                : view_augmented(&options->augment, options->seed, position, height, width);
    if (options->evaluation && options->augment.crop_share > 0)
        view->part = smaller(&view->part, options->augment.crop_share);
    if (!image_decode(maker->reader, &view->part, options->image_size, &decoded, error))
        return false;
    struct rectangle part = view->part;
    if (decoded.height != height || decoded.width != width) {
        double scale_y = (double)decoded.height / (double)height, scale_x = (double)decoded.width / (double)width;
        part = (struct rectangle){part.top * scale_y, part.left * scale_x, part.height * scale_y, part.width * scale_x};
    }
    return make_picture(maker, &decoded, &part, picture, error);
}

bool sample_make(struct sample_maker *maker, uint8_t *patches, size_t image, uint64_t position, struct error *error)
{
    const struct sample_options *options = &maker->options;
    const size_t size = options->image_size, grid = size / options->patch_size;
    size_t height, width;
    if (!image_load(maker->reader, image, &height, &width, error))
        return false;
    if (height < grid || width < grid) {
        size_t inside;
        const struct dataset *file = dataset_file_of(options->dataset, image, &inside);
        return error_input(error, "%s: image %zu has %zu x %zu pixels, but the patch grid is %zu x %zu", file->path,
                           inside, width, height, grid, grid);
    }
    struct view view = {.part = {0}};
    struct pixels picture;
    bool made = maker->composer
                    ? composer_make(maker->composer, maker->reader, height, width, position, &picture, error)
                    : look_at(maker, height, width, position, &view, &picture, error);
    if (made)
        patches_cut(patches, &picture, size, options->patch_size, &view, maker->scratch);
    return made;
}
