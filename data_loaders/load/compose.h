/* From a stored picture to the one that is cut into patches, as torchvision's and timm's transforms compose it: crop
 * and resize as Pillow does, mirror, 3-Augment, colour jitter, RandAugment, in timm's order. */
#ifndef QUEST_DATA_LOADERS_LOAD_COMPOSE_H
#define QUEST_DATA_LOADERS_LOAD_COMPOSE_H

#include "data_loaders/format/image_read.h"
#include "data_loaders/load/sample.h"

struct composer; /* buffers; one a thread */

bool composer_open(struct composer **composer, const struct sample_options *options, struct error *error);
void composer_close(struct composer *composer);
size_t composer_bytes(const struct sample_options *options);

/* The loaded image of `reader`, which has height x width pixels, as the sample at `position` shows it: a dense picture
 * of image_size x image_size, valid until the next call. Errors as sample_make. */
bool composer_make(struct composer *composer, struct image_reader *reader, size_t height, size_t width,
                   uint64_t position, struct pixels *picture, struct error *error);

#endif
