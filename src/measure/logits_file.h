#ifndef QUEST_MEASURE_LOGITS_FILE_H
#define QUEST_MEASURE_LOGITS_FILE_H

#include <stddef.h>

#include "src/base/error.h"

/* Writes float32 /logits [images, classes] to an HDF5 file, under a temporary name first. */
bool logits_file_write(const char *path, const float *logits, size_t images, size_t classes, struct error *error);

#endif
