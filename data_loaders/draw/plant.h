/* Planting the spurious pattern into a dataset of real images (docs/experiments.md). */
#ifndef QUEST_DATA_LOADERS_DRAW_PLANT_H
#define QUEST_DATA_LOADERS_DRAW_PLANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

struct plant_options {
    const char *from, *out;
    uint64_t seed; /* other places */
    bool all;      /* mark every image instead of every second of its class */
    bool force;    /* replace an existing file */
};

/* Copies the raw dataset `from` to `out`; every second image of each class, or every one, carries the pattern of its
 * class (spurious_pattern.h) at a random place. ERROR_INPUT: JPEG images, more classes than patterns, images under 16
 * pixels. images: how many there are; planted: how many carry it. */
bool plant(const struct plant_options *options, size_t *images, size_t *planted, struct error *error);

#endif
