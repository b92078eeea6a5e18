/* The blocks' backward pass, last block first. After each op group the caller learns how far the flat gradient is
 * final, so that its buckets can be reduced while the pass goes on.
 *
 * The inputs of fc2, fc1 and qkv are not kept. Each is made again by the pass that reads what it is made of anyway,
 * which costs one write of it: the input of fc2 by gelu_backward, those of fc1 and qkv by their norm's backward pass.
 * A product's weight gradient, which alone needs its input, therefore waits for that pass; for qkv, which norm1 comes
 * before, until the block before it is under way. */
#include "src/model/blocks.h"

/* Of the rows of the block's tail. */
static void *residual_gradient(const struct model *model, size_t block)
{
    return model_is_last(model, block) ? model->cls_residual_gradient : model->residual_gradient;
}

/* The gradient that a branch (attention or MLP) gets: its own where it is scaled, else NULL, and it is the residual's.
 */
static void *own_branch_gradient(const struct model *model, size_t gamma, const float *path_scale)
{
    return gamma != NO_OFFSET || path_scale ? model->branch_gradient : NULL;
}
/* Where a norm's output is to be made again; NULL where it was kept. */
static void *made_again(const struct model *model, void *normed)
{
    return model->keeps_inputs ? NULL : normed;
}
static const void *branch_gradient(const struct model *model, size_t block, size_t gamma, const float *path_scale)
{
    const void *own = own_branch_gradient(model, gamma, path_scale);
    return own ? own : residual_gradient(model, block);
}

/* The norm after block's MLP (norm1 of the next block, whose output it makes again, or the final norm), the residual
 * add, and ls2. */
static bool out_norm_backward(const struct pass *pass, size_t block, struct error *error)
{
    struct model *model = pass->model;
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct block_activations *act = &model->blocks[block];
    struct block_tail tail = model_tail(model, block, pass->batch);
    bool last = model_is_last(model, block);
    size_t weight = last ? model->parameters.norm_weight : at[1].norm1_weight;
    size_t bias = last ? model->parameters.norm_bias : at[1].norm1_bias;
    const float *path_scale = model_path_scale(model, block, 1, pass->with_draws);
    struct residual_layernorm_backward norm = {.residual_gradient = residual_gradient(model, block),
                                               .branch_gradient = own_branch_gradient(model, at->ls2_gamma, path_scale),
                                               .normed = last ? NULL : made_again(model, act[1].normed1),
                                               .weight_gradient = model_gradient(model, weight),
                                               .bias_gradient = model_gradient(model, bias),
                                               .gamma_gradient = model_gradient(model, at->ls2_gamma),
                                               .normed_gradient = model->normed_gradient,
                                               .residual_out = act->out,
                                               .branch = act->branch2,
                                               .mean = last ? model->mean : act[1].mean1,
                                               .rstd = last ? model->rstd : act[1].rstd1,
                                               .gamma = model_master(model, at->ls2_gamma),
                                               .path_scale = path_scale,
                                               .weight = model_master(model, weight),
                                               .bias = model_master(model, bias),
                                               .rows = tail.rows,
                                               .tokens = tail.tokens,
                                               .dim = model->dim};
    return model->kernels->residual_layernorm_backward(model->context, &norm, error);
}

/* But for fc1's weights. */
static bool mlp_backward(const struct pass *pass, size_t block, struct error *error)
{
    struct model *model = pass->model;
    const struct kernels *kernels = model->kernels;
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct block_activations *act = &model->blocks[block];
    size_t rows = model_tail(model, block, pass->batch).rows;
    const void *out_gradient =
        branch_gradient(model, block, at->ls2_gamma, model_path_scale(model, block, 1, pass->with_draws));
    struct linear_backward fc2 = {.in_gradient = model->wide_gradient,
                                  .out_gradient = out_gradient,
                                  .weight = model_working(model, at->fc2_weight),
                                  .rows = rows,
                                  .in_dim = model->hidden,
                                  .out_dim = model->dim};
    struct linear_backward fc2_weights = {.weight_gradient = model_gradient(model, at->fc2_weight),
                                          .bias_gradient = model_gradient(model, at->fc2_bias),
                                          .out_gradient = out_gradient,
                                          .in = act->fc2_input, /* where GELU has put its result by then */
                                          .rows = rows,
                                          .in_dim = model->hidden,
                                          .out_dim = model->dim,
                                          .overwrite = model->first_backward};
    struct gelu_backward gelu = {.in_gradient = model->wide_gradient,
                                 .out = model->keeps_inputs ? NULL : act->fc2_input,
                                 .bias_gradient = model_gradient(model, at->fc1_bias),
                                 .out_gradient = model->wide_gradient,
                                 .in = act->hidden,
                                 .bias = model_working(model, at->fc1_bias),
                                 .rows = rows,
                                 .dim = model->hidden};
    struct linear_backward fc1 = {.in_gradient = model->normed_gradient,
                                  .out_gradient = model->wide_gradient,
                                  .weight = model_working(model, at->fc1_weight),
                                  .rows = rows,
                                  .in_dim = model->dim,
                                  .out_dim = model->hidden};
    return kernels->linear_backward(model->context, &fc2, error) &&
           kernels->gelu_backward(model->context, &gelu, error) &&
           kernels->linear_backward(model->context, &fc2_weights, error) &&
           pass_announce(pass, at->fc1_weight, error) && kernels->linear_backward(model->context, &fc1, error);
}

