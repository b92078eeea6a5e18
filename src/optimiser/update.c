/* Norms of the gradient, then AdamW with what the configuration says. */
#include "src/optimiser/update.h"

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

static bool adamw_step(struct model *model, const struct config *config, const struct update *update,
                       struct error *error)
{
    struct adamw adamw = {
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

bool update_parameters(struct model *model, const struct config *config, const struct update *update,
                       struct error *error)
{
    bool (*const steps[])(struct model *, const struct config *, const struct update *, struct error *) = {
        [OPTIMISER_ADAMW] = adamw_step,
    };
    return steps[config->optim.kind](model, config, update, error);
}
