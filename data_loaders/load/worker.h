/* What a loader and its worker threads share. Internal to loader.c and worker.c. */
#ifndef QUEST_DATA_LOADERS_LOAD_WORKER_H
#define QUEST_DATA_LOADERS_LOAD_WORKER_H

#include <pthread.h>

#include "data_loaders/load/loader.h"
#include "data_loaders/load/sample.h"
#include "data_loaders/load/sampler.h"

/* FREE -> (a worker starts it) FILLING -> (its last image is made) READY -> (loader_next) HELD -> (release) FREE */
enum slot_state { SLOT_FREE, SLOT_FILLING, SLOT_READY, SLOT_HELD };

struct slot {
    struct batch batch;
    enum slot_state state;
    size_t started, finished; /* images claimed by and made by workers */
    size_t first_skipped;     /* index in the batch behind batch.skipped_image */
    size_t failed;            /* index in the batch of the image behind `error`; SIZE_MAX for none */
    struct error error;
};

struct loader {
    struct loader_options options;
    struct sampler sampler;
    size_t patch_grid, image_bytes, claim;
    uint64_t first_image;                        /* evaluation: this rank's span begins here */
    uint64_t span;                               /* and has this many images */
    uint64_t batches, next_to_fill, next_to_use; /* batches = UINT64_MAX: without end */
    struct slot *slots;
    size_t slot_count;
    pthread_t *threads;
    struct sample_maker **makers;
    size_t thread_count, threads_taken;
    bool stopping;
    pthread_mutex_t lock;
    pthread_cond_t work, ready;
};

/* A worker's life, as pthread_create wants it; argument: the loader. */
void *loader_work(void *argument);

#endif
