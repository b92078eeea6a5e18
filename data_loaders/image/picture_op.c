/* RandAugment's operations by name. */
#include "data_loaders/image/picture_op.h"

#include <string.h>

#include "data_loaders/image/blend.h"
#include "data_loaders/image/tone.h"

static const char *const names[PICTURE_OPS] = {
    [PICTURE_AUTO_CONTRAST] = "AutoContrast",
    [PICTURE_EQUALIZE] = "Equalize",
    [PICTURE_INVERT] = "Invert",
    [PICTURE_ROTATE] = "Rotate",
    [PICTURE_POSTERIZE] = "Posterize",
    [PICTURE_SOLARIZE] = "Solarize",
    [PICTURE_SOLARIZE_ADD] = "SolarizeAdd",
    [PICTURE_COLOR] = "Color",
    [PICTURE_CONTRAST] = "Contrast",
    [PICTURE_BRIGHTNESS] = "Brightness",
    [PICTURE_SHARPNESS] = "Sharpness",
    [PICTURE_SHEAR_X] = "ShearX",
    [PICTURE_SHEAR_Y] = "ShearY",
    [PICTURE_TRANSLATE_X] = "TranslateXRel",
    [PICTURE_TRANSLATE_Y] = "TranslateYRel",
};

enum picture_op picture_op_named(const char *name)
{
    static const char increasing[] = "Increasing";
    size_t length = strlen(name), tail = sizeof increasing - 1;
    if (length > tail && strcmp(name + length - tail, increasing) == 0)
        length -= tail;
    enum picture_op op = (enum picture_op)0;
    while (op < PICTURE_OPS && (strlen(names[op]) != length || strncmp(names[op], name, length) != 0))
        op++;
    return op;
}

const char *picture_op_name(enum picture_op op)
{
    return names[op];
}

static struct affine map_of(const struct picture *picture, enum picture_op op, double argument)
{
    switch (op) {
    case PICTURE_SHEAR_X:
        return affine_shear_x(argument);
    case PICTURE_SHEAR_Y:
        return affine_shear_y(argument);
    case PICTURE_TRANSLATE_X:
        return affine_translate_x(argument, picture->width);
    default:
        return affine_translate_y(argument, picture->height);
    }
}

static void move(struct picture *picture, enum picture_op op, double argument, enum affine_filter filter,
                 const uint8_t fill[3])
{
    size_t height = picture->height, width = picture->width;
    if (op == PICTURE_ROTATE) {
        affine_rotated(picture->other, picture->pixels, height, width, argument, filter, fill);
    } else {
        struct affine map = map_of(picture, op, argument);
        affine_transform(picture->other, picture->pixels, height, width, &map, filter, fill);
    }
    uint8_t *moved = picture->other;
    picture->other = picture->pixels;
    picture->pixels = moved;
}

void picture_apply(struct picture *picture, enum picture_op op, double argument, enum affine_filter filter,
                   const uint8_t fill[3])
{
    uint8_t *pixels = picture->pixels;
    size_t count = picture->height * picture->width;
    switch (op) {
    case PICTURE_AUTO_CONTRAST:
        tone_stretch(pixels, count);
        break;
    case PICTURE_EQUALIZE:
        tone_equalise(pixels, count);
        break;
    case PICTURE_INVERT:
        tone_invert(pixels, count);
        break;
    case PICTURE_POSTERIZE:
        tone_posterise(pixels, count, (int)argument);
        break;
    case PICTURE_SOLARIZE:
        tone_solarise(pixels, count, (int)argument);
        break;
    case PICTURE_SOLARIZE_ADD:
        tone_solarise_add(pixels, count, (int)argument);
        break;
    case PICTURE_COLOR:
        blend_colour(pixels, count, (float)argument);
        break;
    case PICTURE_CONTRAST:
        blend_contrast(pixels, count, (float)argument);
        break;
    case PICTURE_BRIGHTNESS:
        blend_brightness(pixels, count, (float)argument);
        break;
    case PICTURE_SHARPNESS:
        blend_sharpness(pixels, picture->other, picture->height, picture->width, (float)argument);
        break;
    default:
        move(picture, op, argument, filter, fill);
    }
}
