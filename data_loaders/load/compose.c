/* A sample's transforms, one after the other (compose.h). */
#include "data_loaders/load/compose.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data_loaders/image/resize.h"
#include "data_loaders/load/patches.h"
#include "data_loaders/load/three_augment.h"
#include "src/base/random.h"

enum { REFLECTED = 4 }; /* pixels on every side of a simple crop */

struct composer {
    struct sample_options options;
    struct resizer *resizer;
    struct picture picture;
    size_t channels;
    uint8_t fill[3];
};

static size_t buffer_bytes(const struct sample_options *options)
{
    return options->image_size * options->image_size * options->dataset->channels + PIXELS_SLACK_BYTES;
}

bool composer_open(struct composer **composer, const struct sample_options *options, struct error *error)
{
    struct composer *opened = calloc(1, sizeof *opened);
    if (!opened)
        return error_runtime(error, "no memory for a loader's worker");
    opened->options = *options;
    opened->channels = options->dataset->channels;
    for (size_t c = 0; c < 3; c++) { /* what comes in from outside is the mean colour */
        double level = rint(255.0 * (double)options->dataset->mean[c]);
        opened->fill[c] = (uint8_t)(level < 0 ? 0 : level > 255 ? 255 : level);
    }
    opened->resizer = resizer_open();
    opened->picture = (struct picture){calloc(buffer_bytes(options), 1), calloc(buffer_bytes(options), 1),
                                       options->image_size, options->image_size};
    if (!opened->resizer || !opened->picture.pixels || !opened->picture.other) {
        composer_close(opened);
        return error_runtime(error, "no memory for a loader's worker");
    }
    *composer = opened;
    return true;
}

void composer_close(struct composer *composer)
{
    if (!composer)
        return;
    resizer_close(composer->resizer);
    free(composer->picture.pixels);
    free(composer->picture.other);
    free(composer);
}

size_t composer_bytes(const struct sample_options *options)
{
    return 2 * buffer_bytes(options);
}

/* `window` of `source` resized, to `out`. */
static bool resized(struct composer *composer, uint8_t *out, const struct pixels *source,
                    const struct resize_window *window, struct error *error)
{
    enum resize_filter filter =
        composer->options.augment.interpolation == INTERPOLATION_BICUBIC ? RESIZE_BICUBIC : RESIZE_BILINEAR;
    return resize(composer->resizer, out, window, source, filter) ||
           error_runtime(error, "no memory for resizing an image of %zu x %zu pixels", source->width, source->height);
}

/* A side of the part: the whole pixels that hold it, and where in them it lies. */
static void enclose(size_t *first, size_t *count, double *start, double *length, size_t extent)
{
    size_t end = (size_t)ceil(*start + *length);
    *first = (size_t)*start;
    *count = (end < extent ? end : extent) - *first;
    *start -= (double)*first;
}

/* All of `part` of an image of `height` rows: at its full size, or where `size` is not 0 at a reduced one that leaves
 * it about `size` pixels; in that case `place` says where in `pixels` it lies. */
static bool decoded_part(struct image_reader *reader, const struct box *part, size_t height, size_t size,
                         struct pixels *pixels, struct rectangle *place, struct error *error)
{
    struct rectangle whole = {(double)part->top, (double)part->left, (double)part->height, (double)part->width};
    struct box box = *part;
    struct pixels decoded;
    if (!image_decode(reader, &whole, size, &decoded, error))
        return false;
    if (decoded.height != height) {
        const double denominator = rint((double)height / (double)decoded.height);
        *place = (struct rectangle){whole.top / denominator, whole.left / denominator, whole.height / denominator,
                                    whole.width / denominator};
        enclose(&box.top, &box.height, &place->top, &place->height, decoded.height);
        enclose(&box.left, &box.width, &place->left, &place->width, decoded.width);
    }
    *pixels = (struct pixels){decoded.bytes + box.top * decoded.stride + box.left * decoded.channels, box.height,
                              box.width, decoded.channels, decoded.stride};
    return true;
}

static size_t reflected(ptrdiff_t at, size_t extent)
{
    ptrdiff_t last = (ptrdiff_t)extent - 1;
    at = at < 0 ? -at : at;
    return (size_t)(at > last ? 2 * last - at : at);
}

