/* Writing a dataset: to a temporary name beside the final one, which appears only when the file is whole and on the
 * disk. One writer, one thread (it uses HDF5). */
#ifndef QUEST_DATA_LOADERS_FORMAT_DATASET_WRITE_H
#define QUEST_DATA_LOADERS_FORMAT_DATASET_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data_loaders/format/dataset.h"
#include "data_loaders/format/pixel_sums.h"
#include "data_loaders/image/pixels.h"
#include "src/base/error.h"

struct dataset_layout {
    enum encoding encoding;
    size_t height, width; /* raw only */
    size_t channels, classes;
    const char *const *class_names; /* [classes] or NULL */
    size_t shard, shards;           /* of a set of files: which of how many; 0 of 0: a file by itself */
    const char *import;             /* of a set: what tells its files from those of another, under 40 bytes */
    const size_t *left_out;         /* of a set: images that could not be read, looked at when the file is finished */
};

struct dataset_writer;

/* ERROR_INPUT where `path` exists (unless `force`) or its directory cannot be written to. */
bool dataset_writer_open(struct dataset_writer **writer, const char *path, const struct dataset_layout *layout,
                         bool force, struct error *error);
/* The next image: its stored bytes (raw [height, width, channels] or a JPEG stream), its label and the sums over its
 * pixels as they will be decoded. ERROR_RUNTIME: disk full. */
bool dataset_writer_append(struct dataset_writer *writer, const uint8_t *bytes, size_t byte_count, int32_t label,
                           const struct pixel_sums *sums, struct error *error);
/* Before it is finished, where the number of classes is only known then. */
void dataset_writer_set_classes(struct dataset_writer *writer, size_t classes);
size_t dataset_writer_images(const struct dataset_writer *writer);
/* Writes labels, offsets, mean and std, flushes to the disk and renames. Ends the writer whatever the outcome; where it
 * fails no file is left. ERROR_INPUT: no images, or all pixels of a channel alike. */
bool dataset_writer_finish(struct dataset_writer *writer, struct error *error);
/* Ends the writer and removes the temporary file. */
void dataset_writer_discard(struct dataset_writer *writer);

#endif
