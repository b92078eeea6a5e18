/* One vector of four float64 holds a pixel's channels (and a neighbour's number, ignored); a filter's taps along a row
 * are four such vectors. What a map leaves at whole pixels in one direction is filtered in the other alone, eight
 * numbers at a time: the polynomials give the middle tap exactly at a fraction of 0. */
#include "data_loaders/image/affine.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data_loaders/image/lanes.h"

enum { CHANNELS = 3 };

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

static inline doubles4 cubic(doubles4 p, doubles4 q, doubles4 r, doubles4 s, double d)
{
    return q + d * ((r - p) + d * ((2 * (p - q) + r - s) + d * (q - p - r + s)));
}

static inline doubles4 linear(doubles4 p, doubles4 q, double d)
{
    return p + (q - p) * d;
}

/* Of the four taps about a place: the second's index and the fraction from there to the third. Places inside a picture
 * are not negative: from a half on, place - 1/2 is truncated downwards. */
struct taps {
    ptrdiff_t second;
    double fraction;
};

static inline struct taps taps_at(double place)
{
    ptrdiff_t second = place < 0.5 ? -1 : (ptrdiff_t)(place - 0.5);
    return (struct taps){second, place - 0.5 - (double)second};
}

static inline bool all_inside(const struct taps *taps, ptrdiff_t extent)
{
    return taps->second >= 1 && taps->second + 2 < extent;
}

/* Offsets of the four, `step` bytes apart; those outside are moved to the border. */
static inline void find_offsets(size_t offset[4], const struct taps *taps, ptrdiff_t extent, size_t step)
{
    for (int i = 0; i < 4; i++) {
        ptrdiff_t at = taps->second - 1 + i;
        offset[i] = step * (size_t)(at < 0 ? 0 : at >= extent ? extent - 1 : at);
    }
}

/* Four taps at these offsets. */
static inline __attribute__((always_inline)) doubles4 cubic_of(const uint8_t *in, const size_t offset[4],
                                                               double fraction)
{
    return cubic(load_doubles4(in + offset[0]), load_doubles4(in + offset[1]), load_doubles4(in + offset[2]),
                 load_doubles4(in + offset[3]), fraction);
}

static inline __attribute__((always_inline)) doubles4 bicubic_of(const uint8_t *in, const size_t column[4],
                                                                 const size_t row[4], double x, double y)
{
    return cubic(cubic_of(in + row[0], column, x), cubic_of(in + row[1], column, x), cubic_of(in + row[2], column, x),
                 cubic_of(in + row[3], column, x), y);
}

static doubles4 bilinear_of(const uint8_t *in, const size_t column[4], const size_t row[4], double x, double y)
{
    const uint8_t *top = in + row[1], *bottom = in + row[2];
    return linear(linear(load_doubles4(top + column[1]), load_doubles4(top + column[2]), x),
                  linear(load_doubles4(bottom + column[1]), load_doubles4(bottom + column[2]), x), y);
}

/* A picture and how to look into it. */
struct source {
    const uint8_t *in;
    ptrdiff_t height, width;
    size_t stride;
    enum affine_filter filter;
};

static __attribute__((noinline)) doubles4 at_border(const struct source *from, const struct taps *x,
                                                    const struct taps *y)
{
    size_t column[4], row[4];
    find_offsets(column, x, from->width, CHANNELS);
    find_offsets(row, y, from->height, from->stride);
    return (from->filter == AFFINE_BICUBIC ? bicubic_of : bilinear_of)(from->in, column, row, x->fraction, y->fraction);
}

static inline __attribute__((always_inline)) doubles4 value_at(const struct source *from, double x, double y)
{
    const struct taps across = taps_at(x), down = taps_at(y);
    const size_t stride = from->stride;
    const size_t column[4] = {0, CHANNELS, 2 * CHANNELS, 3 * CHANNELS}, row[4] = {0, stride, 2 * stride, 3 * stride};
    if (from->filter != AFFINE_BICUBIC || !all_inside(&across, from->width) || !all_inside(&down, from->height))
        return at_border(from, &across, &down);
    const uint8_t *first = from->in + (size_t)(down.second - 1) * stride + CHANNELS * (size_t)(across.second - 1);
    return bicubic_of(first, column, row, across.fraction, down.fraction);
}

static void transform(uint8_t *out, const struct source *from, const struct affine *map, const uint8_t fill[3])
{
    const struct affine m = *map; /* not read again after each store */
    const double right = (double)from->width, bottom = (double)from->height;
    const uint8_t outside[4] = {fill[0], fill[1], fill[2], 0};
    const struct source source = *from;
    for (ptrdiff_t row = 0; row < source.height; row++)
        for (ptrdiff_t column = 0; column < source.width; column++, out += CHANNELS) {
            double centre_x = (double)column + 0.5, centre_y = (double)row + 0.5;
            double x = m.a * centre_x + m.b * centre_y + m.c, y = m.d * centre_x + m.e * centre_y + m.f;
            if (x >= 0 && x < right && y >= 0 && y < bottom)
                store_doubles4(out, value_at(&source, x, y));
            else
                memcpy(out, outside, sizeof outside);
        }
}

/* ---- maps that move pixels in one direction: at whole pixels in the other a polynomial gives its second tap ---- */

enum { OUTSIDE = -2, SPAN_LANES = 8 };

/* A row of the output: for each pixel the second of its four taps in the direction that moves, or OUTSIDE, and for each
 * of its numbers the fraction. */
struct row {
    int32_t *second;
    double *fraction;
};