/* Of the picture as `window` resizes it, with REFLECTED more pixels on each side, a square at random. */
static bool simple_crop(struct composer *composer, const struct pixels *source, struct resize_window window,
                        uint64_t position, struct error *error)
{
    const size_t size = composer->options.image_size, pixel = composer->channels;
    struct random_words words = random_draw(composer->options.seed, RANDOM_AUGMENT, position, 0);
    uint32_t places_y = (uint32_t)(window.height - size) + 2 * REFLECTED + 1;
    uint32_t places_x = (uint32_t)(window.width - size) + 2 * REFLECTED + 1;
    ptrdiff_t top = (ptrdiff_t)random_below(words.word[1], places_y) - REFLECTED;
    ptrdiff_t left = (ptrdiff_t)random_below(words.word[2], places_x) - REFLECTED;
    const size_t height = window.height, width = window.width;
    ptrdiff_t bottom = top + (ptrdiff_t)size, right = left + (ptrdiff_t)size;
    window.top = top < 0 ? 0 : (size_t)top;
    window.left = left < 0 ? 0 : (size_t)left;
    window.rows = (bottom > (ptrdiff_t)height ? height : (size_t)bottom) - window.top;
    window.columns = (right > (ptrdiff_t)width ? width : (size_t)right) - window.left;
    if (!resized(composer, composer->picture.other, source, &window, error))
        return false;
    uint8_t *out = composer->picture.pixels;
    for (size_t y = 0; y < size; y++) {
        size_t row = reflected(top + (ptrdiff_t)y, height) - window.top;
        for (size_t x = 0; x < size; x++, out += pixel) {
            size_t column = reflected(left + (ptrdiff_t)x, width) - window.left;
            memcpy(out, composer->picture.other + (row * window.columns + column) * pixel, pixel);
        }
    }
    return true;
}

/* Zeros come in where the picture is shifted away from. */
static void shift(struct composer *composer, ptrdiff_t shift_y, ptrdiff_t shift_x)
{
    struct picture *picture = &composer->picture;
    const ptrdiff_t size = (ptrdiff_t)picture->width, pixel = (ptrdiff_t)composer->channels;
    const ptrdiff_t first = shift_x < 0 ? -shift_x : 0, count = size - (shift_x < 0 ? -shift_x : shift_x);
    if (shift_y == 0 && shift_x == 0)
        return;
    memset(picture->other, 0, (size_t)(size * size * pixel));
    for (ptrdiff_t y = 0; y < size; y++)
        if (y + shift_y >= 0 && y + shift_y < size && count > 0)
            memcpy(picture->other + (y * size + first) * pixel,
                   picture->pixels + ((y + shift_y) * size + first + shift_x) * pixel, (size_t)(count * pixel));
    uint8_t *shifted = picture->other;
    picture->other = picture->pixels;
    picture->pixels = shifted;
}

static void mirror(struct composer *composer)
{
    struct picture *picture = &composer->picture;
    const size_t stride = picture->width * composer->channels;
    for (size_t y = 0; y < picture->height; y++)
        pixels_mirror(picture->other + y * stride, picture->pixels + y * stride, picture->width, composer->channels);
    uint8_t *mirrored = picture->other;
    picture->other = picture->pixels;
    picture->pixels = mirrored;
}

/* Fills the picture with the part of the image that the sample shows. */
static bool cut_out(struct composer *composer, struct image_reader *reader, size_t height, size_t width,
                    uint64_t position, struct error *error)
{
    const struct sample_options *options = &composer->options;
    const struct augment *augment = &options->augment;
    const size_t size = options->image_size;
    struct resize_window window = resize_window_whole(size, size);
    struct box part = {0, 0, height, width};
    struct pixels source;
    if (!options->evaluation && augment->random_resized_crop)
        part = crop_drawn(augment, options->seed, position, height, width);
    else
        window = resize_window_centred(height, width, size,
                                       options->evaluation && augment->crop_share > 0 ? augment->crop_share : 1);
    bool reduced = augment->reduced_decode && !options->evaluation;
    if (!decoded_part(reader, &part, height, reduced ? size : 0, &source, &window.part, error))
        return false;
    if (!options->evaluation && augment->simple_crop && !augment->random_resized_crop)
        return simple_crop(composer, &source, window, position, error);
    return resized(composer, composer->picture.pixels, &source, &window, error);
}

bool composer_make(struct composer *composer, struct image_reader *reader, size_t height, size_t width,
                   uint64_t position, struct pixels *picture, struct error *error)
{
    const struct sample_options *options = &composer->options;
    const struct augment *augment = &options->augment;
    if (!cut_out(composer, reader, height, width, position, error))
        return false;
    if (!options->evaluation) {
        struct view view = view_augmented(augment, options->seed, position, height, width);
        shift(composer, view.shift_y, view.shift_x);
        if (view.flip)
            mirror(composer);
        bool grey = augment->three_augment && three_augment_draw(options->seed, position).change == THREE_GREYSCALE;
        if (augment->three_augment)
            three_augment_apply(&composer->picture, options->seed, position);
        if (augment->colour_jitter > 0 && augment->rand_augment.ops == 0) /* as timm */
            colour_jitter_apply(&composer->picture, augment->colour_jitter, options->seed, position, grey);
        rand_augment_apply(&augment->rand_augment, &composer->picture, composer->fill, options->seed, position);
    }
    const size_t size = options->image_size;
    *picture = (struct pixels){composer->picture.pixels, size, size, composer->channels, size * composer->channels};
    return true;
}
