/* Pillow's resampling (libImaging/Resample.c): weights of 22 bits, planned once for each axis, and int32 sums. */
#include "data_loaders/image/resize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data_loaders/image/resize_down.h"
#include "data_loaders/image/resize_rgb.h"
#include "data_loaders/image/resize_rgb_wide.h"
#include "data_loaders/image/scratch.h"

enum { WEIGHT_BITS = 32 - 8 - 2, ROUNDING = 1 << (WEIGHT_BITS - 1) };

/* For every output index its first input index and how many weights count; `taps` weights lie side by side, the last
 * of them zero where fewer count. */
struct axis {
    size_t taps, size_capacity, weight_capacity;
    int32_t *first;  /* [size] */
    int32_t *weight; /* [size, taps] */
};

struct resizer {
    struct axis horizontal, vertical;
    struct resize_rgb rgb;
    struct resize_rgb_wide wide;
    uint8_t *rows; /* [source height, width, channels]: after the pass along the rows */
    size_t rows_capacity;
};

struct resizer *resizer_open(void)
{
    return calloc(1, sizeof(struct resizer));
}

static void release_axis(struct axis *axis)
{
    free(axis->first);
    free(axis->weight);
}

void resizer_close(struct resizer *resizer)
{
    if (!resizer)
        return;
    release_axis(&resizer->horizontal);
    release_axis(&resizer->vertical);
    resize_rgb_release(&resizer->rgb);
    resize_rgb_wide_release(&resizer->wide);
    free(resizer->rows);
    free(resizer);
}

