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
    struct patches_normalise normalise = {.out = once(r, BATCH * PATCHES * PATCH_DIM, 2),
                                          .pixels = once(r, BATCH * PATCHES * PATCH_DIM, 1),
                                          .scale = once(r, CHANNELS, 4),
                                          .shift = once(r, CHANNELS, 4),
                                          .batch = BATCH,
                                          .patches = PATCHES,
                                          .columns = 14,
                                          .patch = PATCH,
                                          .channels = CHANNELS};
    return r->k->patches_normalise(r->ctx, &normalise, &r->error);
}

static bool embed_forward(struct run *r)
{
    struct embed_forward forward = {.out = once(r, ROWS * DIM, 2),
                                    .projected = once(r, BATCH * PATCHES * DIM, 2),
                                    .cls = once(r, DIM, 4),
                                    .position = once(r, TOKENS * DIM, 4),
                                    .batch = BATCH,
                                    .patches = PATCHES,
                                    .dim = DIM};
    return r->k->embed_forward(r->ctx, &forward, &r->error);
}

static bool embed_backward(struct run *r)
{
    struct embed_backward backward = {.projected_gradient = once(r, BATCH * PATCHES * DIM, 2),
                                      .cls_gradient = twice(r, DIM, 4),
                                      .position_gradient = twice(r, TOKENS * DIM, 4),
                                      .out_gradient = once(r, ROWS * DIM, 2),
                                      .batch = BATCH,
                                      .patches = PATCHES,
                                      .dim = DIM};
    return r->k->embed_backward(r->ctx, &backward, &r->error);
}

static bool layernorm_forward(struct run *r)
{
    struct residual_layernorm_forward forward = {.normed = once(r, ROWS * DIM, 2),
                                                 .mean = once(r, ROWS, 4),
                                                 .rstd = once(r, ROWS, 4),
                                                 .residual_in = once(r, ROWS * DIM, 2),
                                                 .weight = once(r, DIM, 4),
                                                 .bias = once(r, DIM, 4),
                                                 .rows = ROWS,
                                                 .tokens = TOKENS,
                                                 .dim = DIM};
    return r->k->residual_layernorm_forward(r->ctx, &forward, &r->error);
}

static bool residual_layernorm_forward(struct run *r)
{
    struct residual_layernorm_forward forward = {.residual_out = once(r, ROWS * DIM, 2),
                                                 .normed = once(r, ROWS * DIM, 2),
                                                 .mean = once(r, ROWS, 4),
                                                 .rstd = once(r, ROWS, 4),
                                                 .residual_in = once(r, ROWS * DIM, 2),
                                                 .branch = once(r, ROWS * DIM, 2),
                                                 .weight = once(r, DIM, 4),
                                                 .bias = once(r, DIM, 4),
                                                 .rows = ROWS,
                                                 .tokens = TOKENS,
                                                 .dim = DIM};
    return r->k->residual_layernorm_forward(r->ctx, &forward, &r->error);
}

static bool layernorm_backward(struct run *r)
{
    struct residual_layernorm_backward backward = {.residual_gradient = twice(r, ROWS * DIM, 2),
                                                   .weight_gradient = twice(r, DIM, 4),
                                                   .bias_gradient = twice(r, DIM, 4),
                                                   .normed_gradient = once(r, ROWS * DIM, 2),
                                                   .residual_out = once(r, ROWS * DIM, 2),
                                                   .mean = once(r, ROWS, 4),
                                                   .rstd = once(r, ROWS, 4),
                                                   .weight = once(r, DIM, 4),
                                                   .rows = ROWS,
                                                   .tokens = TOKENS,
                                                   .dim = DIM};
    return r->k->residual_layernorm_backward(r->ctx, &backward, &r->error);
}

