/* An image dataset in HDF5 (format "quest-images", version 1; docs/data.md): raw uint8 images, one a chunk, or JPEG
 * streams. Opening reads and checks the header, the labels and where every image lies in the file; afterwards images
 * are read with pread(2), without HDF5 and its global lock, from any number of threads. */
#ifndef QUEST_DATASET_H
#define QUEST_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/error.h"

enum encoding { ENCODING_RAW, ENCODING_JPEG };

struct dataset {
    char path[1024];
    enum encoding encoding;
    size_t images, classes, channels;
    size_t height, width;  /* raw: of every image; jpeg: 0, each image has its own size */
    float mean[4], std[4]; /* per channel, in 0..1 units */
    int32_t *labels;       /* [images] */
    char **class_names;    /* [classes] or NULL */
    uint64_t *offsets;     /* raw: file offset of image i; jpeg: file offset of stream i, [images + 1] */
    int file;              /* descriptor for pread */
};

/* ERROR_INPUT that names file, dataset and index: not HDF5, truncated, wrong format or version, labels out of range,
 * mean or std not finite, chunks of another shape, offsets that go back or past the end. */
bool dataset_open(struct dataset *dataset, const char *path, struct error *error);
void dataset_close(struct dataset *dataset);

#endif
