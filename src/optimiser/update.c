/* Norms of the gradient, then the optimiser with what the configuration says. */
#include "src/optimiser/update.h"

#include "src/optimiser/muon.h"

double *update_sums(const struct model *model, uint64_t step)
{
    return model->sum_of_squares + step % 2 * (1 + model->depth);
}

bool update_measure_gradient(struct model *model, uint64_t step, bool with_blocks, struct error *error)
{
    const struct parameters *parameters = &model->parameters;
    double *sums = update_sums(model, step);
    for (size_t block = parameters->frozen_blocks; with_blocks && block < model->depth; block++) {
        const struct block_offsets *at = &parameters->blocks[block];
        if (!model->kernels->sum_of_squares(model->context, sums + 1 + block, model->gradient + at->qkv_weight,
                                            at->norm1_weight - at->qkv_weight, error))
            return false;
    }
    return model->kernels->sum_of_squares(model->context, sums, model->gradient, parameters->trained, error);
}

/* AdamW's constants, which are LAMB's too. */
static struct adamw adam_of(const struct model *model, const struct config *config, const struct update *update)
{
    return (struct adamw){
        .lr = (float)update->lr,
        .beta1 = (float)config->optim.beta1,
        .beta2 = (float)config->optim.beta2,
        .eps = (float)config->optim.eps,
        .weight_decay = (float)config->optim.weight_decay,
        .step = update->step,
        .clip_grad_norm = (float)config->optim.clip_grad_norm,
        .sum_of_squares_limit = update->sum_of_squares_limit,
        .earlier_sum_of_squares = update_sums(model, update->step - 1),
    };
}

static bool adamw_step(struct model *model, const struct config *config, const struct update *update,
                       struct error *error)
{
    struct adamw adamw = adam_of(model, config, update);
    struct adamw_update buffers = {.master = model->master,
                                   .m = model->m,
                                   .v = model->v,
                                   .working = model->working,
                                   .gradient = model->gradient,
                                   .decay = model->decay,
                                   .lr_scale = model->lr_scale,
                                   .gradient_sum_of_squares = update_sums(model, update->step),
                                   .count = model->parameters.trained,
                                   .adamw = &adamw};
    return model->kernels->adamw_update(model->context, &buffers, error);
}

static bool sgd_step(struct model *model, const struct config *config, const struct update *update, struct error *error)
{
    struct sgd sgd = {
        .lr = (float)update->lr,
        .momentum = (float)config->optim.momentum,
        .weight_decay = (float)config->optim.weight_decay,
        .nesterov = config->optim.nesterov,
        .clip_grad_norm = (float)config->optim.clip_grad_norm,
        .sum_of_squares_limit = update->sum_of_squares_limit,
        .earlier_sum_of_squares = update_sums(model, update->step - 1),
    };
    struct sgd_update buffers = {.master = model->master,
                                 .m = model->m,
                                 .working = model->working,
                                 .gradient = model->gradient,
                                 .decay = model->decay,
                                 .lr_scale = model->lr_scale,
                                 .gradient_sum_of_squares = update_sums(model, update->step),
                                 .count = model->parameters.trained,
                                 .sgd = &sgd};
    return model->kernels->sgd_update(model->context, &buffers, error);
}

static bool lamb_step(struct model *model, const struct config *config, const struct update *update,
                      struct error *error)
{
    struct adamw adamw = adam_of(model, config, update);
    struct lamb_update buffers = {.master = model->master,
                                  .m = model->m,
                                  .v = model->v,
                                  .working = model->working,
                                  .gradient = model->gradient,
                                  .decay = model->decay,
                                  .lr_scale = model->lr_scale,
                                  .gradient_sum_of_squares = update_sums(model, update->step),
                                  .count = model->parameters.trained,
                                  .tensor_first = model->lamb.tensor_first,
                                  .tensor_of = model->lamb.tensor_of,
                                  .tensors = model->parameters.count,
                                  .group_sums = model->lamb.group_sums,
                                  .tensor_factors = model->lamb.tensor_factors,
                                  .tensor_sums = model->lamb.tensor_sums,
                                  .adamw = &adamw,
                                  .trust_clip = config->optim.trust_clip};
    return model->kernels->lamb_moments(model->context, &buffers, error) &&
           model->kernels->lamb_apply(model->context, &buffers, error);
}

static bool muon_step(struct model *model, const struct config *config, const struct update *update,
                      struct error *error)
{
    struct adamw adamw = adam_of(model, config, update);
    adamw.nesterov = config->optim.kind == OPTIMISER_NMUON;
    struct muon muon = {
        .momentum = (float)config->optim.momentum,
        .eps = adamw.eps,
        .nesterov = adamw.nesterov,
        .clip_grad_norm = adamw.clip_grad_norm,
        .sum_of_squares_limit = adamw.sum_of_squares_limit,
        .earlier_sum_of_squares = adamw.earlier_sum_of_squares,
    };
    return muon_update(model, &muon, &adamw, update_sums(model, update->step), error);
}

bool update_parameters(struct model *model, const struct config *config, const struct update *update,
                       struct error *error)
{
    bool (*const steps[])(struct model *, const struct config *, const struct update *, struct error *) = {
        [OPTIMISER_ADAMW] = adamw_step, [OPTIMISER_LAMB] = lamb_step,  [OPTIMISER_SGD] = sgd_step,
        [OPTIMISER_MUON] = muon_step,   [OPTIMISER_NMUON] = muon_step,
    };
    return steps[config->optim.kind](model, config, update, error);
}
