/* Batches of uint8 patches for one rank: a sampler, worker threads that read, decode, augment and cut images into
 * patches, and a bounded queue of ready batches that come out in order, whatever the threads do. */
#ifndef QUEST_DATA_LOADERS_LOAD_LOADER_H
#define QUEST_DATA_LOADERS_LOAD_LOADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data_loaders/format/dataset.h"
#include "data_loaders/load/augment.h"
#include "src/base/error.h"

struct loader_options {
    const struct dataset *dataset;
    size_t image_size, patch_size; /* larger images: random_resized_crop, else resized and centre-cropped; raw images
                                      must not be smaller, JPEG images are enlarged down to one pixel a patch */
    size_t rank, world_size;
    size_t batch;        /* images of one batch of this rank (a micro-step's) */
    size_t accumulate;   /* micro-steps a step: step s, micro-step a, rank r takes the positions from
                            s * G + (a * world_size + r) * batch on, G = batch * world_size * accumulate */
    uint64_t first_step; /* training: resume here */
    uint64_t steps;      /* training: how many steps will be taken from first_step on; 0 = without end */
    bool evaluation;     /* every image once, in file order, split into contiguous spans by rank; no augmentation */
    bool strict;         /* a damaged JPEG stream is an error that names its index, not replaced and counted */
    bool shuffle;
    uint64_t shuffle_window; /* sampler.h; 0: all images */
    uint64_t repeats;        /* training: sampler.h; 0 = 1 */
    uint64_t seed;
    struct augment augment;
    size_t workers, prefetch; /* threads; batches kept ready */
    /* Where batch buffers come from: pinned memory under CUDA; NULL for ordinary memory. */
    bool (*allocate)(void *owner, void **memory, size_t bytes, struct error *error);
    void (*release)(void *owner, void *memory);
    void *owner;
};

/* Position p of the endless sequence of samples is image permutation(seed, p / images)[p % images] (sampler.h): each
 * epoch is a fresh permutation, epochs follow without a gap, and a batch may straddle two. It is the same for any
 * world_size. */
#define BATCH_LEFT_OUT UINT64_MAX
struct batch {
    uint8_t *patches;       /* [count, patches, patch_size, patch_size, channels] */
    int32_t *labels;        /* [count] */
    uint64_t *images;       /* [count] index in the file */
    uint64_t *positions;    /* [count] position in the sequence of samples, for random numbers by sample; in an
                               evaluation the index in the file */
    size_t count;           /* = options.batch, less in the last batch of an evaluation */
    size_t skipped;         /* images that are damaged or smaller than the patch grid: each is replaced by the next
                               whole one of the file, whichever rank meets it; in an evaluation images[i] is
                               BATCH_LEFT_OUT instead, and its patches are black */
    uint64_t skipped_image; /* the first of them in the batch, for the warning */
    size_t slot;            /* the loader's */
};

struct loader;

/* ERROR_INPUT where images are smaller than the patch grid or sizes do not fit; nothing is opened. */
bool loader_check(const struct loader_options *options, struct error *error);
/* Checks the same. Starts the workers, which never take
 * SIGINT, SIGTERM or any other signal sent to the process. */
bool loader_open(struct loader **loader, const struct loader_options *options, struct error *error);
/* The next batch, waiting for it; *batch = NULL after the last. wait_s (or NULL) gets the seconds waited.
 * ERROR_INPUT for a damaged JPEG stream where options.strict, and where hardly any of the file is whole. */
bool loader_next(struct loader *loader, struct batch **batch, double *wait_s, struct error *error);
/* Gives the batch's buffer back to the workers. Up to two batches may be held at a time. */
void loader_release(struct loader *loader, struct batch *batch);
void loader_close(struct loader *loader);
/* Bytes of host memory that loader_open will take for these options. */
size_t loader_memory_bytes(const struct loader_options *options);

#endif