static bool fc1_weights_backward(const struct pass *pass, size_t block, struct error *error)
{
    struct model *model = pass->model;
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct linear_backward fc1 = {.weight_gradient = model_gradient(model, at->fc1_weight),
                                  .out_gradient = model->wide_gradient,
                                  .in = model->blocks[block].normed2,
                                  .rows = model_tail(model, block, pass->batch).rows,
                                  .in_dim = model->dim,
                                  .out_dim = model->hidden,
                                  .overwrite = model->first_backward};
    return model->kernels->linear_backward(model->context, &fc1, error);
}

/* norm2, whose output it makes again, the residual add after attention, and ls1. */
static bool middle_norm_backward(const struct pass *pass, size_t block, struct error *error)
{
    struct model *model = pass->model;
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct block_activations *act = &model->blocks[block];
    const float *path_scale = model_path_scale(model, block, 0, pass->with_draws);
    struct block_tail tail = model_tail(model, block, pass->batch);
    struct residual_layernorm_backward norm2 = {.residual_gradient = residual_gradient(model, block),
                                                .branch_gradient =
                                                    own_branch_gradient(model, at->ls1_gamma, path_scale),
                                                .normed = made_again(model, act->normed2),
                                                .weight_gradient = model_gradient(model, at->norm2_weight),
                                                .bias_gradient = model_gradient(model, at->norm2_bias),
                                                .gamma_gradient = model_gradient(model, at->ls1_gamma),
                                                .normed_gradient = model->normed_gradient,
                                                .residual_out = act->middle,
                                                .branch = act->branch1,
                                                .mean = act->mean2,
                                                .rstd = act->rstd2,
                                                .gamma = model_master(model, at->ls1_gamma),
                                                .path_scale = path_scale,
                                                .weight = model_master(model, at->norm2_weight),
                                                .bias = model_master(model, at->norm2_bias),
                                                .rows = tail.rows,
                                                .tokens = tail.tokens,
                                                .dim = model->dim};
    return model->kernels->residual_layernorm_backward(model->context, &norm2, error);
}

/* From `attended_gradient` to `normed_gradient`, but for qkv's weights. */
static bool attend_backward(const struct pass *pass, size_t block, struct error *error)
{
    struct model *model = pass->model;
    const struct block_offsets *at = &model->parameters.blocks[block];
    const struct block_activations *act = &model->blocks[block];
    struct attention_shape shape = model_attention_shape(model, pass->batch);
    struct attention_parameters extras = model_attention_parameters(model, block);
    struct attention_gradients extra_gradients = model_attention_gradients(model, block);
    struct attention_backward attention = {.qkv_gradient = model->wide_gradient,
                                           .gradients = &extra_gradients,
                                           .out_gradient = model->attended_gradient,
                                           .out = act->attended,
                                           .logsumexp = act->logsumexp,
                                           .qkv = act->qkv,
                                           .parameters = &extras,
                                           .shape = &shape};
    struct linear_backward qkv = {.in_gradient = model->normed_gradient,
                                  .out_gradient = model->wide_gradient,
                                  .weight = model_working(model, at->qkv_weight),
                                  .rows = pass->rows,
                                  .in_dim = model->dim,
                                  .out_dim = 3 * model->dim};
    return model->kernels->attention_backward(model->context, &attention, error) &&
           pass_announce(pass, at->qkv_weight, error) && model->kernels->linear_backward(model->context, &qkv, error);
}

