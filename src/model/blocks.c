/* What both passes tell the attention ops of a block. */
#include "src/model/blocks.h"

struct attention_shape model_attention_shape(const struct model *model, size_t batch)
{
    return (struct attention_shape){model->kind, batch, model->tokens, model->heads, model->head_dim};
}

struct attention_parameters model_attention_parameters(const struct model *model, size_t block)
{
    struct attention_parameters parameters;
    for (size_t extra = 0; extra < ATTENTION_EXTRAS; extra++)
        parameters.extra[extra] = model_master(model, model->parameters.blocks[block].attention_extra[extra]);
    return parameters;
}

struct attention_gradients model_attention_gradients(const struct model *model, size_t block)
{
    struct attention_gradients gradients;
    for (size_t extra = 0; extra < ATTENTION_EXTRAS; extra++)
        gradients.extra[extra] = model_gradient(model, model->parameters.blocks[block].attention_extra[extra]);
    return gradients;
}
