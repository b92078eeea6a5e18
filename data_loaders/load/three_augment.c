/* 3-Augment and colour jitter: draws and what is done with them. */
#include "data_loaders/load/three_augment.h"

#include "data_loaders/image/blend.h"
#include "data_loaders/image/blur.h"
#include "data_loaders/image/tone.h"
#include "src/base/random.h"

struct three_augment_draw three_augment_draw(uint64_t seed, uint64_t position)
{
    struct random_words words = random_draw(seed, RANDOM_THREE_AUGMENT, position, 0);
    return (struct three_augment_draw){.change = random_below(words.word[0], 3),
                                       .radius = 0.1 + 1.9 * random_unit(words.word[1])};
}

void three_augment_apply(struct picture *picture, uint64_t seed, uint64_t position)
{
    struct three_augment_draw drawn = three_augment_draw(seed, position);
    size_t count = picture->height * picture->width;
    if (drawn.change == THREE_GREYSCALE)
        blend_greyscale(picture->pixels, count);
    else if (drawn.change == THREE_SOLARISE)
        tone_solarise(picture->pixels, count, 128);
    else
        blur_gaussian(picture->pixels, picture->other, picture->height, picture->width, (float)drawn.radius);
}

struct colour_jitter_draw colour_jitter_draw(double strength, uint64_t seed, uint64_t position)
{
    static const enum picture_op orders[6][3] = {
        {PICTURE_BRIGHTNESS, PICTURE_CONTRAST, PICTURE_COLOR}, {PICTURE_BRIGHTNESS, PICTURE_COLOR, PICTURE_CONTRAST},
        {PICTURE_CONTRAST, PICTURE_BRIGHTNESS, PICTURE_COLOR}, {PICTURE_CONTRAST, PICTURE_COLOR, PICTURE_BRIGHTNESS},
        {PICTURE_COLOR, PICTURE_BRIGHTNESS, PICTURE_CONTRAST}, {PICTURE_COLOR, PICTURE_CONTRAST, PICTURE_BRIGHTNESS},
    };
    struct random_words words = random_draw(seed, RANDOM_COLOUR_JITTER, position, 0);
    const enum picture_op *order = orders[random_below(words.word[3], 6)];
    double least = strength < 1 ? 1 - strength : 0;
    struct colour_jitter_draw drawn;
    for (int i = 0; i < 3; i++) {
        drawn.op[i] = order[i];
        drawn.factor[i] = least + (1 + strength - least) * random_unit(words.word[i]);
    }
    return drawn;
}

void colour_jitter_apply(struct picture *picture, double strength, uint64_t seed, uint64_t position, bool grey)
{
    static const uint8_t no_fill[3];
    struct colour_jitter_draw drawn = colour_jitter_draw(strength, seed, position);
    for (int i = 0; i < 3; i++)
        if (!(grey && drawn.op[i] == PICTURE_COLOR))
            picture_apply(picture, drawn.op[i], drawn.factor[i], AFFINE_BICUBIC, no_fill);
}
