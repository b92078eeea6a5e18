/* The blocks' forward pass, step by step: recomputation runs most of them again. */
#include "src/model/blocks.h"

bool block_norm1(struct model *model, size_t block, size_t batch, struct error *error)
{
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct block_activations *act = &model->blocks[block];
    struct residual_layernorm_forward norm = {.normed = act->normed1,
                                              .mean = act->mean1,
                                              .rstd = act->rstd1,
                                              .residual_in = model_block_input(model, block),
                                              .weight = model_master(model, at->norm1_weight),
                                              .bias = model_master(model, at->norm1_bias),
                                              .rows = batch * model->tokens,
                                              .tokens = model->tokens,
                                              .dim = model->dim};
    return model->kernels->residual_layernorm_forward(model->context, &norm, error);
}

bool block_norm2(struct model *model, size_t block, size_t batch, struct error *error)
{
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct block_activations *act = &model->blocks[block];
    struct block_tail tail = model_tail(model, block, batch);
    struct residual_layernorm_forward norm = {.normed = act->normed2,
                                              .mean = act->mean2,
                                              .rstd = act->rstd2,
                                              .residual_in = act->middle,
                                              .weight = model_master(model, at->norm2_weight),
                                              .bias = model_master(model, at->norm2_bias),
                                              .rows = tail.rows,
                                              .tokens = tail.tokens,
                                              .dim = model->dim};
    return model->kernels->residual_layernorm_forward(model->context, &norm, error);
}

/* From `normed1` to `attended`. */
static bool attend(struct model *model, size_t block, size_t batch, bool with_statistics, struct error *error)
{
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct block_activations *act = &model->blocks[block];
    struct attention_shape shape = model_attention_shape(model, batch);
    struct attention_parameters extras = model_attention_parameters(model, block);
    struct linear_forward qkv = {.out = act->qkv,
                                 .in = act->normed1,
                                 .weight = model_working(model, at->qkv_weight),
                                 .bias = model_working(model, at->qkv_bias),
                                 .rows = batch * model->tokens,
                                 .in_dim = model->dim,
                                 .out_dim = 3 * model->dim};
    return model->kernels->linear_forward(model->context, &qkv, error) &&
           model->kernels->attention_forward(model->context, act->attended, act->logsumexp, act->qkv, &extras,
                                             with_statistics ? model_statistics(model, block) : NULL, &shape, error);
}

static bool attention_branch(struct model *model, size_t block, size_t batch, bool with_statistics, struct error *error)
{
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct block_activations *act = &model->blocks[block];
    struct linear_forward proj = {.out = act->branch1,
                                  .in = act->attended,
                                  .weight = model_working(model, at->proj_weight),
                                  .bias = model_working(model, at->proj_bias),
                                  .rows = model_tail(model, block, batch).rows,
                                  .in_dim = model->dim,
                                  .out_dim = model->dim};
    bool attended = model_is_last(model, block) ? last_block_attend(model, batch, with_statistics, error)
                                                : attend(model, block, batch, with_statistics, error);
    return attended && model->kernels->linear_forward(model->context, &proj, error);
}

static bool add_attention_branch(struct model *model, size_t block, size_t batch, bool with_draws, struct error *error)
{
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct block_activations *act = &model->blocks[block];
    struct block_tail tail = model_tail(model, block, batch);
    void *input = model_block_input(model, block);
    if (model_is_last(model, block)) {
        if (!model->kernels->cls_gather(model->context, act->middle, input, batch, model->tokens, model->dim, error))
            return false;
        input = act->middle;
    }
    struct residual_layernorm_forward norm2 = {.residual_out = act->middle,
                                               .normed = act->normed2,
                                               .mean = act->mean2,
                                               .rstd = act->rstd2,
                                               .residual_in = input,
                                               .branch = act->branch1,
                                               .gamma = model_master(model, at->ls1_gamma),
                                               .path_scale = model_path_scale(model, block, 0, with_draws),
                                               .weight = model_master(model, at->norm2_weight),
                                               .bias = model_master(model, at->norm2_bias),
                                               .rows = tail.rows,
                                               .tokens = tail.tokens,
                                               .dim = model->dim};
    return model->kernels->residual_layernorm_forward(model->context, &norm2, error);
}