static bool qkv_weights_backward(const struct pass *pass, size_t block, struct error *error)
{
    struct model *model = pass->model;
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct linear_backward qkv = {.weight_gradient = model_gradient(model, at->qkv_weight),
                                  .bias_gradient = model_gradient(model, at->qkv_bias),
                                  .out_gradient = model->wide_gradient,
                                  .in = model->blocks[block].normed1,
                                  .rows = pass->rows,
                                  .in_dim = model->dim,
                                  .out_dim = 3 * model->dim,
                                  .overwrite = model->first_backward};
    return model_is_last(model, block) ? last_block_weights_backward(pass, error)
                                       : model->kernels->linear_backward(model->context, &qkv, error);
}

static bool attention_backward(const struct pass *pass, size_t block, struct error *error)
{
    struct model *model = pass->model;
    const struct block_offsets *at = &model->parameters.blocks[block];
    const float *path_scale = model_path_scale(model, block, 0, pass->with_draws);
    struct linear_backward proj = {.in_gradient = model->attended_gradient,
                                   .weight_gradient = model_gradient(model, at->proj_weight),
                                   .bias_gradient = model_gradient(model, at->proj_bias),
                                   .out_gradient = branch_gradient(model, block, at->ls1_gamma, path_scale),
                                   .in = model->blocks[block].attended,
                                   .weight = model_working(model, at->proj_weight),
                                   .rows = model_tail(model, block, pass->batch).rows,
                                   .in_dim = model->dim,
                                   .out_dim = model->dim,
                                   .overwrite = model->first_backward};
    return model->kernels->linear_backward(model->context, &proj, error) &&
           (model_is_last(model, block) ? last_block_attend_backward(pass, error)
                                        : attend_backward(pass, block, error));
}

/* norm1 of the first block that is trained, behind which no residual add has anything to do. */
static bool first_norm_backward(const struct pass *pass, size_t block, struct error *error)
{
    struct model *model = pass->model;
    const struct block_offsets *at = &model->parameters.blocks[block];
    const struct block_activations *first = &model->blocks[block];
    struct residual_layernorm_backward norm1 = {.residual_gradient = model->residual_gradient,
                                                .normed = made_again(model, first->normed1),
                                                .weight_gradient = model_gradient(model, at->norm1_weight),
                                                .bias_gradient = model_gradient(model, at->norm1_bias),
                                                .normed_gradient = model->normed_gradient,
                                                .residual_out = model_block_input(model, block),
                                                .mean = first->mean1,
                                                .rstd = first->rstd1,
                                                .weight = model_master(model, at->norm1_weight),
                                                .bias = model_master(model, at->norm1_bias),
                                                .rows = pass->rows,
                                                .tokens = model->tokens,
                                                .dim = model->dim};
    return model->kernels->residual_layernorm_backward(model->context, &norm1, error);
}

/* The final norm where it and the head are all that is trained. */
static bool final_norm_backward(const struct pass *pass, struct error *error)
{
    struct model *model = pass->model;
    const struct parameters *at = &model->parameters;
    struct residual_layernorm_backward norm = {.residual_gradient = model->cls_residual_gradient,
                                               .weight_gradient = model_gradient(model, at->norm_weight),
                                               .bias_gradient = model_gradient(model, at->norm_bias),
                                               .normed_gradient = model->normed_gradient,
                                               .residual_out = model->blocks[model->depth - 1].out,
                                               .mean = model->mean,
                                               .rstd = model->rstd,
                                               .weight = model_master(model, at->norm_weight),
                                               .bias = model_master(model, at->norm_bias),
                                               .rows = pass->batch,
                                               .tokens = 1,
                                               .dim = model->dim};
    return model->kernels->residual_layernorm_backward(model->context, &norm, error);
}

bool blocks_backward(const struct pass *pass, struct error *error)
{
    struct model *model = pass->model;
    size_t first = model->parameters.frozen_blocks;
    if (first == model->depth)
        return final_norm_backward(pass, error);
    for (size_t block = model->depth; block-- > first;) {
        const struct block_offsets *at = &model->parameters.blocks[block];
        bool kept = !model->recompute || block + 1 == model->depth; /* the last block's activations are still there */
        if ((!kept && !block_recompute(model, block, pass->batch, pass->with_draws, error)) ||
            !out_norm_backward(pass, block, error) ||
            (!model_is_last(model, block) && !qkv_weights_backward(pass, block + 1, error)) ||
            !pass_announce(pass, at->fc2_weight, error) || !mlp_backward(pass, block, error) ||
            !middle_norm_backward(pass, block, error) || !fc1_weights_backward(pass, block, error) ||
            !pass_announce(pass, at->proj_weight, error) || !attention_backward(pass, block, error))
            return false;
    }
    return first_norm_backward(pass, first, error) && qkv_weights_backward(pass, first, error);
}
