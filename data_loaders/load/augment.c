/* Draws where a sample's picture comes from: the centre in evaluation, a random crop, shift and mirror in training. */
#include "data_loaders/load/augment.h"
#include "src/base/random.h"

#include <math.h>

bool augment_composes(const struct augment *augment)
{
    return augment->interpolation != INTERPOLATION_FAST || augment->simple_crop || augment->three_augment ||
           augment->colour_jitter > 0 || augment->rand_augment.ops > 0;
}

struct view view_centred(size_t height, size_t width)
{
    size_t side = height < width ? height : width;
    /* Whole pixels, so that a picture that already fits is not blurred by half a pixel. */
    return (struct view){
        .part = {(double)((height - side) / 2), (double)((width - side) / 2), (double)side, (double)side}};
}

struct box crop_drawn(const struct augment *augment, uint64_t seed, uint64_t position, size_t height, size_t width)
{
    const double log_ratio = log(4.0 / 3.0), least = augment->crop_scale_min, most = augment->crop_scale_max;
    for (uint32_t attempt = 1; attempt <= BOX_ATTEMPTS; attempt++) {
        struct random_words words = random_draw(seed, RANDOM_AUGMENT, position, attempt);
        struct box box;
        double share = least + (most - least) * random_unit(words.word[0]);
        if (!box_crop(&box, share, log_ratio * (2 * random_unit(words.word[1]) - 1), height, width))
            continue;
        box.top = random_below(words.word[2], (uint32_t)(height - box.height) + 1);
        box.left = random_below(words.word[3], (uint32_t)(width - box.width) + 1);
        return box;
    }
    return box_crop_fallback(height, width);
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
        struct box box = crop_drawn(augment, seed, position, height, width);
        view.part = (struct rectangle){(double)box.top, (double)box.left, (double)box.height, (double)box.width};
    }
    return view;
}
