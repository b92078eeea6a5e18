/* Writing a dataset: to a temporary name beside the final one, which appears only when the file is whole and on the
 * disk. One writer, one thread (it uses HDF5). */
#ifndef QUEST_DATA_LOADERS_FORMAT_DATASET_WRITE_H
#define QUEST_DATA_LOADERS_FORMAT_DATASET_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data_loaders/format/dataset.h"
#include "data_loaders/image/pixels.h"
#include "src/base/error.h"

/* Exact sums over pixels, from which mean and std are made; sums of several images or threads add up. */
struct pixel_sums {
    uint64_t count; /* pixels */
    uint64_t sum[3], sum_of_squares[3];
};
void pixel_sums_add(struct pixel_sums *sums, const struct pixels *pixels);
void pixel_sums_merge(struct pixel_sums *sums, const struct pixel_sums *more);
/* Mean and population standard deviation per channel, in 0..1 units. */
void pixel_sums_moments(const struct pixel_sums *sums, size_t channels, float *mean, float *std);

struct dataset_layout {
    enum encoding encoding;
    size_t height, width; /* raw only */
    size_t channels, classes;
    const char *const *class_names; /* [classes] or NULL */
};

struct dataset_writer;

/* ERROR_INPUT where `path` exists (unless `force`) or its directory cannot be written to. */
bool dataset_writer_open(struct dataset_writer **writer, const char *path, const struct dataset_layout *layout,
                         bool force, struct error *error);
/* The next image: its stored bytes (raw [height, width, channels] or a JPEG stream), its label and the sums over its
 * pixels as they will be decoded. ERROR_RUNTIME: disk full. */
bool dataset_writer_append(struct dataset_writer *writer, const uint8_t *bytes, size_t byte_count, int32_t label,
                           const struct pixel_sums *sums, struct error *error);
size_t dataset_writer_images(const struct dataset_writer *writer);
/* Writes labels, offsets, mean and std, flushes to the disk and renames. Ends the writer whatever the outcome; where it
 * fails no file is left. ERROR_INPUT: no images, or all pixels of a channel alike. */
bool dataset_writer_finish(struct dataset_writer *writer, struct error *error);
/* Ends the writer and removes the temporary file. */
void dataset_writer_discard(struct dataset_writer *writer);

#endif
