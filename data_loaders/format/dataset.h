/* An image dataset in HDF5 (format "quest-images", version 1; docs/data.md): raw uint8 images, one a chunk, or JPEG
 * streams, in one file or in a set of files that a pattern names. Opening reads and checks the header, the labels and
 * where every image lies in the file; afterwards images are read with pread(2), without HDF5 and its global lock, from
 * any number of threads. */
#ifndef QUEST_DATA_LOADERS_FORMAT_DATASET_H
#define QUEST_DATA_LOADERS_FORMAT_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data_loaders/format/pixel_sums.h"
#include "src/base/error.h"

enum encoding { ENCODING_RAW, ENCODING_JPEG };

struct shard_files;

struct dataset {
    char path[1024]; /* of a set: the pattern */
    enum encoding encoding;
    size_t images, classes, channels;
    size_t height, width;  /* raw: of every image; jpeg: 0, each image has its own size */
    float mean[4], std[4]; /* per channel, in 0..1 units */
    int32_t *labels;       /* [images] */
    char **class_names;    /* [classes] or NULL */

    /* Of one file; a set leaves these to its files. */
    uint64_t *offsets; /* raw: file offset of image i; jpeg: where stream i begins in /jpeg/bytes, [images + 1] */
    uint64_t *chunks;  /* jpeg: file offset of every chunk_bytes of /jpeg/bytes; a stream may lie across two */
    size_t chunk_bytes;
    int file;               /* descriptor for pread; -1: of a set, or a file of a set, which shard_files.h opens */
    struct pixel_sums sums; /* that mean and std were made from; count 0: the file does not say */
    size_t shard, shards;   /* number `shard` of a set of `shards`; 0 of 0: a file by itself */
    char import[40];        /* the same in all files of one import; "": the file does not say */
    size_t left_out;        /* images that the import could not read */

    /* Of a set. */
    struct dataset *files;    /* [file_count], in order, with labels and class_names NULL; NULL: one file */
    size_t file_count, first; /* `first`: in a file of a set, the number of its first image */
    struct shard_files *descriptors;
};

/* `path` is a file, or a pattern (glob(7): imagenet/train-*.h5) where no file has this name: its files, sorted
 * bytewise, are one dataset, whose images are numbered through the files in order. ERROR_INPUT that names file, dataset
 * and index: not HDF5, truncated, wrong format or version, labels out of range, mean or std not finite, filters or
 * chunks that cannot be read directly, offsets that go back or past the end; of a set: no file, two that do not fit
 * together, one that is missing. One thread at a time (it uses HDF5). */
bool dataset_open(struct dataset *dataset, const char *path, struct error *error);
/* Also for {.file = -1} or what dataset_open refused. */
void dataset_close(struct dataset *dataset);

/* Bytes of image i as stored: height * width * channels, or the length of its JPEG stream. */
size_t dataset_stored_bytes(const struct dataset *dataset, size_t image);
/* Reads image i as stored. Any thread. ERROR_RUNTIME where the file cannot be read any more. */
bool dataset_read(const struct dataset *dataset, size_t image, uint8_t *bytes, struct error *error);
/* The file that image i lies in, and its number there in *inside: for messages. */
const struct dataset *dataset_file_of(const struct dataset *dataset, size_t image, size_t *inside);

#endif
