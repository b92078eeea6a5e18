/* The blocks of a model, which every kind of input and head shares (blocks_forward.c, blocks_backward.c). Internal to
 * src/model; vit.c puts both ends to them. */
#ifndef QUEST_MODEL_BLOCKS_H
#define QUEST_MODEL_BLOCKS_H

#include "src/model/model.h"

static inline float *model_master(const struct model *model, size_t offset)
{
    return offset == NO_OFFSET ? NULL : model->master + offset;
}
static inline const void *model_working(const struct model *model, size_t offset)
{
    return (const char *)model->working + offset * dtype_bytes(model->dtype);
}
static inline float *model_gradient(const struct model *model, size_t offset)
{
    return offset == NO_OFFSET ? NULL : model->gradient + offset;
}
static inline const float *model_path_scale(const struct model *model, size_t block, size_t branch, bool with_path)
{
    return with_path && model->path_scale ? model->path_scale + (2 * block + branch) * model->batch : NULL;
}
struct attention_shape model_attention_shape(const struct model *model, size_t batch);
struct attention_parameters model_attention_parameters(const struct model *model, size_t block);

/* From `embedded`, block 0's input, to `normed`, the final norm of the last block's output. */
bool blocks_forward(struct model *model, size_t batch, bool with_path, bool with_statistics, struct error *error);
/* Fills a block's activations again from its input; norm1's statistics come out the same. */
bool block_recompute(struct model *model, size_t block, size_t batch, bool with_path, struct error *error);

/* One backward pass, and who is told how far the flat gradient is final. */
struct pass {
    struct model *model;
    size_t batch, rows;
    bool with_path;
    model_gradient_ready ready;
    void *owner;
};
/* gradient[0 .. offset) is final. */
static inline bool pass_announce(const struct pass *pass, size_t offset, struct error *error)
{
    return !pass->ready || pass->ready(pass->owner, offset, error);
}
/* From `normed_gradient` to `residual_gradient`, which becomes the gradient of `embedded`. */
bool blocks_backward(const struct pass *pass, struct error *error);

#endif
