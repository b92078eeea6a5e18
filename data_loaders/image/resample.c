/* Resizes by fixed-point sums, down the columns and then along the row, with weights planned once for each axis. */
#include "data_loaders/image/resample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data_loaders/image/resample_rgb.h"
#include "data_loaders/image/scratch.h"

/* Weights are fixed-point with 14 bits. Between the passes values keep 7 of them: 255 * 2^7 fits an int16, and times
 * 2^14 an int32 with rounding to spare. */
enum { WEIGHT_BITS = 14, KEPT_BITS = 7 };

/* For every output index: its first input index, and `taps` weights that add up to 1 << WEIGHT_BITS. */
struct axis {
    size_t taps;
    int32_t *first;  /* [size] */
    int16_t *weight; /* [size * taps] */
    size_t capacity; /* of weight */
    size_t size_capacity;
};

struct resampler {
    struct axis vertical, horizontal;
    struct resample_rgb rgb;
    int16_t *row;  /* [columns of the part, channels]: one output row after the vertical pass */
    int32_t *sums; /* the same, for many taps */
    size_t row_capacity, sums_capacity;
};

struct resampler *resampler_open(void)
{
    return calloc(1, sizeof(struct resampler));
}

void resampler_close(struct resampler *resampler)
{
    if (!resampler)
        return;
    free(resampler->vertical.first);
    free(resampler->vertical.weight);
    free(resampler->horizontal.first);
    free(resampler->horizontal.weight);
    free(resampler->rgb.tables);
    free(resampler->row);
    free(resampler->sums);
    free(resampler);
}

/* Fills weight[0..taps) for an output whose centre lies at `centre` of the input axis, in input pixels. */
static void triangle_weights(int16_t *weight, size_t taps, long first, double centre, double scale, long extent)
{
    double exact[taps], sum = 0;
    for (size_t t = 0; t < taps; t++) {
        long at = first + (long)t;
        double distance = fabs(((double)at + 0.5 - centre) / scale);
        exact[t] = at < extent && distance < 1 ? 1 - distance : 0;
        sum += exact[t];
    }
    int32_t left = 1 << WEIGHT_BITS;
    size_t heaviest = 0;
    for (size_t t = 0; t < taps; t++) {
        weight[t] = (int16_t)lrint(exact[t] / sum * (1 << WEIGHT_BITS));
        left -= weight[t];
        if (weight[t] > weight[heaviest])
            heaviest = t;
    }
    weight[heaviest] = (int16_t)(weight[heaviest] + left); /* so that a flat area stays exactly flat */
}

/* `size` outputs over [start, start + length) of an axis of `extent` pixels. */
static bool plan_axis(struct axis *axis, size_t size, double start, double length, size_t extent)
{
    double step = length / (double)size, scale = step > 1 ? step : 1;
    axis->taps = (size_t)ceil(2 * scale); /* so many pixel centres lie inside the triangle at most */
    if (axis->taps > extent)
        axis->taps = extent;
    if (!scratch_grow((void **)&axis->first, &axis->size_capacity, size * sizeof *axis->first) ||
        !scratch_grow((void **)&axis->weight, &axis->capacity, size * axis->taps * sizeof *axis->weight))
        return false;
    for (size_t i = 0; i < size; i++) {
        double centre = start + ((double)i + 0.5) * step;
        long first = (long)floor(centre - scale + 0.5), last = (long)extent - (long)axis->taps;
        first = first < 0 ? 0 : first > last ? last : first;
        axis->first[i] = (int32_t)first;
        triangle_weights(axis->weight + i * axis->taps, axis->taps, first, centre, scale, (long)extent);
    }
    return true;
}

/* One output row: a weighted sum of whole input rows, which the compiler turns into vector code. `taps` is a constant
 * at the calls below that matter: the sum then stays in registers and the row is written once. */
static inline __attribute__((always_inline)) void sum_rows(int16_t *restrict row, const uint8_t *restrict first_row,
                                                           size_t stride, const int16_t *restrict weight, size_t taps,
                                                           size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int32_t sum = 1 << (WEIGHT_BITS - KEPT_BITS - 1);
        for (size_t t = 0; t < taps; t++)
            sum += weight[t] * first_row[t * stride + i];
        row[i] = (int16_t)(sum >> (WEIGHT_BITS - KEPT_BITS));
    }
}

/* Any number of rows, one after the other through the sums in memory. */
static void sum_many_rows(int16_t *restrict row, int32_t *restrict sums, const uint8_t *first_row, size_t stride,
                          const int16_t *weight, size_t taps, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sums[i] = 1 << (WEIGHT_BITS - KEPT_BITS - 1);
    for (size_t t = 0; t < taps; t++) {
        const uint8_t *restrict in = first_row + t * stride;
        const int32_t w = weight[t];
        if (w == 0)
            continue;
        for (size_t i = 0; i < count; i++)
            sums[i] += w * in[i];
    }
    for (size_t i = 0; i < count; i++)
        row[i] = (int16_t)(sums[i] >> (WEIGHT_BITS - KEPT_BITS));
}

