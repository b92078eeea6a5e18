/* The backward pass, last layer first. After each op group the caller learns how far the flat gradient is final, so
 * that its buckets can be reduced while the pass goes on. */
#include "src/model.h"

struct pass {
    struct model *model;
    size_t batch, rows;
    bool with_path;
    model_gradient_ready ready;
    void *owner;
};

/* gradient[0 .. offset) is final. */
static bool announce(const struct pass *pass, size_t offset, struct error *error)
{
    return !pass->ready || pass->ready(pass->owner, offset, error);
}

static bool head_backward(const struct pass *pass, struct error *error)
{
    struct model *model = pass->model;
    const struct kernels *kernels = model->kernels;
    const struct parameters *at = &model->parameters;
    return kernels->linear_backward(model->context, model->cls_gradient, model_gradient(model, at->head_weight),
                                    model_gradient(model, at->head_bias), model->logits_gradient, model->cls,
                                    model_working(model, at->head_weight), pass->batch, model->dim, model->classes,
                                    error) &&
           kernels->cls_scatter(model->context, model->normed_gradient, model->cls_gradient, pass->batch, model->tokens,
                                model->dim, error) &&
           kernels->zero(model->context, model->residual_gradient, pass->rows * model->dim * dtype_bytes(model->dtype),
                         error);
}

/* The gradient that a branch (attention or MLP) gets: its own where it is scaled, else the residual's. */
static void *branch_gradient(const struct model *model, size_t gamma, const float *path_scale)
{
    return gamma != NO_OFFSET || path_scale ? model->branch_gradient : model->residual_gradient;
}

/* The norm after block's MLP (norm1 of the next block, or the final norm), the residual add, and ls2. */
static bool out_norm_backward(const struct pass *pass, size_t block, struct error *error)
{
    struct model *model = pass->model;
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct block_activations *act = &model->blocks[block];
    bool last = block + 1 == model->depth;
    size_t weight = last ? model->parameters.norm_weight : at[1].norm1_weight;
    size_t bias = last ? model->parameters.norm_bias : at[1].norm1_bias;
    const float *path_scale = model_path_scale(model, block, 1, pass->with_path);
    void *branch = branch_gradient(model, at->ls2_gamma, path_scale);
    return model->kernels->residual_layernorm_backward(
        model->context, model->residual_gradient, branch == model->residual_gradient ? NULL : branch,
        model_gradient(model, weight), model_gradient(model, bias), model_gradient(model, at->ls2_gamma),
        model->normed_gradient, act->out, act->branch2, last ? model->mean : act[1].mean1,
        last ? model->rstd : act[1].rstd1, model_master(model, at->ls2_gamma), path_scale, model_master(model, weight),
        pass->rows, model->tokens, model->dim, error);
}

static bool mlp_backward(const struct pass *pass, size_t block, struct error *error)
{
    struct model *model = pass->model;
    const struct kernels *kernels = model->kernels;
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct block_activations *act = &model->blocks[block];
    const void *out_gradient =
        branch_gradient(model, at->ls2_gamma, model_path_scale(model, block, 1, pass->with_path));
    return kernels->linear_backward(model->context, model->wide_gradient, model_gradient(model, at->fc2_weight),
                                    model_gradient(model, at->fc2_bias), out_gradient, act->activated,
                                    model_working(model, at->fc2_weight), pass->rows, model->hidden, model->dim,
                                    error) &&
           announce(pass, at->fc1_bias, error) &&
           kernels->gelu_backward(model->context, model->wide_gradient, model_gradient(model, at->fc1_bias),
                                  model->wide_gradient, act->hidden, model_working(model, at->fc1_bias), pass->rows,
                                  model->hidden, error) &&
           announce(pass, at->fc1_weight, error) &&
           kernels->linear_backward(model->context, model->normed_gradient, model_gradient(model, at->fc1_weight), NULL,
                                    model->wide_gradient, act->normed2, model_working(model, at->fc1_weight),
                                    pass->rows, model->dim, model->hidden, error) &&
           announce(pass, at->norm2_weight, error);
}

/* norm2, the residual add after attention, and ls1. */
static bool middle_norm_backward(const struct pass *pass, size_t block, struct error *error)
{
    struct model *model = pass->model;
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct block_activations *act = &model->blocks[block];
    const float *path_scale = model_path_scale(model, block, 0, pass->with_path);
    void *branch = branch_gradient(model, at->ls1_gamma, path_scale);
    return model->kernels->residual_layernorm_backward(
               model->context, model->residual_gradient, branch == model->residual_gradient ? NULL : branch,
               model_gradient(model, at->norm2_weight), model_gradient(model, at->norm2_bias),
               model_gradient(model, at->ls1_gamma), model->normed_gradient, act->middle, act->branch1, act->mean2,
               act->rstd2, model_master(model, at->ls1_gamma), path_scale, model_master(model, at->norm2_weight),
               pass->rows, model->tokens, model->dim, error) &&
           announce(pass, at->proj_weight, error);
}

