/* From images as people have them to a dataset file. */
#ifndef QUEST_DATA_LOADERS_IMPORT_IMPORT_H
#define QUEST_DATA_LOADERS_IMPORT_IMPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "data_loaders/format/dataset.h"
#include "data_loaders/import/tar_images.h"
#include "src/base/error.h"

struct import_folder_options {
    const char *directory, *out;
    enum encoding encoding;
    size_t size;    /* raw: side of the square; jpeg: limit of the shorter side; 0 = as the images are */
    size_t workers; /* 0 = every CPU */
    bool force;
    size_t shards;      /* 0: one file; else a numbered set, image i of the list in file i % shards */
    size_t rank, ranks; /* who makes files rank, rank + ranks, ... of the set; ranks 0: everybody's */
    /* A set: every rank asks once, with its own outcome, before any file is made, whether all are well and their
     * imports are the same. NULL: there is one rank. */
    bool (*agree)(void *owner, const char *import, bool ok, struct error *error);
    void *owner;
};

/* Of this rank's files. */
struct imported_images {
    size_t images, skipped, files_kept; /* files of a set that were there already */
};

/* DIR/<class>/<image>, libvips' formats. Files that cannot be read are named on stderr, left out and counted
 * as skipped; the dataset is whole without them. Raw without a size: all images must have the first one's. Needs
 * image_convert_begin. A set: files that an import of the same list with the same options finished before are kept,
 * unless `force`; ERROR_INPUT where one belongs to another import. The files are the same for any number of ranks. */
bool import_folder(const struct import_folder_options *options, struct imported_images *result, struct error *error);

struct import_tar_options {
    struct tar_images_options from;
    const char *out;
    enum encoding encoding;
    size_t size; /* as of a folder; raw needs one */
    size_t workers, shards;
    bool force;
};

/* Images of tars, streamed: nothing is unpacked to the disk. Skips as import_folder does, and also what is a link, or
 * of a key without class or image. A set's files appear together, after the last image. Needs image_convert_begin. */
bool import_tar(const struct import_tar_options *options, struct imported_images *result, struct error *error);

/* The binary version of CIFAR-10: DIR/data_batch_{1..5}.bin and test_batch.bin, each 10000 records of one label byte
 * and 3 x 32 x 32 bytes, planes of red, green and blue. Neither output appears before both are converted. */
bool import_cifar10(const char *directory, const char *out_train, const char *out_test, bool force,
                    struct error *error);

#endif
