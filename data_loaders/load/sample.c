/* Read, decode, augment, cut: one sample from its place in the sequence to patches. */
#include "data_loaders/load/sample.h"

#include <stdlib.h>

#include "data_loaders/format/image_read.h"
#include "data_loaders/image/resample.h"
#include "data_loaders/load/patches.h"

struct sample_maker {
    struct sample_options options;
    struct image_reader *reader;
    struct resampler *resampler;
    uint8_t *picture; /* [image_size, image_size, channels] after resizing */
    uint8_t *scratch; /* of patches_cut */
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
    if (!ok || !image_reader_open(&opened->reader, options->dataset, error)) {
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
           patches_scratch_bytes(options->image_size, options->patch_size, dataset->channels);
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

bool sample_make(struct sample_maker *maker, uint8_t *patches, size_t image, uint64_t position, struct error *error)
{
    const struct sample_options *options = &maker->options;
    const size_t size = options->image_size, grid = size / options->patch_size;
    size_t height, width;
    if (!image_load(maker->reader, image, &height, &width, error))
        return false;
    if (height < grid || width < grid)
        return error_input(error, "%s: image %zu has %zu x %zu pixels, but the patch grid is %zu x %zu",
                           options->dataset->path, image, width, height, grid, grid);
    struct view view = options->evaluation ? view_centred(height, width)
                                           : view_augmented(&options->augment, options->seed, position, height, width);
    struct pixels decoded, picture;
    if (!image_decode(maker->reader, &view.part, size, &decoded, error))
        return false;
    if (decoded.height != height || decoded.width != width) {
        double scale_y = (double)decoded.height / (double)height, scale_x = (double)decoded.width / (double)width;
        view.part = (struct rectangle){view.part.top * scale_y, view.part.left * scale_x, view.part.height * scale_y,
                                       view.part.width * scale_x};
    }
    if (!make_picture(maker, &decoded, &view.part, &picture, error))
        return false;
    patches_cut(patches, &picture, size, options->patch_size, &view, maker->scratch);
    return true;
}
