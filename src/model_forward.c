/* The forward pass: embed, blocks, final norm, head. */
#include "src/model.h"

struct attention_shape model_attention_shape(const struct model *model, size_t batch)
{
    return (struct attention_shape){model->kind, batch, model->tokens, model->heads, model->head_dim};
}

struct attention_parameters model_attention_parameters(const struct model *model, size_t block)
{
    const struct block_offsets *at = &model->parameters.blocks[block];
    return (struct attention_parameters){
        .q_weight = model_master(model, at->q_norm_weight),
        .q_bias = model_master(model, at->q_norm_bias),
        .k_weight = model_master(model, at->k_norm_weight),
        .k_bias = model_master(model, at->k_norm_bias),
        .scale = model_master(model, at->scale),
        .q_scale = model_master(model, at->q_scale),
        .k_scale = model_master(model, at->k_scale),
    };
}

void *model_block_input(const struct model *model, size_t block)
{
    return block == 0 ? model->embedded : model->blocks[block - 1].out;
}

static bool embed(struct model *model, const uint8_t *pixels, size_t batch, struct error *error)
{
    const struct kernels *kernels = model->kernels;
    const struct parameters *at = &model->parameters;
    struct block_activations *first = &model->blocks[0];
    return kernels->patches_normalise(model->context, model->patch_pixels, pixels, model->pixel_scale,
                                      model->pixel_shift, NULL, NULL, batch, model->patches, model->patch,
                                      model->channels, error) &&
           kernels->linear_forward(model->context, model->projected, model->patch_pixels,
                                   model_working(model, at->patch_weight), model_working(model, at->patch_bias),
                                   batch * model->patches, model->patch_dim, model->dim, error) &&
           kernels->embed_forward(model->context, model->embedded, model->projected, model_master(model, at->cls_token),
                                  model_master(model, at->pos_embed), batch, model->patches, model->dim, error) &&
           kernels->residual_layernorm_forward(
               model->context, NULL, first->normed1, first->mean1, first->rstd1, model->embedded, NULL, NULL, NULL,
               model_master(model, at->blocks[0].norm1_weight), model_master(model, at->blocks[0].norm1_bias),
               batch * model->tokens, model->tokens, model->dim, error);
}

bool model_attention_branch(struct model *model, size_t block, size_t batch, bool with_statistics, struct error *error)
{
    const struct kernels *kernels = model->kernels;
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct block_activations *act = &model->blocks[block];
    size_t rows = batch * model->tokens;
    struct attention_shape shape = model_attention_shape(model, batch);
    struct attention_parameters extras = model_attention_parameters(model, block);
    double *statistics = with_statistics ? model->statistics + block * model->heads * ATTENTION_STATISTICS : NULL;
    return kernels->linear_forward(model->context, act->qkv, act->normed1, model_working(model, at->qkv_weight),
                                   model_working(model, at->qkv_bias), rows, model->dim, 3 * model->dim, error) &&
           kernels->attention_forward(model->context, act->attended, act->logsumexp, act->qkv, &extras, statistics,
                                      &shape, error) &&
           kernels->linear_forward(model->context, act->branch1, act->attended, model_working(model, at->proj_weight),
                                   model_working(model, at->proj_bias), rows, model->dim, model->dim, error);
}

bool model_add_attention_branch(struct model *model, size_t block, size_t batch, bool with_path, struct error *error)
{
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct block_activations *act = &model->blocks[block];
    return model->kernels->residual_layernorm_forward(
        model->context, act->middle, act->normed2, act->mean2, act->rstd2, model_block_input(model, block),
        act->branch1, model_master(model, at->ls1_gamma), model_path_scale(model, block, 0, with_path),
        model_master(model, at->norm2_weight), model_master(model, at->norm2_bias), batch * model->tokens,
        model->tokens, model->dim, error);
}

bool model_mlp_branch(struct model *model, size_t block, size_t batch, struct error *error)
{
    const struct kernels *kernels = model->kernels;
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct block_activations *act = &model->blocks[block];
    size_t rows = batch * model->tokens;
    return kernels->linear_forward(model->context, act->hidden, act->normed2, model_working(model, at->fc1_weight),
                                   NULL, rows, model->dim, model->hidden, error) &&
           kernels->gelu_forward(model->context, act->activated, act->hidden, model_working(model, at->fc1_bias), rows,
                                 model->hidden, error);
}

/* fc2, the residual add, and the norm that comes next: norm1 of the next block, or the final one. */
static bool finish_block(struct model *model, size_t block, size_t batch, bool with_path, struct error *error)
{
    const struct kernels *kernels = model->kernels;
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct block_activations *act = &model->blocks[block];
    bool last = block + 1 == model->depth;
    struct block_activations *next = last ? NULL : act + 1;
    size_t norm_weight = last ? model->parameters.norm_weight : at[1].norm1_weight;
    size_t norm_bias = last ? model->parameters.norm_bias : at[1].norm1_bias;
    size_t rows = batch * model->tokens;
    return kernels->linear_forward(model->context, act->branch2, act->activated, model_working(model, at->fc2_weight),
                                   model_working(model, at->fc2_bias), rows, model->hidden, model->dim, error) &&
           kernels->residual_layernorm_forward(
               model->context, act->out, last ? model->normed : next->normed1, last ? model->mean : next->mean1,
               last ? model->rstd : next->rstd1, act->middle, act->branch2, model_master(model, at->ls2_gamma),
               model_path_scale(model, block, 1, with_path), model_master(model, norm_weight),
               model_master(model, norm_bias), rows, model->tokens, model->dim, error);
}

bool model_forward(struct model *model, const uint8_t *pixels, size_t batch, bool with_path, bool with_statistics,
                   struct error *error)
{
    if (!embed(model, pixels, batch, error))
        return false;
    for (size_t block = 0; block < model->depth; block++)
        if (!model_attention_branch(model, block, batch, with_statistics, error) ||
            !model_add_attention_branch(model, block, batch, with_path, error) ||
            !model_mlp_branch(model, block, batch, error) || !finish_block(model, block, batch, with_path, error))
            return false;
    return model->kernels->cls_gather(model->context, model->cls, model->normed, batch, model->tokens, model->dim,
                                      error) &&
           model->kernels->linear_forward(
               model->context, model->logits, model->cls, model_working(model, model->parameters.head_weight),
               model_working(model, model->parameters.head_bias), batch, model->dim, model->classes, error);
}

bool model_loss(struct model *model, const int32_t *labels, size_t batch, float smoothing, float gradient_scale,
                struct error *error)
{
    return model->kernels->cross_entropy(model->context, model->loss, model->label_rank,
                                         gradient_scale != 0 ? model->logits_gradient : NULL, model->logits, labels,
                                         NULL, NULL, smoothing, gradient_scale, batch, model->classes, error);
}
