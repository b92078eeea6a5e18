/* The Vision Transformer: patches and CLS before the blocks, head and loss behind them; the order of both passes. */
#include "src/model/blocks.h"

static bool embed(struct model *model, const uint8_t *pixels, size_t batch, bool with_draws, struct error *error)
{
    const struct model_draws draws = with_draws ? model->draws : (struct model_draws){0};
    const struct kernels *kernels = model->kernels;
    const struct parameters *at = &model->parameters;
    struct patches_normalise patches = {.out = model->patch_pixels,
                                        .pixels = pixels,
                                        .scale = model->pixel_scale,
                                        .shift = model->pixel_shift,
                                        .erase = draws.erase,
                                        .sample = draws.sample,
                                        .seed = draws.noise_seed,
                                        .partner = draws.partner,
                                        .weight = draws.weight,
                                        .box = draws.box,
                                        .batch = batch,
                                        .patches = model->patches,
                                        .columns = model->columns,
                                        .patch = model->patch,
                                        .channels = model->channels};
    struct linear_forward projection = {.out = model->projected,
                                        .in = model->patch_pixels,
                                        .weight = model_working(model, at->patch_weight),
                                        .bias = model_working(model, at->patch_bias),
                                        .rows = batch * model->patches,
                                        .in_dim = model->patch_dim,
                                        .out_dim = model->dim};
    struct embed_forward tokens = {.out = model->embedded,
                                   .projected = model->projected,
                                   .cls = model_master(model, at->cls_token),
                                   .position = model_master(model, at->pos_embed),
                                   .batch = batch,
                                   .patches = model->patches,
                                   .dim = model->dim};
    return kernels->patches_normalise(model->context, &patches, error) &&
           kernels->linear_forward(model->context, &projection, error) &&
           kernels->embed_forward(model->context, &tokens, error);
}

static bool head_forward(struct model *model, size_t batch, struct error *error)
{
    struct linear_forward head = {.out = model->logits,
                                  .in = model->normed,
                                  .weight = model_working(model, model->parameters.head_weight),
                                  .bias = model_working(model, model->parameters.head_bias),
                                  .rows = batch,
                                  .in_dim = model->dim,
                                  .out_dim = model->classes};
    return model->kernels->linear_forward(model->context, &head, error);
}

bool model_forward(struct model *model, const uint8_t *pixels, size_t batch, bool with_draws, bool with_statistics,
                   struct error *error)
{
    return embed(model, pixels, batch, with_draws, error) &&
           blocks_forward(model, batch, with_draws, with_statistics, error) && head_forward(model, batch, error);
}

struct model_loss_kind model_training_loss(const struct config *config)
{
    return (struct model_loss_kind){.kind = config->train.loss,
                                    .smoothing = (float)config->train.label_smoothing,
                                    .bce_threshold = (float)config->train.bce_threshold,
                                    .bce_sum = config->train.bce_sum};
}

bool model_loss(struct model *model, const struct model_targets *targets, size_t batch, float gradient_scale,
                struct error *error)
{
    bool mixed = targets->with_draws && model->draws.partner;
    struct cross_entropy soft = {.loss = model->loss,
                                 .label_rank = model->label_rank,
                                 .gradient = gradient_scale != 0 ? model->logits_gradient : NULL,
                                 .logits = model->logits,
                                 .labels = targets->labels,
                                 .partner_labels = mixed ? model->draws.partner_labels : NULL,
                                 .weights = mixed ? model->draws.weight : NULL,
                                 .smoothing = targets->loss.smoothing,
                                 .gradient_scale = gradient_scale,
                                 .batch = batch,
                                 .classes = model->classes};
    if (targets->loss.kind == LOSS_CROSS_ENTROPY)
        return model->kernels->cross_entropy(model->context, &soft, error);
    struct binary_cross_entropy binary = {.loss = soft.loss,
                                          .label_rank = soft.label_rank,
                                          .gradient = soft.gradient,
                                          .logits = soft.logits,
                                          .labels = soft.labels,
                                          .partner_labels = soft.partner_labels,
                                          .weights = soft.weights,
                                          .smoothing = soft.smoothing,
                                          .gradient_scale = gradient_scale,
                                          .threshold = targets->loss.bce_threshold,
                                          .sum = targets->loss.bce_sum,
                                          .batch = batch,
                                          .classes = soft.classes};
    return model->kernels->binary_cross_entropy(model->context, &binary, error);
}

static bool head_backward(const struct pass *pass, struct error *error)
{
    struct model *model = pass->model;
    const struct kernels *kernels = model->kernels;
    const struct parameters *at = &model->parameters;
    bool only_head = at->trained == at->norm_weight;
    struct linear_backward head = {.in_gradient = only_head ? NULL : model->normed_gradient,
                                   .weight_gradient = model_gradient(model, at->head_weight),
                                   .bias_gradient = model_gradient(model, at->head_bias),
                                   .out_gradient = model->logits_gradient,
                                   .in = model->normed,
                                   .weight = model_working(model, at->head_weight),
                                   .rows = pass->batch,
                                   .in_dim = model->dim,
                                   .out_dim = model->classes,
                                   .overwrite = model->first_backward};
    return kernels->linear_backward(model->context, &head, error) &&
           (only_head || kernels->zero(model->context, model->cls_residual_gradient,
                                       pass->batch * model->dim * dtype_bytes(model->dtype), error));
}

static bool embed_backward(const struct pass *pass, struct error *error)
{
    struct model *model = pass->model;
    const struct kernels *kernels = model->kernels;
    const struct parameters *at = &model->parameters;
    struct embed_backward tokens = {.projected_gradient = model->projected,
                                    .cls_gradient = model_gradient(model, at->cls_token),
                                    .position_gradient = model_gradient(model, at->pos_embed),
                                    .out_gradient = model->residual_gradient,
                                    .batch = pass->batch,
                                    .patches = model->patches,
                                    .dim = model->dim};
    struct linear_backward projection = {.weight_gradient = model_gradient(model, at->patch_weight),
                                         .bias_gradient = model_gradient(model, at->patch_bias),
                                         .out_gradient = model->projected,
                                         .in = model->patch_pixels,
                                         .weight = model_working(model, at->patch_weight),
                                         .rows = pass->batch * model->patches,
                                         .in_dim = model->patch_dim,
                                         .out_dim = model->dim,
                                         .overwrite = model->first_backward};
    return kernels->embed_backward(model->context, &tokens, error) &&
           kernels->linear_backward(model->context, &projection, error);
}

/* Last layer first, down to the last that is trained. After each group of ops the caller learns how far the flat
 * gradient is final, so that its buckets can be reduced while the pass goes on. */
bool model_backward(struct model *model, size_t batch, bool with_draws, model_gradient_ready ready, void *owner,
                    struct error *error)
{
    struct pass pass = {model, batch, batch * model->tokens, with_draws, ready, owner};
    const struct parameters *at = &model->parameters;
    bool ok = head_backward(&pass, error) && (at->trained <= at->norm_weight || blocks_backward(&pass, error)) &&
              (at->trained < at->total || embed_backward(&pass, error)) && pass_announce(&pass, at->trained, error);
    model->first_backward = false;
    return ok;
}
