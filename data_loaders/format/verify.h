/* Reading every image of a dataset and checking what the header says of them. */
#ifndef QUEST_DATA_LOADERS_FORMAT_VERIFY_H
#define QUEST_DATA_LOADERS_FORMAT_VERIFY_H

#include <stdbool.h>
#include <stddef.h>

#include "data_loaders/format/dataset.h"
#include "src/base/error.h"

/* Decodes everything on all CPUs, names each damaged image on stderr and compares mean and std with the pixels.
 * false: the file is damaged, or reading failed. Opening has already checked header, labels and offsets. */
bool dataset_verify(const struct dataset *dataset, struct error *error);

#endif
