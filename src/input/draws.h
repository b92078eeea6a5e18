/* What training draws for the images of a batch beside their pixels: branches that stochastic depth drops, boxes that
 * are erased, partners that they are mixed with. A function of seed and position, so that it is the same on any number
 * of ranks and after a stop. All of it lies in one block of memory, which travels to the device in one copy. */
#ifndef QUEST_INPUT_DRAWS_H
#define QUEST_INPUT_DRAWS_H

#include "data_loaders/load/loader.h"
#include "data_loaders/load/mix.h"
#include "src/input/stochastic_depth.h"
#include "src/model/model.h"

struct draw_options {
    struct stochastic_depth drop_path;
    struct erase erase;
    struct mix mix;
    /* Images in a row of the sequence that are mixed among themselves, each with the one half a group on, so that
     * copies of an image (data.augment.repeats), where they are at most half a group, do not meet; 0 = none. Even;
     * divides a batch. */
    size_t mix_group;
    bool mix_per_image; /* each has numbers of its own; else a group has the same (timm's "batch") */
};

/* Bytes of a batch of up to `batch` images; 0: nothing is drawn. */
size_t draws_bytes(const struct draw_options *options, size_t batch);
/* Where what lies in such a block. */
struct model_draws draws_in(const struct draw_options *options, const struct loader_options *loader, void *block);
/* Draws for `batch`, whose positions begin a group, into a block of host memory. */
void draws_make(const struct draw_options *options, const struct loader_options *loader, const struct batch *batch,
                void *block);

#endif