static bool fc1(struct model *model, size_t block, size_t batch, struct error *error)
{
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct linear_forward product = {.out = model->blocks[block].hidden,
                                     .in = model->blocks[block].normed2,
                                     .weight = model_working(model, at->fc1_weight), /* GELU adds the bias */
                                     .rows = model_tail(model, block, batch).rows,
                                     .in_dim = model->dim,
                                     .out_dim = model->hidden};
    return model->kernels->linear_forward(model->context, &product, error);
}

bool block_activate(struct model *model, size_t block, size_t batch, struct error *error)
{
    const struct block_activations *act = &model->blocks[block];
    return model->kernels->gelu_forward(model->context, act->activated, act->hidden,
                                        model_working(model, model->parameters.blocks[block].fc1_bias),
                                        model_tail(model, block, batch).rows, model->hidden, error);
}

static bool fc2(struct model *model, size_t block, size_t batch, struct error *error)
{
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct block_activations *act = &model->blocks[block];
    struct linear_forward product = {.out = act->branch2,
                                     .in = act->activated,
                                     .weight = model_working(model, at->fc2_weight),
                                     .bias = model_working(model, at->fc2_bias),
                                     .rows = model_tail(model, block, batch).rows,
                                     .in_dim = model->hidden,
                                     .out_dim = model->dim};
    return model->kernels->linear_forward(model->context, &product, error);
}

/* The residual add after the MLP, and the norm that comes next: norm1 of the next block, or the final one. */
static bool add_mlp_branch(struct model *model, size_t block, size_t batch, bool with_draws, struct error *error)
{
    const struct block_offsets *at = &model->parameters.blocks[block];
    struct block_activations *act = &model->blocks[block];
    struct block_tail tail = model_tail(model, block, batch);
    bool last = model_is_last(model, block);
    struct block_activations *next = last ? NULL : act + 1;
    size_t norm_weight = last ? model->parameters.norm_weight : at[1].norm1_weight;
    size_t norm_bias = last ? model->parameters.norm_bias : at[1].norm1_bias;
    struct residual_layernorm_forward norm = {.residual_out = act->out,
                                              .normed = last ? model->normed : act[1].normed1,
                                              .mean = last ? model->mean : next->mean1,
                                              .rstd = last ? model->rstd : next->rstd1,
                                              .residual_in = act->middle,
                                              .branch = act->branch2,
                                              .gamma = model_master(model, at->ls2_gamma),
                                              .path_scale = model_path_scale(model, block, 1, with_draws),
                                              .weight = model_master(model, norm_weight),
                                              .bias = model_master(model, norm_bias),
                                              .rows = tail.rows,
                                              .tokens = tail.tokens,
                                              .dim = model->dim};
    return model->kernels->residual_layernorm_forward(model->context, &norm, error);
}

bool blocks_forward(struct model *model, size_t batch, bool with_draws, bool with_statistics, struct error *error)
{
    if (!block_norm1(model, 0, batch, error))
        return false;
    for (size_t block = 0; block < model->depth; block++)
        if (!attention_branch(model, block, batch, with_statistics, error) ||
            !add_attention_branch(model, block, batch, with_draws, error) || !fc1(model, block, batch, error) ||
            !block_activate(model, block, batch, error) || !fc2(model, block, batch, error) ||
            !add_mlp_branch(model, block, batch, with_draws, error))
            return false;
    return true;
}

bool block_recompute(struct model *model, size_t block, size_t batch, bool with_draws, struct error *error)
{
    bool scaled = model->parameters.blocks[block].ls2_gamma != NO_OFFSET;
    return block_norm1(model, block, batch, error) && attention_branch(model, block, batch, false, error) &&
           add_attention_branch(model, block, batch, with_draws, error) && fc1(model, block, batch, error) &&
           (!scaled || (block_activate(model, block, batch, error) && fc2(model, block, batch, error)));
}
