/* Sums of pixels and of their squares, and the moments that follow. */
#include "data_loaders/format/pixel_sums.h"

#include <math.h>

void pixel_sums_add(struct pixel_sums *sums, const struct pixels *pixels)
{
    const size_t channels = pixels->channels;
    for (size_t y = 0; y < pixels->height; y++) {
        const uint8_t *row = pixels->bytes + y * pixels->stride;
        for (size_t c = 0; c < channels; c++) {
            uint64_t sum = 0, squares = 0;
            for (size_t x = 0; x < pixels->width; x++) {
                uint32_t value = row[x * channels + c];
                sum += value;
                squares += value * value;
            }
            sums->sum[c] += sum;
            sums->sum_of_squares[c] += squares;
        }
    }
    sums->count += pixels->height * pixels->width;
}

void pixel_sums_merge(struct pixel_sums *sums, const struct pixel_sums *more)
{
    sums->count += more->count;
    for (size_t c = 0; c < 3; c++) {
        sums->sum[c] += more->sum[c];
        sums->sum_of_squares[c] += more->sum_of_squares[c];
    }
}

void pixel_sums_moments(const struct pixel_sums *sums, size_t channels, float *mean, float *std)
{
    for (size_t c = 0; c < channels; c++) {
        /* long double: the difference of two nearly equal sums of 2^48 must not lose the variance */
        long double count = sums->count, average = sums->sum[c] / count;
        long double variance = sums->sum_of_squares[c] / count - average * average;
        mean[c] = (float)(average / 255);
        std[c] = (float)(sqrtl(variance > 0 ? variance : 0) / 255);
    }
}
