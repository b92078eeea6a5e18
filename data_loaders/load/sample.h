/* One sample: an image of the dataset at a position of the sequence -> patches. What a loader's worker does all day. */
#ifndef QUEST_DATA_LOADERS_LOAD_SAMPLE_H
#define QUEST_DATA_LOADERS_LOAD_SAMPLE_H

#include "data_loaders/format/dataset.h"
#include "data_loaders/load/augment.h"
#include "src/base/error.h"

struct sample_options {
    const struct dataset *dataset;
    size_t image_size, patch_size;
    bool evaluation; /* no augmentation */
    uint64_t seed;
    struct augment augment;
};

struct sample_maker; /* buffers and a decoder; one a thread */

bool sample_maker_open(struct sample_maker **maker, const struct sample_options *options, struct error *error);
void sample_maker_close(struct sample_maker *maker);
/* Writes image_size^2 * channels bytes of patches. ERROR_INPUT: this image is damaged or smaller than the patch grid
 * (skip it or stop); ERROR_RUNTIME: nothing more can be read. */
bool sample_make(struct sample_maker *maker, uint8_t *patches, size_t image, uint64_t position, struct error *error);
/* Bytes of buffers that one maker holds for images of the dataset's stored size (JPEG: for 1 megapixel). */
size_t sample_maker_bytes(const struct sample_options *options);

#endif