static bool layernorm_backward_and_again(struct run *r)
{
    struct residual_layernorm_backward backward = {.residual_gradient = twice(r, ROWS * DIM, 2),
                                                   .normed = once(r, ROWS * DIM, 2),
                                                   .weight_gradient = twice(r, DIM, 4),
                                                   .bias_gradient = twice(r, DIM, 4),
                                                   .normed_gradient = once(r, ROWS * DIM, 2),
                                                   .residual_out = once(r, ROWS * DIM, 2),
                                                   .mean = once(r, ROWS, 4),
                                                   .rstd = once(r, ROWS, 4),
                                                   .weight = once(r, DIM, 4),
                                                   .bias = once(r, DIM, 4),
                                                   .rows = ROWS,
                                                   .tokens = TOKENS,
                                                   .dim = DIM};
    return r->k->residual_layernorm_backward(r->ctx, &backward, &r->error);
}

static bool layerscale_layernorm_backward(struct run *r)
{
    struct residual_layernorm_backward backward = {.residual_gradient = twice(r, ROWS * DIM, 2),
                                                   .branch_gradient = once(r, ROWS * DIM, 2),
                                                   .weight_gradient = twice(r, DIM, 4),
                                                   .bias_gradient = twice(r, DIM, 4),
                                                   .gamma_gradient = twice(r, DIM, 4),
                                                   .normed_gradient = once(r, ROWS * DIM, 2),
                                                   .residual_out = once(r, ROWS * DIM, 2),
                                                   .branch = once(r, ROWS * DIM, 2),
                                                   .mean = once(r, ROWS, 4),
                                                   .rstd = once(r, ROWS, 4),
                                                   .gamma = once(r, DIM, 4),
                                                   .path_scale = once(r, BATCH, 4),
                                                   .weight = once(r, DIM, 4),
                                                   .rows = ROWS,
                                                   .tokens = TOKENS,
                                                   .dim = DIM};
    return r->k->residual_layernorm_backward(r->ctx, &backward, &r->error);
}

static bool gelu_forward(struct run *r)
{
    return r->k->gelu_forward(r->ctx, once(r, ROWS * HIDDEN, 2), once(r, ROWS * HIDDEN, 2), once(r, HIDDEN, 2), ROWS,
                              HIDDEN, &r->error);
}

static bool gelu_backward(struct run *r)
{
    struct gelu_backward backward = {.in_gradient = once(r, ROWS * HIDDEN, 2),
                                     .bias_gradient = twice(r, HIDDEN, 4),
                                     .out_gradient = once(r, ROWS * HIDDEN, 2),
                                     .in = once(r, ROWS * HIDDEN, 2),
                                     .bias = once(r, HIDDEN, 2),
                                     .rows = ROWS,
                                     .dim = HIDDEN};
    return r->k->gelu_backward(r->ctx, &backward, &r->error);
}

static bool gelu_backward_and_again(struct run *r)
{
    struct gelu_backward backward = {.in_gradient = once(r, ROWS * HIDDEN, 2),
                                     .out = once(r, ROWS * HIDDEN, 2),
                                     .bias_gradient = twice(r, HIDDEN, 4),
                                     .out_gradient = once(r, ROWS * HIDDEN, 2),
                                     .in = once(r, ROWS * HIDDEN, 2),
                                     .bias = once(r, HIDDEN, 2),
                                     .rows = ROWS,
                                     .dim = HIDDEN};
    return r->k->gelu_backward(r->ctx, &backward, &r->error);
}

static bool cls_scatter(struct run *r)
{
    return r->k->cls_scatter(r->ctx, once(r, ROWS * DIM, 2), once(r, BATCH * DIM, 2), BATCH, TOKENS, DIM, &r->error);
}

static bool cls_add(struct run *r)
{
    return r->k->cls_add(r->ctx, twice(r, BATCH * DIM, 2), once(r, BATCH * DIM, 2), BATCH, 1, DIM, &r->error);
}

static const struct attention_parameters no_extras;
static const struct attention_shape cls_shape = {ATTENTION_QUEST, BATCH, TOKENS, HEADS, DIM / HEADS};

static bool attention_cls_forward(struct run *r)
{
    struct attention_cls_forward forward = {.out = once(r, BATCH * DIM, 2),
                                            .logsumexp = once(r, BATCH * HEADS, 4),
                                            .query = once(r, BATCH * DIM, 2),
                                            .key_value = once(r, 2 * ROWS * DIM, 2),
                                            .parameters = &no_extras,
                                            .shape = &cls_shape};
    return r->k->attention_cls_forward(r->ctx, &forward, &r->error);
}

