/* What the traffic programs share. `traffic OP` runs one op once at the size of a ViT-S training step (64 images,
 * bfloat16) and prints its compulsory bytes: every input read once, every output written once, what is accumulated
 * both. traffic.py compares them with what the simulator counts. Without OP the program lists its ops. */
#ifndef QUEST_TESTS_CUDA_TRAFFIC_H
#define QUEST_TESTS_CUDA_TRAFFIC_H

#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"

enum {
    BATCH = 64,
    PATCHES = 196,
    TOKENS = PATCHES + 1,
    ROWS = BATCH * TOKENS,
    PATCH = 16,
    CHANNELS = 3,
    PATCH_DIM = PATCH * PATCH * CHANNELS,
    DIM = 384,
    HIDDEN = 4 * DIM,
    HEADS = 6,
    CLASSES = 1000,
    PARAMETERS = 22000000 / 64 / 4 * 64 /* a quarter of ViT-S: the simulator's time */
};

struct run {
    const struct kernels *k;
    struct context *ctx;
    struct error error;
    size_t compulsory_bytes;
    bool failed;
};

/* Zeros; what a number is does not change what is moved. Given back by the end of the process. */
static inline void *memory(struct run *run, size_t bytes)
{
    void *block = NULL;
    if (!run->failed)
        run->failed = !run->k->allocate(run->ctx, &block, bytes, "a tensor", &run->error);
    return block;
}

/* A tensor that must be read or written once. */
static inline void *once(struct run *run, size_t count, size_t width)
{
    run->compulsory_bytes += count * width;
    return memory(run, count * width);
}

/* One that must be both. */
static inline void *twice(struct run *run, size_t count, size_t width)
{
    run->compulsory_bytes += count * width;
    return once(run, count, width);
}

struct traffic_op {
    const char *name;
    bool (*run)(struct run *);
};
#define OP(name)    \
    {               \
#name, name \
    }

static inline int traffic_main(int argc, char **argv, const struct traffic_op *ops, size_t count)
{
    struct context_options options = {.dtype = DTYPE_BFLOAT16,
                                      .workload = {.batch = BATCH,
                                                   .patches = PATCHES,
                                                   .patch_dim = PATCH_DIM,
                                                   .dim = DIM,
                                                   .hidden = HIDDEN,
                                                   .heads = HEADS,
                                                   .classes = CLASSES,
                                                   .kind = ATTENTION_QUEST}};
    struct run run = {.k = kernels_cuda()};
    for (size_t i = 0; i < count; i++) {
        if (argc < 2) {
            puts(ops[i].name);
            continue;
        }
        if (strcmp(argv[1], ops[i].name) != 0)
            continue;
        if (!run.k->open(&run.ctx, &options, &run.error) || !ops[i].run(&run) || run.failed ||
            !run.k->synchronise(run.ctx, &run.error)) {
            fprintf(stderr, "error: %s\n", run.error.message);
            return 1;
        }
        printf("%zu\n", run.compulsory_bytes);
        run.k->close(run.ctx);
        return 0;
    }
    return argc < 2 ? 0 : 2;
}

#endif
