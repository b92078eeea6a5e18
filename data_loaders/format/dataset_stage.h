/* Copies of a dataset's files on a disk of this host, and reading from them. */
#ifndef QUEST_DATA_LOADERS_FORMAT_DATASET_STAGE_H
#define QUEST_DATA_LOADERS_FORMAT_DATASET_STAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data_loaders/format/dataset.h"
#include "src/base/error.h"

struct staged_files {
    size_t copied, there, no_room; /* files */
    uint64_t copied_bytes;
};

/* Copies files first, first + step, ... of the dataset into `directory`, which is made where it is not there, under
 * names that say which file it is a copy of and of what time and size. What is there already under that name is a whole
 * copy (file_copy.h). Also removes what copies left whose process is gone. Adds to *staged. ERROR_INPUT: no such
 * directory can be made; ERROR_RUNTIME as file_copy. A full disk is no error: no_room. */
bool dataset_stage(const struct dataset *dataset, const char *directory, size_t first, size_t step,
                   struct staged_files *staged, struct error *error);
/* From now on files that have a copy are read from it. ERROR_RUNTIME. */
bool dataset_use_staged(struct dataset *dataset, const char *directory, struct error *error);

#endif