static bool attention_cls_backward(struct run *r)
{
    struct attention_cls_backward backward = {.query_gradient = once(r, BATCH * DIM, 2),
                                              .key_value_gradient = once(r, 2 * ROWS * DIM, 2),
                                              .out_gradient = once(r, BATCH * DIM, 2),
                                              .out = once(r, BATCH * DIM, 2),
                                              .logsumexp = once(r, BATCH * HEADS, 4),
                                              .query = once(r, BATCH * DIM, 2),
                                              .key_value = once(r, 2 * ROWS * DIM, 2),
                                              .parameters = &no_extras,
                                              .shape = &cls_shape};
    return r->k->attention_cls_backward(r->ctx, &backward, &r->error);
}

static bool cross_entropy(struct run *r)
{
    struct cross_entropy loss = {.loss = once(r, BATCH, 4),
                                 .label_rank = once(r, BATCH, 4),
                                 .gradient = once(r, BATCH * CLASSES, 2),
                                 .logits = once(r, BATCH * CLASSES, 2),
                                 .labels = once(r, BATCH, 4),
                                 .smoothing = 0.1f,
                                 .gradient_scale = 1,
                                 .batch = BATCH,
                                 .classes = CLASSES};
    return r->k->cross_entropy(r->ctx, &loss, &r->error);
}

static bool binary_cross_entropy(struct run *r)
{
    struct binary_cross_entropy loss = {.loss = once(r, BATCH, 4),
                                        .label_rank = once(r, BATCH, 4),
                                        .gradient = once(r, BATCH * CLASSES, 2),
                                        .logits = once(r, BATCH * CLASSES, 2),
                                        .labels = once(r, BATCH, 4),
                                        .partner_labels = once(r, BATCH, 4),
                                        .weights = once(r, BATCH, 4),
                                        .gradient_scale = 1,
                                        .batch = BATCH,
                                        .classes = CLASSES};
    return r->k->binary_cross_entropy(r->ctx, &loss, &r->error);
}

static bool sum_of_squares(struct run *r)
{
    return r->k->sum_of_squares(r->ctx, once(r, 1, 8), once(r, PARAMETERS, 4), PARAMETERS, &r->error);
}

static bool adamw_update(struct run *r)
{
    struct adamw adamw = {.lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.05f, .step = 1};
    struct adamw_update update = {.master = twice(r, PARAMETERS, 4),
                                  .m = twice(r, PARAMETERS, 4),
                                  .v = twice(r, PARAMETERS, 4),
                                  .working = once(r, PARAMETERS, 2),
                                  .gradient = once(r, PARAMETERS, 4),
                                  .decay = once(r, PARAMETERS / 64, 1),
                                  .gradient_sum_of_squares = once(r, 1, 8),
                                  .count = PARAMETERS,
                                  .adamw = &adamw};
    return r->k->adamw_update(r->ctx, &update, &r->error);
}

static bool average_update(struct run *r)
{
    struct average_update update = {.average = twice(r, PARAMETERS, 4),
                                    .master = once(r, PARAMETERS, 4),
                                    .decay = 0.9999,
                                    .count = PARAMETERS,
                                    .gradient_sum_of_squares = once(r, 1, 8)};
    return r->k->average_update(r->ctx, &update, &r->error);
}

static bool adamw_update_scaled(struct run *r)
{
    struct adamw adamw = {.lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.05f, .step = 1};
    struct adamw_update update = {.master = twice(r, PARAMETERS, 4),
                                  .m = twice(r, PARAMETERS, 4),
                                  .v = twice(r, PARAMETERS, 4),
                                  .working = once(r, PARAMETERS, 2),
                                  .gradient = once(r, PARAMETERS, 4),
                                  .decay = once(r, PARAMETERS / 64, 1),
                                  .lr_scale = once(r, PARAMETERS / 64, 4),
                                  .gradient_sum_of_squares = once(r, 1, 8),
                                  .count = PARAMETERS,
                                  .adamw = &adamw};
    return r->k->adamw_update(r->ctx, &update, &r->error);
}

