/* traffic OP: runs one op once at the size of a ViT-S training step (64 images, bfloat16) and prints its compulsory
 * bytes: every input read once, every output written once, what is accumulated both. traffic.py compares them with what
 * the simulator counts. `traffic` alone lists the ops. */
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
static void *memory(struct run *run, size_t bytes)
{
    void *block = NULL;
    if (!run->failed)
        run->failed = !run->k->allocate(run->ctx, &block, bytes, "a tensor", &run->error);
    return block;
}

/* A tensor that must be read or written once. */
static void *once(struct run *run, size_t count, size_t width)
{
    run->compulsory_bytes += count * width;
    return memory(run, count * width);
}

/* One that must be both. */
static void *twice(struct run *run, size_t count, size_t width)
{
    run->compulsory_bytes += count * width;
    return once(run, count, width);
}

static bool patches_normalise(struct run *r)
{
    return r->k->patches_normalise(r->ctx, once(r, BATCH * PATCHES * PATCH_DIM, 2),
                                   once(r, BATCH * PATCHES * PATCH_DIM, 1), once(r, CHANNELS, 4), once(r, CHANNELS, 4),
                                   NULL, NULL, BATCH, PATCHES, PATCH, CHANNELS, &r->error);
}

static bool embed_forward(struct run *r)
{
    return r->k->embed_forward(r->ctx, once(r, ROWS * DIM, 2), once(r, BATCH * PATCHES * DIM, 2), once(r, DIM, 4),
                               once(r, TOKENS * DIM, 4), BATCH, PATCHES, DIM, &r->error);
}

static bool embed_backward(struct run *r)
{
    return r->k->embed_backward(r->ctx, once(r, BATCH * PATCHES * DIM, 2), twice(r, DIM, 4), twice(r, TOKENS * DIM, 4),
                                once(r, ROWS * DIM, 2), BATCH, PATCHES, DIM, &r->error);
}

static bool layernorm_forward(struct run *r)
{
    return r->k->residual_layernorm_forward(r->ctx, NULL, once(r, ROWS * DIM, 2), once(r, ROWS, 4), once(r, ROWS, 4),
                                            once(r, ROWS * DIM, 2), NULL, NULL, NULL, once(r, DIM, 4), once(r, DIM, 4),
                                            ROWS, TOKENS, DIM, &r->error);
}

static bool residual_layernorm_forward(struct run *r)
{
    return r->k->residual_layernorm_forward(r->ctx, once(r, ROWS * DIM, 2), once(r, ROWS * DIM, 2), once(r, ROWS, 4),
                                            once(r, ROWS, 4), once(r, ROWS * DIM, 2), once(r, ROWS * DIM, 2), NULL,
                                            NULL, once(r, DIM, 4), once(r, DIM, 4), ROWS, TOKENS, DIM, &r->error);
}

static bool layernorm_backward(struct run *r)
{
    return r->k->residual_layernorm_backward(r->ctx, twice(r, ROWS * DIM, 2), NULL, twice(r, DIM, 4), twice(r, DIM, 4),
                                             NULL, once(r, ROWS * DIM, 2), once(r, ROWS * DIM, 2), NULL,
                                             once(r, ROWS, 4), once(r, ROWS, 4), NULL, NULL, once(r, DIM, 4), ROWS,
                                             TOKENS, DIM, &r->error);
}

static bool layerscale_layernorm_backward(struct run *r)
{
    return r->k->residual_layernorm_backward(
        r->ctx, twice(r, ROWS * DIM, 2), once(r, ROWS * DIM, 2), twice(r, DIM, 4), twice(r, DIM, 4), twice(r, DIM, 4),
        once(r, ROWS * DIM, 2), once(r, ROWS * DIM, 2), once(r, ROWS * DIM, 2), once(r, ROWS, 4), once(r, ROWS, 4),
        once(r, DIM, 4), once(r, BATCH, 4), once(r, DIM, 4), ROWS, TOKENS, DIM, &r->error);
}

static bool gelu_forward(struct run *r)
{
    return r->k->gelu_forward(r->ctx, once(r, ROWS * HIDDEN, 2), once(r, ROWS * HIDDEN, 2), once(r, HIDDEN, 2), ROWS,
                              HIDDEN, &r->error);
}

static bool gelu_backward(struct run *r)
{
    return r->k->gelu_backward(r->ctx, once(r, ROWS * HIDDEN, 2), twice(r, HIDDEN, 4), once(r, ROWS * HIDDEN, 2),
                               once(r, ROWS * HIDDEN, 2), once(r, HIDDEN, 2), ROWS, HIDDEN, &r->error);
}

static bool cls_scatter(struct run *r)
{
    return r->k->cls_scatter(r->ctx, once(r, ROWS * DIM, 2), once(r, BATCH * DIM, 2), BATCH, TOKENS, DIM, &r->error);
}

static bool cross_entropy(struct run *r)
{
    return r->k->cross_entropy(r->ctx, once(r, BATCH, 4), once(r, BATCH, 4), once(r, BATCH * CLASSES, 2),
                               once(r, BATCH * CLASSES, 2), once(r, BATCH, 4), NULL, NULL, 0.1f, 1, BATCH, CLASSES,
                               &r->error);
}

static bool sum_of_squares(struct run *r)
{
    return r->k->sum_of_squares(r->ctx, once(r, 1, 8), once(r, PARAMETERS, 4), PARAMETERS, &r->error);
}

static bool adamw_update(struct run *r)
{
    struct adamw adamw = {.lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.05f, .step = 1};
    return r->k->adamw_update(r->ctx, twice(r, PARAMETERS, 4), twice(r, PARAMETERS, 4), twice(r, PARAMETERS, 4),
                              once(r, PARAMETERS, 2), once(r, PARAMETERS, 4), once(r, PARAMETERS / 64, 1),
                              once(r, 1, 8), PARAMETERS, &adamw, &r->error);
}

static bool round_parameters(struct run *r)
{
    return r->k->round_parameters(r->ctx, once(r, PARAMETERS, 2), once(r, PARAMETERS, 4), PARAMETERS, &r->error);
}

static bool find_nonfinite(struct run *r)
{
    size_t first;
    return r->k->find_nonfinite(r->ctx, &first, once(r, ROWS * DIM, 2), DTYPE_BFLOAT16, ROWS * DIM, &r->error);
}

#define OP(name)    \
    {               \
#name, name \
    }
static const struct {
    const char *name;
    bool (*run)(struct run *);
} ops[] = {OP(patches_normalise),
           OP(embed_forward),
           OP(embed_backward),
           OP(layernorm_forward),
           OP(residual_layernorm_forward),
           OP(layernorm_backward),
           OP(layerscale_layernorm_backward),
           OP(gelu_forward),
           OP(gelu_backward),
           OP(cls_scatter),
           OP(cross_entropy),
           OP(sum_of_squares),
           OP(adamw_update),
           OP(round_parameters),
           OP(find_nonfinite)};

int main(int argc, char **argv)
{
    struct context_options options = {.dtype = DTYPE_BFLOAT16,
                                      .workload = {.batch = BATCH,
                                                   .patches = PATCHES,
                                                   .patch_dim = PATCH_DIM,
                                                   .dim = DIM,
                                                   .hidden = HIDDEN,
                                                   .heads = 6,
                                                   .classes = CLASSES,
                                                   .kind = ATTENTION_QUEST}};
    struct run run = {.k = kernels_cuda()};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
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
