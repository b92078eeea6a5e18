/* A set of files that are one dataset: what dataset_open does for a pattern. */
#ifndef QUEST_DATA_LOADERS_FORMAT_DATASET_SET_H
#define QUEST_DATA_LOADERS_FORMAT_DATASET_SET_H

#include <stdbool.h>

#include "data_loaders/format/dataset.h"
#include "src/base/error.h"

/* As dataset_open. Mean and std are those of all pixels: exact where every file has its pixel_sums, else files are
 * weighted by their images. */
bool dataset_set_open(struct dataset *dataset, const char *pattern, struct error *error);
/* Also closes a dataset that is one file. */
void dataset_set_close(struct dataset *dataset);

/* The name of file `shard` of a set of `shards`: -00003-of-00016 before the `.h5` of `path`, or at its end. false:
 * longer than name_bytes. */
bool dataset_shard_name(char *name, size_t name_bytes, const char *path, size_t shard, size_t shards);

#endif