static bool sgd_update(struct run *r)
{
    struct sgd sgd = {.lr = 0.1f, .momentum = 0.9f, .weight_decay = 1e-4f, .nesterov = true};
    struct sgd_update update = {.master = twice(r, PARAMETERS, 4),
                                .m = twice(r, PARAMETERS, 4),
                                .working = once(r, PARAMETERS, 2),
                                .gradient = once(r, PARAMETERS, 4),
                                .decay = once(r, PARAMETERS / 64, 1),
                                .gradient_sum_of_squares = once(r, 1, 8),
                                .count = PARAMETERS,
                                .sgd = &sgd};
    return r->k->sgd_update(r->ctx, &update, &r->error);
}

/* Tensors of about a block's sizes. */
static bool tensor_tables(struct run *r, struct lamb_update *update)
{
    enum { GROUPS = PARAMETERS / 64, TENSORS = 40 };
    static uint32_t first[TENSORS + 1];
    static uint16_t of[GROUPS];
    for (uint32_t tensor = 0; tensor <= TENSORS; tensor++)
        first[tensor] = (uint32_t)((size_t)GROUPS * tensor / TENSORS);
    for (uint32_t tensor = 0; tensor < TENSORS; tensor++)
        for (uint32_t group = first[tensor]; group < first[tensor + 1]; group++)
            of[group] = (uint16_t)tensor;
    update->tensors = TENSORS;
    update->tensor_first = memory(r, sizeof first);
    update->tensor_of = memory(r, sizeof of);
    update->group_sums = memory(r, 2 * GROUPS * sizeof(float));
    update->tensor_factors = memory(r, 2 * TENSORS * sizeof(float));
    update->tensor_sums = memory(r, 2 * TENSORS * sizeof(double));
    return !r->failed && r->k->upload(r->ctx, (void *)update->tensor_first, first, sizeof first, &r->error) &&
           r->k->upload(r->ctx, (void *)update->tensor_of, of, sizeof of, &r->error) &&
           r->k->synchronise(r->ctx, &r->error);
}

static bool lamb(struct run *r, struct lamb_update *update, lamb_moments_op *op)
{
    struct adamw adamw = {.lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.05f, .step = 1};
    update->decay = once(r, PARAMETERS / 64, 1);
    update->gradient_sum_of_squares = once(r, 1, 8);
    update->count = PARAMETERS;
    update->adamw = &adamw;
    return tensor_tables(r, update) && op(r->ctx, update, &r->error);
}

/* What it sums is not counted as compulsory, nor which tensor a group is of. */
static bool lamb_moments(struct run *r)
{
    struct lamb_update update = {.master = once(r, PARAMETERS, 4),
                                 .m = twice(r, PARAMETERS, 4),
                                 .v = twice(r, PARAMETERS, 4),
                                 .gradient = once(r, PARAMETERS, 4)};
    return lamb(r, &update, r->k->lamb_moments);
}

static bool lamb_apply(struct run *r)
{
    struct lamb_update update = {.master = twice(r, PARAMETERS, 4),
                                 .m = once(r, PARAMETERS, 4),
                                 .v = once(r, PARAMETERS, 4),
                                 .working = once(r, PARAMETERS, 2)};
    return lamb(r, &update, r->k->lamb_apply);
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
           OP(layernorm_backward_and_again),
           OP(layerscale_layernorm_backward),
           OP(gelu_forward),
           OP(gelu_backward),
           OP(gelu_backward_and_again),
           OP(cls_scatter),
           OP(cls_add),
           OP(attention_cls_forward),
           OP(attention_cls_backward),
           OP(cross_entropy),
           OP(binary_cross_entropy),
           OP(sum_of_squares),
           OP(adamw_update),
           OP(average_update),
           OP(adamw_update_scaled),
           OP(sgd_update),
           OP(lamb_moments),
           OP(lamb_apply),
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
                                                   .heads = HEADS,
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
