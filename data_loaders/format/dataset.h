/* An image dataset in HDF5 (format "quest-images", version 1; docs/data.md): raw uint8 images, one a chunk, or JPEG
 * streams. Opening reads and checks the header, the labels and where every image lies in the file; afterwards images
 * are read with pread(2), without HDF5 and its global lock, from any number of threads. */
#ifndef QUEST_DATA_LOADERS_FORMAT_DATASET_H
#define QUEST_DATA_LOADERS_FORMAT_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

enum encoding { ENCODING_RAW, ENCODING_JPEG };

struct dataset {
    char path[1024];
    enum encoding encoding;
    size_t images, classes, channels;
    size_t height, width;  /* raw: of every image; jpeg: 0, each image has its own size */
    float mean[4], std[4]; /* per channel, in 0..1 units */
    int32_t *labels;       /* [images] */
    char **class_names;    /* [classes] or NULL */
    uint64_t *offsets;     /* raw: file offset of image i; jpeg: where stream i begins in /jpeg/bytes, [images + 1] */
    uint64_t *chunks;      /* jpeg: file offset of every chunk_bytes of /jpeg/bytes; a stream may lie across two */
    size_t chunk_bytes;
    int file; /* descriptor for pread */
};

/* ERROR_INPUT that names file, dataset and index: not HDF5, truncated, wrong format or version, labels out of range,
 * mean or std not finite, filters or chunks that cannot be read directly, offsets that go back or past the end.
 * One thread at a time (it uses HDF5). */
bool dataset_open(struct dataset *dataset, const char *path, struct error *error);
void dataset_close(struct dataset *dataset);

/* Bytes of image i as stored: height * width * channels, or the length of its JPEG stream. */
size_t dataset_stored_bytes(const struct dataset *dataset, size_t image);
/* Reads image i as stored. Any thread. ERROR_RUNTIME where the file cannot be read any more. */
bool dataset_read(const struct dataset *dataset, size_t image, uint8_t *bytes, struct error *error);

#endif