/* Numbers out[0 .. count) from the four numbers of each that lie `step` apart, the first at from[i]; a polynomial's
 * coefficients are integers. Up to SPAN_LANES - 1 numbers more are read and written. */
static void cubic_span(uint8_t *out, const uint8_t *from, size_t step, const double *fraction, size_t count)
{
    for (size_t i = 0; i < count; i += SPAN_LANES) {
        integers8 p = (integers8)load_words8(from + i), q = (integers8)load_words8(from + i + step);
        integers8 r = (integers8)load_words8(from + i + 2 * step), s = (integers8)load_words8(from + i + 3 * step);
        integers8 once = r - p, twice = 2 * (p - q) + r - s, thrice = q - p - r + s;
        for (size_t half = 0; half < 2; half++) {
            doubles4 d;
            memcpy(&d, fraction + i + 4 * half, sizeof d);
            doubles4 value =
                half_of(q, half) + d * (half_of(once, half) + d * (half_of(twice, half) + d * half_of(thrice, half)));
            store_doubles4(out + i + 4 * half, value);
        }
    }
}

/* The place in the direction that moves: factor * (column + 1/2) + start + offset, in this order. */
struct line {
    double factor, start, offset;
};

/* Four columns at a time, up to three too many. */
static void plan_row(const struct row *row, const struct line *line, ptrdiff_t width, ptrdiff_t extent)
{
    const double end = (double)extent;
    double by_pixel[width + 3];
    const doubles4 outside = {OUTSIDE, OUTSIDE, OUTSIDE, OUTSIDE};
    doubles4 centre = {0.5, 1.5, 2.5, 3.5};
    for (ptrdiff_t column = 0; column < width; column += 4, centre += 4) {
        doubles4 place = line->factor * centre + line->start + line->offset;
        longs4 inside = (place >= 0) & (place < end);
        place = (doubles4)((longs4)place & inside) - 0.5;
        doubles4 below = floor4(place);
        doubles4 fraction = place - below;
        integers4 second = integers_of((doubles4)(((longs4)below & inside) | ((longs4)outside & ~inside)));
        memcpy(row->second + column, &second, sizeof second);
        memcpy(by_pixel + column, &fraction, sizeof fraction);
    }
    for (ptrdiff_t column = 0; column < width; column++)
        for (ptrdiff_t c = 0; c < CHANNELS; c++)
            row->fraction[CHANNELS * column + c] = by_pixel[column];
}

/* Pixels from `column` on whose taps lie inside and follow those of `column` by a pixel each, or are the same rows. */
static ptrdiff_t span_end(const struct row *row, ptrdiff_t column, ptrdiff_t width, ptrdiff_t extent, bool along)
{
    const int32_t second = row->second[column];
    ptrdiff_t end = column + 1;
    while (end < width && row->second[end] == second + (along ? end - column : 0) && row->second[end] + 2 < extent)
        end++;
    return end;
}

/* One row of the output, from left to right: what a span writes behind its end is written again. */
static void move_row(uint8_t *out, const struct source *from, const struct row *row, ptrdiff_t y, bool along,
                     const uint8_t fill[3])
{
    const uint8_t outside[4] = {fill[0], fill[1], fill[2], 0};
    const ptrdiff_t extent = along ? from->width : from->height;
    for (ptrdiff_t column = 0, end; column < from->width; column = end) {
        uint8_t *to = out + CHANNELS * column;
        const struct taps moved = {row->second[column], row->fraction[CHANNELS * column]};
        end = column + 1;
        if (moved.second == OUTSIDE) {
            memcpy(to, outside, sizeof outside);
        } else if (!all_inside(&moved, extent)) {
            const struct taps kept = {along ? y : column, 0};
            store_doubles4(to, at_border(from, along ? &moved : &kept, along ? &kept : &moved));
        } else {
            end = span_end(row, column, from->width, extent, along);
            const size_t top = (size_t)(along ? y : moved.second - 1);
            const size_t left = (size_t)(along ? moved.second - 1 : column);
            cubic_span(to, from->in + top * from->stride + CHANNELS * left, along ? CHANNELS : from->stride,
                       row->fraction + CHANNELS * column, CHANNELS * (size_t)(end - column));
        }
    }
}

/* Along the rows, or else down the columns. */
static void move_numbers(uint8_t *out, const struct source *from, const struct affine *map, bool along,
                         const uint8_t fill[3])
{
    int32_t second[from->width + 3];
    double fraction[CHANNELS * from->width + SPAN_LANES];
    const struct row row = {second, fraction};
    memset(fraction + CHANNELS * from->width, 0, SPAN_LANES * sizeof *fraction);
    for (ptrdiff_t y = 0; y < from->height; y++, out += from->stride) {
        double centre = (double)y + 0.5;
        const struct line line = {along ? map->a : map->d, (along ? map->b : map->e) * centre, along ? map->c : map->f};
        plan_row(&row, &line, from->width, along ? from->width : from->height);
        move_row(out, from, &row, y, along, fill);
    }
}

void affine_transform(uint8_t *out, const uint8_t *in, size_t height, size_t width, const struct affine *map,
                      enum affine_filter filter, const uint8_t fill[3])
{
    const struct source from = {in, (ptrdiff_t)height, (ptrdiff_t)width, CHANNELS * width, filter};
    if (filter == AFFINE_BICUBIC && map->d == 0 && map->e == 1 && map->f == 0)
        move_numbers(out, &from, map, true, fill);
    else if (filter == AFFINE_BICUBIC && map->a == 1 && map->b == 0 && map->c == 0)
        move_numbers(out, &from, map, false, fill);
    else
        transform(out, &from, map, fill);
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
