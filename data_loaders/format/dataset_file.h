/* One file of a dataset, as HDF5 sees it: what dataset_open does for a path that is no pattern. */
#ifndef QUEST_DATA_LOADERS_FORMAT_DATASET_FILE_H
#define QUEST_DATA_LOADERS_FORMAT_DATASET_FILE_H

#include <stdbool.h>

#include "data_loaders/format/dataset.h"
#include "src/base/error.h"

/* As dataset_open. class_names stays NULL where the file's `import` is `known_import` ("": never): it has the names of
 * the other files of that import. */
bool dataset_file_open(struct dataset *dataset, const char *path, const char *known_import, struct error *error);
void dataset_file_close(struct dataset *dataset);

#endif
