/* From images as people have them to a dataset file. */
#ifndef QUEST_DATA_LOADERS_IMPORT_IMPORT_H
#define QUEST_DATA_LOADERS_IMPORT_IMPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "data_loaders/format/dataset.h"
#include "src/base/error.h"

struct import_folder_options {
    const char *directory, *out;
    enum encoding encoding;
    size_t size;    /* raw: side of the square; jpeg: limit of the shorter side; 0 = as the images are */
    size_t workers; /* 0 = every CPU */
    bool force;
};

/* DIR/<class>/<image>, libvips' formats. Files that cannot be read are named on stderr, left out and counted in
 * *skipped; the dataset is whole without them. Raw without a size: all images must have the first one's. Needs
 * image_convert_begin. */
bool import_folder(const struct import_folder_options *options, size_t *images, size_t *skipped, struct error *error);

/* The binary version of CIFAR-10: DIR/data_batch_{1..5}.bin and test_batch.bin, each 10000 records of one label byte
 * and 3 x 32 x 32 bytes, planes of red, green and blue. Neither output appears before both are converted. */
bool import_cifar10(const char *directory, const char *out_train, const char *out_test, bool force,
                    struct error *error);

#endif