static bool attention_backward(const struct pass *pass, size_t block, struct error *error)
{
    struct model *model = pass->model;
    const struct kernels *kernels = model->kernels;
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct block_activations *act = &model->blocks[block];
    const void *out_gradient =
        branch_gradient(model, at->ls1_gamma, model_path_scale(model, block, 0, pass->with_path));
    struct attention_shape shape = model_attention_shape(model, pass->batch);
    struct attention_parameters extras = model_attention_parameters(model, block);
    struct attention_gradients extra_gradients = {
        .q_weight = model_gradient(model, at->q_norm_weight),
        .q_bias = model_gradient(model, at->q_norm_bias),
        .k_weight = model_gradient(model, at->k_norm_weight),
        .k_bias = model_gradient(model, at->k_norm_bias),
        .scale = model_gradient(model, at->scale),
        .q_scale = model_gradient(model, at->q_scale),
        .k_scale = model_gradient(model, at->k_scale),
    };
    return kernels->linear_backward(model->context, model->attended_gradient, model_gradient(model, at->proj_weight),
                                    model_gradient(model, at->proj_bias), out_gradient, act->attended,
                                    model_working(model, at->proj_weight), pass->rows, model->dim, model->dim, error) &&
           kernels->attention_backward(model->context, model->wide_gradient, &extra_gradients, model->attended_gradient,
                                       act->attended, act->logsumexp, act->qkv, &extras, &shape, error) &&
           announce(pass, at->qkv_weight, error) &&
           kernels->linear_backward(model->context, model->normed_gradient, model_gradient(model, at->qkv_weight),
                                    model_gradient(model, at->qkv_bias), model->wide_gradient, act->normed1,
                                    model_working(model, at->qkv_weight), pass->rows, model->dim, 3 * model->dim,
                                    error) &&
           announce(pass, at->norm1_weight, error);
}

/* Fills the block's activations again from its input; normed1's statistics come out the same. */
static bool recompute(const struct pass *pass, size_t block, struct error *error)
{
    struct model *model = pass->model;
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct block_activations *act = &model->blocks[block];
    if (!model->recompute || block + 1 == model->depth) /* the last block's are still there */
        return true;
    return model->kernels->residual_layernorm_forward(
               model->context, NULL, act->normed1, act->mean1, act->rstd1, model_block_input(model, block), NULL, NULL,
               NULL, model_master(model, at->norm1_weight), model_master(model, at->norm1_bias), pass->rows,
               model->tokens, model->dim, error) &&
           model_attention_branch(model, block, pass->batch, false, error) &&
           model_add_attention_branch(model, block, pass->batch, pass->with_path, error) &&
           model_mlp_branch(model, block, pass->batch, error) &&
           (at->ls2_gamma == NO_OFFSET ||
            model->kernels->linear_forward(model->context, act->branch2, act->activated,
                                           model_working(model, at->fc2_weight), model_working(model, at->fc2_bias),
                                           pass->rows, model->hidden, model->dim, error));
}

static bool embed_backward(const struct pass *pass, struct error *error)
{
    struct model *model = pass->model;
    const struct kernels *kernels = model->kernels;
    const struct parameters *at = &model->parameters;
    const struct block_activations *first = &model->blocks[0];
    return kernels->residual_layernorm_backward(
               model->context, model->residual_gradient, NULL, model_gradient(model, at->blocks[0].norm1_weight),
               model_gradient(model, at->blocks[0].norm1_bias), NULL, model->normed_gradient, model->embedded, NULL,
               first->mean1, first->rstd1, NULL, NULL, model_master(model, at->blocks[0].norm1_weight), pass->rows,
               model->tokens, model->dim, error) &&
           kernels->embed_backward(model->context, model->projected, model_gradient(model, at->cls_token),
                                   model_gradient(model, at->pos_embed), model->residual_gradient, pass->batch,
                                   model->patches, model->dim, error) &&
           kernels->linear_backward(model->context, NULL, model_gradient(model, at->patch_weight),
                                    model_gradient(model, at->patch_bias), model->projected, model->patch_pixels,
                                    model_working(model, at->patch_weight), pass->batch * model->patches,
                                    model->patch_dim, model->dim, error) &&
           announce(pass, at->total, error);
}

bool model_backward(struct model *model, size_t batch, bool with_path, model_gradient_ready ready, void *owner,
                    struct error *error)
{
    struct pass pass = {model, batch, batch * model->tokens, with_path, ready, owner};
    if (!head_backward(&pass, error))
        return false;
    for (size_t block = model->depth; block-- > 0;) {
        const struct block_offsets *at = &model->parameters.blocks[block];
        if (!recompute(&pass, block, error) || !out_norm_backward(&pass, block, error) ||
            !announce(&pass, at->fc2_weight, error) || !mlp_backward(&pass, block, error) ||
            !middle_norm_backward(&pass, block, error) || !attention_backward(&pass, block, error))
            return false;
    }
    return embed_backward(&pass, error);
}
