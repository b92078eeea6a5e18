/* What the passes of one image cost in products and attention. */
#include "src/model/model.h"

/* A block over all tokens, and the last one, of whose output only CLS goes on (last_block.c). */
static double block_flops(const struct model *model, bool last)
{
    double tokens = (double)model->tokens, dim = (double)model->dim, hidden = (double)model->hidden;
    double query = 2.0 * dim * dim, key_value = 2.0 * query; /* a token, as the next */
    double tail = 2.0 * dim * dim + 4.0 * dim * hidden;      /* proj, fc1, fc2 */
    double attention = 4.0 * tokens * dim;                   /* of one query: Q K^T and P V */
    return last ? tokens * key_value + query + attention + tail : tokens * (query + key_value + attention + tail);
}

/* The blocks from `first` on. */
static double blocks_flops(const struct model *model, size_t first)
{
    double whole = first < model->depth ? (double)(model->depth - 1 - first) * block_flops(model, false) : 0;
    return first < model->depth ? whole + block_flops(model, true) : 0;
}

static double head_flops(const struct model *model)
{
    return 2.0 * (double)model->dim * (double)model->classes;
}

double model_forward_flops(const struct model *model)
{
    return blocks_flops(model, 0) + 2.0 * (double)model->patches * (double)model->patch_dim * (double)model->dim +
           head_flops(model);
}

double model_training_flops(const struct model *model)
{
    double forward = model_forward_flops(model);
    if (model->parameters.trained == model->parameters.total)
        return 3.0 * forward;
    return forward + 2.0 * (blocks_flops(model, model->parameters.frozen_blocks) + head_flops(model));
}
