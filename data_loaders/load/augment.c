/* Draws where a sample's picture comes from: the centre in evaluation, a random crop, shift and mirror in training. */
#include "data_loaders/load/augment.h"
#include "src/base/random.h"

#include <math.h>

enum { CROP_TRIES = 10 };

struct view view_centred(size_t height, size_t width)
{
    size_t side = height < width ? height : width;
    /* Whole pixels, so that a picture that already fits is not blurred by half a pixel. */
    return (struct view){
        .part = {(double)((height - side) / 2), (double)((width - side) / 2), (double)side, (double)side}};
}

static bool draw_crop(struct rectangle *part, const struct augment *augment, struct random_words words, size_t height,
                      size_t width)
{
    const double log_aspect = log(4.0 / 3.0);
    double scale =
        augment->crop_scale_min + (augment->crop_scale_max - augment->crop_scale_min) * random_unit(words.word[0]);
    double area = (double)height * (double)width * scale;
    double aspect = exp(log_aspect * (2 * random_unit(words.word[1]) - 1));
    double crop_width = round(sqrt(area * aspect)), crop_height = round(sqrt(area / aspect));
    if (crop_width < 1 || crop_height < 1 || crop_width > (double)width || crop_height > (double)height)
        return false;
    uint32_t free_rows = (uint32_t)(height - (size_t)crop_height) + 1;
    uint32_t free_columns = (uint32_t)(width - (size_t)crop_width) + 1;
    *part = (struct rectangle){random_below(words.word[2], free_rows), random_below(words.word[3], free_columns),
                               crop_height, crop_width};
    return true;
}

struct view view_augmented(const struct augment *augment, uint64_t seed, uint64_t position, size_t height, size_t width)
{
    struct view view = view_centred(height, width);
    struct random_words words = random_draw(seed, RANDOM_AUGMENT, position, 0);
    view.flip = augment->flip && (words.word[0] & 1);
    if (augment->crop_padding > 0) {
        uint32_t places = 2 * (uint32_t)augment->crop_padding + 1;
        view.shift_y = (ptrdiff_t)random_below(words.word[1], places) - (ptrdiff_t)augment->crop_padding;
        view.shift_x = (ptrdiff_t)random_below(words.word[2], places) - (ptrdiff_t)augment->crop_padding;
    }
    if (augment->random_resized_crop) {
        bool drawn = false;
        for (uint32_t draw = 1; !drawn && draw <= CROP_TRIES; draw++)
            drawn = draw_crop(&view.part, augment, random_draw(seed, RANDOM_AUGMENT, position, draw), height, width);
    }
    return view;
}
