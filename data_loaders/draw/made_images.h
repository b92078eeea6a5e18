/* A dataset of raw images that a function makes: drawn ones, or those of another file with a change. */
#ifndef QUEST_DATA_LOADERS_DRAW_MADE_IMAGES_H
#define QUEST_DATA_LOADERS_DRAW_MADE_IMAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data_loaders/format/dataset_write.h"
#include "src/base/error.h"

struct made_images {
    const char *what; /* for the progress bar: "drawing" */
    size_t images;
    struct dataset_layout layout; /* raw */
    const void *owner;
    /* Any thread, any order: image i into pixels [height, width, channels], PIXELS_SLACK_BYTES writable behind them.
     */
    bool (*make)(const void *owner, size_t image, uint8_t *pixels, struct error *error);
    int32_t (*label)(const void *owner, size_t image);
};

/* Makes all of them, on all CPUs, into the dataset `path`; an existing file is replaced only with `force`. Fails as
 * `make` and the writer do, or where SIGINT or SIGTERM asked to stop; then there is no file. */
bool made_images_write(const struct made_images *made, const char *path, bool force, struct error *error);

#endif
