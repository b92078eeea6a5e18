/* The attention of the last block. Of its output only CLS goes on to the head, so only CLS asks: one query an image,
 * over keys and values of all tokens. The other tokens' queries would get no gradient, so both passes are exact.
 *
 * The packed qkv weight is [3, dim, dim]; its first part makes the queries, the other two keys and values in one
 * product. */
#include "src/model/blocks.h"

static struct linear_forward query_product(const struct model *model, size_t batch)
{
    const struct block_offsets *at = &model->parameters.blocks[model->depth - 1];
    const struct block_activations *act = &model->blocks[model->depth - 1];
    return (struct linear_forward){.out = act->query,
                                   .in = act->cls_normed1,
                                   .weight = model_working(model, at->qkv_weight),
                                   .bias = model_working(model, at->qkv_bias),
                                   .rows = batch,
                                   .in_dim = model->dim,
                                   .out_dim = model->dim};
}

static struct linear_forward key_value_product(const struct model *model, size_t batch)
{
    const struct block_offsets *at = &model->parameters.blocks[model->depth - 1];
    const struct block_activations *act = &model->blocks[model->depth - 1];
    return (struct linear_forward){.out = act->key_value,
                                   .in = model->blocks[model->depth - 1].normed1,
                                   .weight = model_working(model, at->qkv_weight + model->dim * model->dim),
                                   .bias = model_working(model, at->qkv_bias + model->dim),
                                   .rows = batch * model->tokens,
                                   .in_dim = model->dim,
                                   .out_dim = 2 * model->dim};
}

/* Whole attention, for its statistics alone, in memory that no gradient needs yet. */
static bool take_statistics(struct model *model, size_t batch, struct error *error)
{
    size_t block = model->depth - 1;
    struct attention_shape shape = model_attention_shape(model, batch);
    struct attention_parameters extras = model_attention_parameters(model, block);
    struct linear_forward qkv = {.out = model->wide_gradient,
                                 .in = model->blocks[model->depth - 1].normed1,
                                 .weight = model_working(model, model->parameters.blocks[block].qkv_weight),
                                 .bias = model_working(model, model->parameters.blocks[block].qkv_bias),
                                 .rows = batch * model->tokens,
                                 .in_dim = model->dim,
                                 .out_dim = 3 * model->dim};
    if (!model->training)
        return error_runtime(error, "attention's statistics need a model that is open for training");
    return model->kernels->linear_forward(model->context, &qkv, error) &&
           model->kernels->attention_forward(model->context, model->attended_gradient, model->normed_gradient,
                                             model->wide_gradient, &extras, model_statistics(model, block), &shape,
                                             error);
}

bool last_block_attend(struct model *model, size_t batch, bool with_statistics, struct error *error)
{
    const struct kernels *kernels = model->kernels;
    struct block_activations *act = &model->blocks[model->depth - 1];
    struct linear_forward query = query_product(model, batch), key_value = key_value_product(model, batch);
    struct attention_shape shape = model_attention_shape(model, batch);
    struct attention_parameters extras = model_attention_parameters(model, model->depth - 1);
    struct attention_cls_forward attention = {.out = act->attended,
                                              .logsumexp = act->logsumexp,
                                              .query = act->query,
                                              .key_value = act->key_value,
                                              .parameters = &extras,
                                              .shape = &shape};
    return kernels->cls_gather(model->context, act->cls_normed1, model->blocks[model->depth - 1].normed1, batch,
                               model->tokens, model->dim, error) &&
           kernels->linear_forward(model->context, &query, error) &&
           kernels->linear_forward(model->context, &key_value, error) &&
           kernels->attention_cls_forward(model->context, &attention, error) &&
           (!with_statistics || take_statistics(model, batch, error));
}

static bool attention_backward(const struct pass *pass, struct error *error)
{
    struct model *model = pass->model;
    const struct block_activations *act = &model->blocks[model->depth - 1];
    struct attention_shape shape = model_attention_shape(model, pass->batch);
    struct attention_parameters extras = model_attention_parameters(model, model->depth - 1);
    struct attention_gradients extra_gradients = model_attention_gradients(model, model->depth - 1);
    struct attention_cls_backward attention = {.query_gradient = model->query_gradient,
                                               .key_value_gradient = model->wide_gradient,
                                               .gradients = &extra_gradients,
                                               .out_gradient = model->attended_gradient,
                                               .out = act->attended,
                                               .logsumexp = act->logsumexp,
                                               .query = act->query,
                                               .key_value = act->key_value,
                                               .parameters = &extras,
                                               .shape = &shape};
    return model->kernels->attention_cls_backward(model->context, &attention, error);
}

/* To the gradients of cls_normed1 and, but for what that adds to its CLS rows, of norm1's output. */
static bool products_backward(const struct pass *pass, struct error *error)
{
    struct model *model = pass->model;
    size_t dim = model->dim;
    const struct block_offsets *at = &model->parameters.blocks[model->depth - 1];
    const struct block_activations *act = &model->blocks[model->depth - 1];
    struct linear_backward query = {.in_gradient = model->cls_normed1_gradient,
                                    .weight_gradient = model_gradient(model, at->qkv_weight),
                                    .bias_gradient = model_gradient(model, at->qkv_bias),
                                    .out_gradient = model->query_gradient,
                                    .in = act->cls_normed1,
                                    .weight = model_working(model, at->qkv_weight),
                                    .rows = pass->batch,
                                    .in_dim = dim,
                                    .out_dim = dim,
                                    .overwrite = model->first_backward};
    struct linear_backward key_value = {.in_gradient = model->normed_gradient,
                                        .out_gradient = model->wide_gradient,
                                        .weight = model_working(model, at->qkv_weight + dim * dim),
                                        .rows = pass->rows,
                                        .in_dim = dim,
                                        .out_dim = 2 * dim};
    return model->kernels->linear_backward(model->context, &query, error) &&
           model->kernels->linear_backward(model->context, &key_value, error);
}

bool last_block_weights_backward(const struct pass *pass, struct error *error)
{
    struct model *model = pass->model;
    size_t dim = model->dim;
    const struct block_offsets *at = &model->parameters.blocks[model->depth - 1];
    struct linear_backward key_value = {.weight_gradient = model_gradient(model, at->qkv_weight + dim * dim),
                                        .bias_gradient = model_gradient(model, at->qkv_bias + dim),
                                        .out_gradient = model->wide_gradient,
                                        .in = model->blocks[model->depth - 1].normed1,
                                        .rows = pass->rows,
                                        .in_dim = dim,
                                        .out_dim = 2 * dim,
                                        .overwrite = model->first_backward};
    return model->kernels->linear_backward(model->context, &key_value, error);
}

bool last_block_attend_backward(const struct pass *pass, struct error *error)
{
    struct model *model = pass->model;
    const struct kernels *kernels = model->kernels;
    size_t qkv_weight = model->parameters.blocks[model->depth - 1].qkv_weight;
    return attention_backward(pass, error) && pass_announce(pass, qkv_weight, error) &&
           products_backward(pass, error) &&
           kernels->cls_add(model->context, model->normed_gradient, model->cls_normed1_gradient, pass->batch,
                            model->tokens, model->dim, error) &&
           kernels->cls_scatter(model->context, model->residual_gradient, model->cls_residual_gradient, pass->batch,
                                model->tokens, model->dim, error);
}
