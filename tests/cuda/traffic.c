/* Bytes that the ops of a step's passes must move (traffic.h). */
#include "tests/cuda/traffic.h"

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

/* Mixup, cutmix and erasing as a batch of DeiT's has them: two groups of each; a partner is read once, as its own image
 * is. */
static bool patches_mixed(struct run *r)
{
    static int32_t partner[BATCH];
    static float weight[BATCH];
    static struct pixel_box box[BATCH], erase[BATCH];
    static uint64_t sample[BATCH];
    for (int32_t i = 0; i < BATCH; i++) {
        partner[i] = i / 16 * 16 + (i + 8) % 16;
        weight[i] = 0.7f;
        if (i / 16 % 2)
            box[i] = (struct pixel_box){50, 70, 101, 90};
        if (i % 4 == 0)
            erase[i] = (struct pixel_box){20, 30, 80, 91};
        sample[i] = (uint64_t)i;
    }
    struct patches_normalise mixed = {.out = once(r, BATCH * PATCHES * PATCH_DIM, 2),
                                      .pixels = once(r, BATCH * PATCHES * PATCH_DIM, 1),
                                      .scale = once(r, CHANNELS, 4),
                                      .shift = once(r, CHANNELS, 4),
                                      .erase = once(r, BATCH, sizeof *erase),
                                      .sample = once(r, BATCH, sizeof *sample),
                                      .partner = once(r, BATCH, sizeof *partner),
                                      .weight = once(r, BATCH, sizeof *weight),
                                      .box = once(r, BATCH, sizeof *box),
                                      .batch = BATCH,
                                      .patches = PATCHES,
                                      .columns = 14,
                                      .patch = PATCH,
                                      .channels = CHANNELS};
    const struct {
        const void *to, *from;
        size_t bytes;
    } uploads[] = {{mixed.erase, erase, sizeof erase},
                   {mixed.sample, sample, sizeof sample},
                   {mixed.partner, partner, sizeof partner},
                   {mixed.weight, weight, sizeof weight},
                   {mixed.box, box, sizeof box}};
    for (size_t i = 0; !r->failed && i < sizeof uploads / sizeof *uploads; i++)
        r->failed = !r->k->upload(r->ctx, (void *)uploads[i].to, uploads[i].from, uploads[i].bytes, &r->error);
    return !r->failed && r->k->patches_normalise(r->ctx, &mixed, &r->error);
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

static bool find_nonfinite(struct run *r)
{
    size_t first;
    return r->k->find_nonfinite(r->ctx, &first, once(r, ROWS * DIM, 2), DTYPE_BFLOAT16, ROWS * DIM, &r->error);
}

static const struct traffic_op ops[] = {OP(patches_normalise),
                                        OP(patches_mixed),
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
                                        OP(find_nonfinite)};

int main(int argc, char **argv)
{
    return traffic_main(argc, argv, ops, sizeof ops / sizeof *ops);
}
