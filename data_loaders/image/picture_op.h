/* The fifteen operations of timm's RandAugment in one table: by name, with one argument. */
#ifndef QUEST_DATA_LOADERS_IMAGE_PICTURE_OP_H
#define QUEST_DATA_LOADERS_IMAGE_PICTURE_OP_H

#include <stddef.h>
#include <stdint.h>

#include "data_loaders/image/affine.h"

/* In timm's order (_RAND_INCREASING_TRANSFORMS of timm 1.0.31). */
enum picture_op {
    PICTURE_AUTO_CONTRAST,
    PICTURE_EQUALIZE,
    PICTURE_INVERT,
    PICTURE_ROTATE,       /* degrees, counter-clockwise */
    PICTURE_POSTERIZE,    /* bits kept */
    PICTURE_SOLARIZE,     /* threshold */
    PICTURE_SOLARIZE_ADD, /* what is added */
    PICTURE_COLOR,        /* factors */
    PICTURE_CONTRAST,
    PICTURE_BRIGHTNESS,
    PICTURE_SHARPNESS,
    PICTURE_SHEAR_X, /* factors */
    PICTURE_SHEAR_Y,
    PICTURE_TRANSLATE_X, /* parts of the side */
    PICTURE_TRANSLATE_Y,
    PICTURE_OPS
};

/* A dense RGB picture that ops change; `other` is scratch of the same size, and they may change places. Both have
 * PIXELS_SLACK_BYTES behind them (pixels.h). */
struct picture {
    uint8_t *pixels, *other;
    size_t height, width;
};

/* timm's names of the ops ("PosterizeIncreasing" and the plain one are the same). PICTURE_OPS: there is none such. */
enum picture_op picture_op_named(const char *name);
const char *picture_op_name(enum picture_op op);

/* `filter` and `fill` are of the geometric ops alone. */
void picture_apply(struct picture *picture, enum picture_op op, double argument, enum affine_filter filter,
                   const uint8_t fill[3]);

#endif
