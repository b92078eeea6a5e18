/* Generated images for demonstrations and tests: ten classes of textured shapes among clutter, at random places, sizes,
 * angles and colours, so that no pixel by itself says anything about the class. */
#ifndef QUEST_DATA_LOADERS_DRAW_SYNTH_H
#define QUEST_DATA_LOADERS_DRAW_SYNTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

enum { SYNTH_CLASSES = 10 };

enum synth_kind {
    SYNTH_SHAPES,
    /* The same, but half of the training images also carry a small black and white pattern, at a random place, that
     * gives the class away. No test image does: a model that learned the pattern alone fails there. */
    SYNTH_SPURIOUS
};

struct synth_options {
    enum synth_kind kind;
    bool test_split; /* other samples of the same classes */
    size_t images, size, classes;
    uint64_t seed;
};

bool synth_kind_from_name(enum synth_kind *kind, const char *name);
/* Whether these options can be drawn: 2 to SYNTH_CLASSES classes, size 16 to 1024, at least one image. */
bool synth_check(const struct synth_options *options, struct error *error);
/* The class of image i: they take turns. */
int32_t synth_label(const struct synth_options *options, size_t image);
/* Draws image i: pixels [size, size, 3]. A function of the options and i alone; any thread. */
void synth_image(const struct synth_options *options, size_t image, uint8_t *pixels);
/* Whether image i carries the spurious pattern. */
bool synth_has_pattern(const struct synth_options *options, size_t image);
/* Draws all images, on all CPUs, into a dataset. */
bool synth_write(const struct synth_options *options, const char *path, bool force, struct error *error);

extern const char *const synth_class_names[SYNTH_CLASSES];

#endif
