/* quest-data preview: the first samples of a training on one picture, as the model will get them. */
#ifndef QUEST_PREVIEW_PREVIEW_H
#define QUEST_PREVIEW_PREVIEW_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/error.h"
#include "src/config/config.h"

struct preview_options {
    const struct config *config;
    const char *out; /* PNG */
    size_t images;   /* at least 1 */
};

/* Samples 0 to images - 1 of the run: drawn, augmented, erased and mixed by what trains, on the CPU, then turned back
 * into colours. Under each picture stand its class, or both and their weights where two are mixed. ERROR_INPUT: the
 * dataset cannot be opened or does not fit the configuration, or `out` cannot be made; an older file is replaced. */
bool preview_write(const struct preview_options *options, struct error *error);

#endif
