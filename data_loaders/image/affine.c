/* One vector of four float64 holds a pixel's channels (and a neighbour's number, ignored); a filter's taps along a row
 * are four such vectors. What a map leaves at whole pixels in one direction is filtered in the other alone: the
 * polynomials give the middle tap exactly at a fraction of 0. */
#include "data_loaders/image/affine.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNELS = 3 };

typedef double lanes __attribute__((vector_size(32)));
typedef uint8_t bytes4 __attribute__((vector_size(4)));
typedef int32_t ints4 __attribute__((vector_size(16)));

struct affine affine_shear_x(double factor)
{
    return (struct affine){1, factor, 0, 0, 1, 0};
}

struct affine affine_shear_y(double factor)
{
    return (struct affine){1, 0, 0, factor, 1, 0};
}

struct affine affine_translate_x(double part, size_t width)
{
    return (struct affine){1, 0, part * (double)width, 0, 1, 0};
}

struct affine affine_translate_y(double part, size_t height)
{
    return (struct affine){1, 0, 0, 0, 1, part * (double)height};
}

/* To 15 decimals, as Python's round does. */
static double fifteen_decimals(double x)
{
    char text[64];
    snprintf(text, sizeof text, "%.15f", x);
    return strtod(text, NULL);
}

/* degrees mod 360 as Python has it: 0 <= result < 360. */
static double turn(double degrees)
{
    double rest = fmod(degrees, 360);
    return rest < 0 ? rest + 360 : rest;
}

struct affine affine_rotate(double degrees, size_t height, size_t width)
{
    double angle = -(turn(degrees) * (M_PI / 180)), x = (double)width / 2, y = (double)height / 2;
    struct affine map = {.a = fifteen_decimals(cos(angle)), .b = fifteen_decimals(sin(angle))};
    map.d = fifteen_decimals(-sin(angle));
    map.e = map.a;
    map.c = map.a * -x + map.b * -y + 0 + x;
    map.f = map.d * -x + map.e * -y + 0 + y;
    return map;
}

static inline lanes load_pixel(const uint8_t *pixel)
{
    bytes4 raw;
    memcpy(&raw, pixel, sizeof raw);
    return __builtin_convertvector(__builtin_convertvector(raw, ints4), lanes);
}

static inline lanes cubic(lanes p, lanes q, lanes r, lanes s, double d)
{
    return q + d * ((r - p) + d * ((2 * (p - q) + r - s) + d * (q - p - r + s)));
}

static inline lanes linear(lanes p, lanes q, double d)
{
    return p + (q - p) * d;
}

/* Where the taps of one output pixel lie: byte offsets of columns and rows, those outside moved to the border. */
struct taps {
    size_t column[4], row[4];
    double fraction_x, fraction_y;
};

static inline size_t inside(ptrdiff_t at, size_t extent)
{
    return at < 0 ? 0 : at >= (ptrdiff_t)extent ? extent - 1 : (size_t)at;
}

static inline void find_taps(struct taps *taps, double x, double y, size_t height, size_t width)
{
    double left = floor(x - 0.5), top = floor(y - 0.5);
    taps->fraction_x = x - 0.5 - left;
    taps->fraction_y = y - 0.5 - top;
    for (int i = 0; i < 4; i++) {
        taps->column[i] = CHANNELS * inside((ptrdiff_t)left - 1 + i, width);
        taps->row[i] = CHANNELS * width * inside((ptrdiff_t)top - 1 + i, height);
    }
}

static inline lanes cubic_along(const uint8_t *row, const struct taps *taps)
{
    return cubic(load_pixel(row + taps->column[0]), load_pixel(row + taps->column[1]),
                 load_pixel(row + taps->column[2]), load_pixel(row + taps->column[3]), taps->fraction_x);
}

static lanes bicubic_at(const uint8_t *in, const struct taps *taps)
{
    if (taps->fraction_y == 0)
        return cubic_along(in + taps->row[1], taps);
    if (taps->fraction_x == 0) {
        const uint8_t *first = in + taps->column[1];
        return cubic(load_pixel(first + taps->row[0]), load_pixel(first + taps->row[1]),
                     load_pixel(first + taps->row[2]), load_pixel(first + taps->row[3]), taps->fraction_y);
    }
    return cubic(cubic_along(in + taps->row[0], taps), cubic_along(in + taps->row[1], taps),
                 cubic_along(in + taps->row[2], taps), cubic_along(in + taps->row[3], taps), taps->fraction_y);
}

static lanes bilinear_at(const uint8_t *in, const struct taps *taps)
{
    const uint8_t *top = in + taps->row[1], *bottom = in + taps->row[2];
    return linear(linear(load_pixel(top + taps->column[1]), load_pixel(top + taps->column[2]), taps->fraction_x),
                  linear(load_pixel(bottom + taps->column[1]), load_pixel(bottom + taps->column[2]), taps->fraction_x),
                  taps->fraction_y);
}

static void store_pixel(uint8_t *out, lanes value)
{
    for (int c = 0; c < CHANNELS; c++)
        out[c] = (uint8_t)(value[c] <= 0 ? 0 : value[c] >= 255 ? 255 : value[c]);
}

void affine_transform(uint8_t *out, const uint8_t *in, size_t height, size_t width, const struct affine *map,
                      enum affine_filter filter, const uint8_t fill[3])
{
    for (size_t row = 0; row < height; row++)
        for (size_t column = 0; column < width; column++, out += CHANNELS) {
            double centre_x = (double)column + 0.5, centre_y = (double)row + 0.5;
            double x = map->a * centre_x + map->b * centre_y + map->c;
            double y = map->d * centre_x + map->e * centre_y + map->f;
            if (!(x >= 0 && x < (double)width && y >= 0 && y < (double)height)) {
                memcpy(out, fill, CHANNELS);
                continue;
            }
            struct taps taps;
            find_taps(&taps, x, y, height, width);
            store_pixel(out, filter == AFFINE_BICUBIC ? bicubic_at(in, &taps) : bilinear_at(in, &taps));
        }
}

/* out[y, x] = in[..] turned by quarter turns counter-clockwise; 1 and 3 of squares only. */
static void move_pixels(uint8_t *out, const uint8_t *in, size_t height, size_t width, int quarters)
{
    for (size_t y = 0; y < height; y++)
        for (size_t x = 0; x < width; x++, out += CHANNELS) {
            size_t from_y = quarters == 2 ? height - 1 - y : quarters == 1 ? x : height - 1 - x;
            size_t from_x = quarters == 2 ? width - 1 - x : quarters == 1 ? width - 1 - y : y;
            memcpy(out, in + CHANNELS * (from_y * width + from_x), CHANNELS);
        }
}

void affine_rotated(uint8_t *out, const uint8_t *in, size_t height, size_t width, double degrees,
                    enum affine_filter filter, const uint8_t fill[3])
{
    double rest = turn(degrees);
    bool moves = rest == 180 || (height == width && (rest == 90 || rest == 270));
    if (rest == 0) {
        memcpy(out, in, CHANNELS * height * width);
    } else if (moves) {
        move_pixels(out, in, height, width, (int)(rest / 90));
    } else {
        struct affine map = affine_rotate(degrees, height, width);
        affine_transform(out, in, height, width, &map, filter, fill);
    }
}
