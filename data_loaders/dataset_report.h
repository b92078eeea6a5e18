/* What `quest-data info` prints. */
#ifndef QUEST_DATASET_REPORT_H
#define QUEST_DATASET_REPORT_H

#include <stdbool.h>
#include <stdio.h>

#include "data_loaders/dataset.h"
#include "src/error.h"

/* ERROR_RUNTIME: no memory, or the stream cannot be written. */
bool dataset_report_table(const struct dataset *dataset, FILE *stream, struct error *error);
bool dataset_report_json(const struct dataset *dataset, FILE *stream, struct error *error);

#endif
