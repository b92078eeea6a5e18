/* Affine maps of an RGB picture as Pillow's Image.transform makes them: for each output pixel the place in the input,
 * in float64, without antialiasing. */
#ifndef QUEST_DATA_LOADERS_IMAGE_AFFINE_H
#define QUEST_DATA_LOADERS_IMAGE_AFFINE_H

#include <stddef.h>
#include <stdint.h>

enum affine_filter { AFFINE_BILINEAR, AFFINE_BICUBIC /* a = -1 */ };

/* From output to input: x' = a x + b y + c, y' = d x + e y + f, of pixel centres at halves. */
struct affine {
    double a, b, c, d, e, f;
};

struct affine affine_shear_x(double factor);
struct affine affine_shear_y(double factor);
/* By a part of the side: pixels = part * side. */
struct affine affine_translate_x(double part, size_t width);
struct affine affine_translate_y(double part, size_t height);
/* Counter-clockwise about the centre. */
struct affine affine_rotate(double degrees, size_t height, size_t width);

/* out [height, width, 3] from in, of the same size and with PIXELS_SLACK_BYTES readable behind it (pixels.h), which are
 * writable behind out; places outside the input become `fill`. */
void affine_transform(uint8_t *out, const uint8_t *in, size_t height, size_t width, const struct affine *map,
                      enum affine_filter filter, const uint8_t fill[3]);
/* affine_rotate applied, with right angles as Pillow does them: by moving pixels. */
void affine_rotated(uint8_t *out, const uint8_t *in, size_t height, size_t width, double degrees,
                    enum affine_filter filter, const uint8_t fill[3]);

#endif