static double kernel(enum resize_filter filter, double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (filter == RESIZE_BILINEAR)
        return x < 1 ? 1 - x : 0;
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/* The weights of one output whose centre lies at `centre` of the input axis. */
static void plan_output(struct axis *axis, size_t output, double centre, double scale, size_t extent,
                        enum resize_filter filter)
{
    double support = (filter == RESIZE_BICUBIC ? 2 : 1) * scale, nearer = 1 / scale, sum = 0;
    double exact[axis->taps];
    long from = (long)(centre - support + 0.5), to = (long)(centre + support + 0.5);
    from = from < 0 ? 0 : from;
    to = to > (long)extent ? (long)extent : to;
    size_t count = (size_t)(to - from);
    for (size_t t = 0; t < axis->taps; t++) {
        exact[t] = t < count ? kernel(filter, ((double)from + (double)t - centre + 0.5) * nearer) : 0;
        sum += exact[t];
    }
    int32_t *weight = axis->weight + output * axis->taps;
    for (size_t t = 0; t < axis->taps; t++) {
        double scaled = exact[t] / sum * (1 << WEIGHT_BITS);
        weight[t] = (int32_t)(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    }
    /* All taps are read, so those without weight must lie inside too. */
    long last = (long)extent - (long)axis->taps;
    if (from > last) {
        size_t by = (size_t)(from - last);
        memmove(weight + by, weight, (axis->taps - by) * sizeof *weight);
        memset(weight, 0, by * sizeof *weight);
        from = last;
    }
    axis->first[output] = (int32_t)from;
}

/* Outputs first ... first + count of the `size` over [start, start + length) of an axis of `extent` pixels. */
static bool plan_axis(struct axis *axis, size_t first, size_t count, size_t size, size_t extent, double start,
                      double length, enum resize_filter filter)
{
    double step = length / (double)size, scale = step > 1 ? step : 1;
    axis->taps = (size_t)ceil((filter == RESIZE_BICUBIC ? 4 : 2) * scale); /* so many pixel centres at most */
    if (axis->taps > extent)
        axis->taps = extent;
    if (!scratch_grow((void **)&axis->first, &axis->size_capacity, count * sizeof *axis->first) ||
        !scratch_grow((void **)&axis->weight, &axis->weight_capacity, count * axis->taps * sizeof *axis->weight))
        return false;
    for (size_t i = 0; i < count; i++)
        plan_output(axis, i, start + ((double)(first + i) + 0.5) * step, scale, extent, filter);
    return true;
}

static inline uint8_t final(int32_t sum)
{
    int32_t value = sum >> WEIGHT_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

typedef int32_t lanes __attribute__((vector_size(16)));
typedef uint8_t bytes4 __attribute__((vector_size(4)));

/* RGB: one vector holds a pixel's three sums, and one number of its neighbour, which the next pixel overwrites. */
static void row_rgb(uint8_t *restrict out, const uint8_t *restrict row, const struct axis *axis, size_t size)
{
    for (size_t x = 0; x < size; x++) {
        const uint8_t *from = row + 3 * (size_t)axis->first[x];
        const int32_t *weight = axis->weight + x * axis->taps;
        lanes sum = {ROUNDING, ROUNDING, ROUNDING, ROUNDING};
        for (size_t t = 0; t < axis->taps; t++) {
            bytes4 pixel;
            memcpy(&pixel, from + 3 * t, sizeof pixel);
            sum += __builtin_convertvector(pixel, lanes) * weight[t];
        }
        sum >>= WEIGHT_BITS;
        const lanes most = {255, 255, 255, 255};
        sum = (sum & (sum <= most)) | (most & (sum > most));
        sum &= sum > 0;
        bytes4 pixel = __builtin_convertvector(sum, bytes4);
        memcpy(out + 3 * x, &pixel, sizeof pixel);
    }
}

static void row_grey(uint8_t *restrict out, const uint8_t *restrict row, const struct axis *axis, size_t size)
{
    for (size_t x = 0; x < size; x++) {
        int32_t sum = ROUNDING;
        for (size_t t = 0; t < axis->taps; t++)
            sum += axis->weight[x * axis->taps + t] * row[(size_t)axis->first[x] + t];
        out[x] = final(sum);
    }
}

/* One output row: a weighted sum of whole rows. */
static void down_columns(uint8_t *restrict out, const uint8_t *restrict first_row, size_t stride,
                         const int32_t *restrict weight, size_t taps, size_t count)
{
    for (size_t i = resize_down(out, first_row, stride, weight, taps, count, WEIGHT_BITS); i < count; i++) {
        int32_t sum = ROUNDING;
        for (size_t t = 0; t < taps; t++)
            sum += weight[t] * first_row[t * stride + i];
        out[i] = final(sum);
    }
}

/* Rows first ... first + count of `source`, each `columns` pixels long after the pass along it. */
static bool pass_along_rows(struct resizer *resizer, const struct resize_window *window, const struct pixels *source,
                            const struct rectangle *part, size_t first, size_t count, enum resize_filter filter)
{
    const size_t columns = window->columns, line = columns * source->channels;
    const struct axis *axis = &resizer->horizontal;
    if (!plan_axis(&resizer->horizontal, window->left, columns, window->width, source->width, part->left, part->width,
                   filter) ||
        !scratch_grow((void **)&resizer->rows, &resizer->rows_capacity, count * line + PIXELS_SLACK_BYTES))
        return false;
    const bool rgb = source->channels == 3;
    bool wide = rgb && resize_rgb_wide_plan(&resizer->wide, axis->first, axis->weight, axis->taps, columns);
    bool in_pairs = rgb && !wide && resize_rgb_plan(&resizer->rgb, axis->first, axis->weight, axis->taps, columns);
    for (size_t y = 0; y < count; y++) {
        uint8_t *out = resizer->rows + y * line;
        const uint8_t *row = source->bytes + (first + y) * source->stride;
        if (wide)
            resize_rgb_wide_row(&resizer->wide, out, row, WEIGHT_BITS);
        else if (in_pairs)
            resize_rgb_row(&resizer->rgb, out, row, WEIGHT_BITS);
        else if (rgb)
            row_rgb(out, row, axis, columns);
        else
            row_grey(out, row, axis, columns);
    }
    return true;
}

bool resize(struct resizer *resizer, uint8_t *out, const struct resize_window *window, const struct pixels *source,
            enum resize_filter filter)
{
    const struct axis *vertical = &resizer->vertical;
    const struct rectangle whole = {0, 0, (double)source->height, (double)source->width};
    const struct rectangle *part = window->part.height > 0 ? &window->part : &whole;
    const bool filtered = part->top != 0 || part->height != whole.height || window->height != source->height;
    size_t line = window->columns * source->channels, first = window->top, count = window->rows;
    if (filtered) {
        if (!plan_axis(&resizer->vertical, window->top, window->rows, window->height, source->height, part->top,
                       part->height, filter))
            return false;
        first = (size_t)vertical->first[0];
        count = (size_t)vertical->first[window->rows - 1] + vertical->taps - first;
    }
    const uint8_t *rows = source->bytes + first * source->stride + window->left * source->channels;
    size_t stride = source->stride;
    if (part->left != 0 || part->width != whole.width || window->width != source->width) {
        if (!pass_along_rows(resizer, window, source, part, first, count, filter))
            return false;
        rows = resizer->rows;
        stride = line;
    }
    for (size_t y = 0; y < window->rows; y++) {
        if (filtered)
            down_columns(out + y * line, rows + ((size_t)vertical->first[y] - first) * stride, stride,
                         vertical->weight + y * vertical->taps, vertical->taps, line);
        else
            memcpy(out + y * line, rows + y * stride, line);
    }
    return true;
}

/* floor((extent - size) / 2), of odd differences the even neighbour. */
static size_t centred(size_t extent, size_t size)
{
    size_t difference = extent - size, half = difference / 2;
    return difference % 2 ? half + half % 2 : half;
}

struct resize_window resize_window_centred(size_t height, size_t width, size_t size, double crop_share)
{
    size_t shorter = (size_t)floor((double)size / crop_share);
    struct resize_window window = {shorter, shorter, .rows = size, .columns = size};
    if (height < width)
        window.width = (size_t)((double)shorter * (double)width / (double)height);
    else
        window.height = (size_t)((double)shorter * (double)height / (double)width);
    window.top = centred(window.height, size);
    window.left = centred(window.width, size);
    return window;
}