static void vertical_row(int16_t *row, int32_t *sums, const uint8_t *first_row, size_t stride, const int16_t *weight,
                         size_t taps, size_t count)
{
    switch (taps) {
    case 2: /* enlarging */
        sum_rows(row, first_row, stride, weight, 2, count);
        break;
    case 3: /* shrinking by up to 1.5 */
        sum_rows(row, first_row, stride, weight, 3, count);
        break;
    case 4: /* by up to 2, beyond which JPEG is decoded smaller */
        sum_rows(row, first_row, stride, weight, 4, count);
        break;
    default:
        sum_many_rows(row, sums, first_row, stride, weight, taps, count);
    }
}

enum { FINAL_BITS = WEIGHT_BITS + KEPT_BITS };
typedef int32_t lanes __attribute__((vector_size(16)));
typedef int16_t halves __attribute__((vector_size(8)));

typedef uint8_t bytes4 __attribute__((vector_size(4)));

/* RGB: one vector holds a pixel's three sums (and one number of its neighbour, ignored), so a tap is one load, one
 * multiplication and one addition. */
static inline __attribute__((always_inline)) lanes pixel_rgb(const int16_t *in, const int16_t *weight, size_t taps)
{
    lanes sum = {1 << (FINAL_BITS - 1), 1 << (FINAL_BITS - 1), 1 << (FINAL_BITS - 1), 0};
    for (size_t t = 0; t < taps; t++) {
        halves pixel;
        memcpy(&pixel, in + 3 * t, sizeof pixel);
        sum += __builtin_convertvector(pixel, lanes) * weight[t];
    }
    return sum >> FINAL_BITS;
}

/* `taps` is a constant at the calls below that matter, so that it all unrolls. A pixel is stored as four bytes, of
 * which the next one overwrites the last; only the row's last pixel is stored as three. */
static inline __attribute__((always_inline)) void row_rgb(uint8_t *restrict out, const int16_t *restrict row,
                                                          const struct axis *axis, size_t size, size_t taps)
{
    for (size_t x = 0; x + 1 < size; x++) {
        bytes4 pixel =
            __builtin_convertvector(pixel_rgb(row + 3 * (size_t)axis->first[x], axis->weight + x * taps, taps), bytes4);
        memcpy(out + 3 * x, &pixel, sizeof pixel);
    }
    size_t last = size - 1;
    lanes pixel = pixel_rgb(row + 3 * (size_t)axis->first[last], axis->weight + last * taps, taps);
    for (int c = 0; c < 3; c++)
        out[3 * last + (size_t)c] = (uint8_t)pixel[c];
}

static void horizontal_row_rgb(uint8_t *out, const int16_t *row, const struct axis *axis, size_t size)
{
    switch (axis->taps) {
    case 2: /* enlarging */
        row_rgb(out, row, axis, size, 2);
        break;
    case 3: /* shrinking by up to 1.5 */
        row_rgb(out, row, axis, size, 3);
        break;
    case 4: /* by up to 2, beyond which JPEG is decoded smaller */
        row_rgb(out, row, axis, size, 4);
        break;
    default:
        row_rgb(out, row, axis, size, axis->taps);
    }
}

static void horizontal_row_gray(uint8_t *out, const int16_t *row, const struct axis *axis, size_t size)
{
    for (size_t x = 0; x < size; x++) {
        int32_t sum = 1 << (FINAL_BITS - 1);
        for (size_t t = 0; t < axis->taps; t++)
            sum += axis->weight[x * axis->taps + t] * row[(size_t)axis->first[x] + t];
        out[x] = (uint8_t)(sum >> FINAL_BITS);
    }
}

bool resample(struct resampler *resampler, uint8_t *out, size_t size, const struct pixels *source,
              const struct rectangle *part)
{
    struct axis *vertical = &resampler->vertical, *horizontal = &resampler->horizontal;
    if (!plan_axis(vertical, size, part->top, part->height, source->height) ||
        !plan_axis(horizontal, size, part->left, part->width, source->width))
        return false;
    /* Only the columns that some output needs go through the vertical pass. */
    size_t left = (size_t)horizontal->first[0];
    size_t columns = (size_t)horizontal->first[size - 1] + horizontal->taps - left;
    size_t count = columns * source->channels;
    for (size_t x = 0; x < size; x++)
        horizontal->first[x] -= (int32_t)left;
    if (!scratch_grow((void **)&resampler->row, &resampler->row_capacity,
                      count * sizeof *resampler->row + RESAMPLE_RGB_SLACK_BYTES) ||
        !scratch_grow((void **)&resampler->sums, &resampler->sums_capacity, count * sizeof *resampler->sums))
        return false;
    bool by_groups = source->channels == 3 &&
                     resample_rgb_plan(&resampler->rgb, horizontal->first, horizontal->weight, horizontal->taps, size);
    resampler->row[count] = 0; /* the last pixel's vector reads one number past it */
    for (size_t y = 0; y < size; y++) {
        const uint8_t *first_row =
            source->bytes + (size_t)vertical->first[y] * source->stride + left * source->channels;
        vertical_row(resampler->row, resampler->sums, first_row, source->stride, vertical->weight + y * vertical->taps,
                     vertical->taps, count);
        uint8_t *line = out + y * size * source->channels;
        if (by_groups)
            resample_rgb_row(&resampler->rgb, line, resampler->row, FINAL_BITS);
        else if (source->channels == 3)
            horizontal_row_rgb(line, resampler->row, horizontal, size);
        else
            horizontal_row_gray(line, resampler->row, horizontal, size);
    }
    return true;
}
