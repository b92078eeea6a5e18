/* What `quest-data info` prints. */
#ifndef QUEST_DATA_LOADERS_FORMAT_DATASET_REPORT_H
#define QUEST_DATA_LOADERS_FORMAT_DATASET_REPORT_H

#include <stdbool.h>
#include <stdio.h>

#include "data_loaders/format/dataset.h"
#include "src/base/error.h"

/* ERROR_RUNTIME: no memory, or the stream cannot be written. */
bool dataset_report_table(const struct dataset *dataset, FILE *stream, struct error *error);
bool dataset_report_json(const struct dataset *dataset, FILE *stream, struct error *error);

#endif
