/* The blocks of a model, which every kind of input and head shares (blocks_forward.c, blocks_backward.c, last_block.c).
 * Internal to src/model; vit.c puts both ends to them. */
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
static inline const float *model_path_scale(const struct model *model, size_t block, size_t branch, bool with_draws)
{
    return with_draws && model->draws.path_scale ? model->draws.path_scale + (2 * block + branch) * model->batch : NULL;
}
static inline bool model_is_last(const struct model *model, size_t block)
{
    return block + 1 == model->depth;
}

/* The rows that a block works on behind its attention. */
struct block_tail {
    size_t rows, tokens; /* of an image: all, in the last block CLS alone */
};
static inline struct block_tail model_tail(const struct model *model, size_t block, size_t batch)
{
    size_t tokens = model_is_last(model, block) ? 1 : model->tokens;
    return (struct block_tail){batch * tokens, tokens};
}

struct attention_shape model_attention_shape(const struct model *model, size_t batch);
struct attention_parameters model_attention_parameters(const struct model *model, size_t block);
struct attention_gradients model_attention_gradients(const struct model *model, size_t block);
static inline double *model_statistics(const struct model *model, size_t block)
{
    return model->statistics + block * model->heads * ATTENTION_STATISTICS;
}
/* x_b. */
static inline void *model_block_input(const struct model *model, size_t block)
{
    return block == 0 ? model->embedded : model->blocks[block - 1].out;
}

/* From `embedded`, block 0's input, to `normed`, the final norm of the last block's CLS rows. */
bool blocks_forward(struct model *model, size_t batch, bool with_draws, bool with_statistics, struct error *error);
/* norm1 and norm2 of a block into `normed1` and `normed2`, from what is kept: the same bits as in the forward pass. */
bool block_norm1(struct model *model, size_t block, size_t batch, struct error *error);
bool block_norm2(struct model *model, size_t block, size_t batch, struct error *error);
/* GELU of `hidden` into `activated`. */
bool block_activate(struct model *model, size_t block, size_t batch, struct error *error);
/* Fills a block's activations again from its input; norm1's statistics come out the same. */
bool block_recompute(struct model *model, size_t block, size_t batch, bool with_draws, struct error *error);

/* One backward pass, and who is told how far the flat gradient is final. */
struct pass {
    struct model *model;
    size_t batch, rows;
    bool with_draws;
    model_gradient_ready ready;
    void *owner;
};
/* gradient[0 .. offset) is final. */
static inline bool pass_announce(const struct pass *pass, size_t offset, struct error *error)
{
    return !pass->ready || pass->ready(pass->owner, offset, error);
}
/* From `normed_gradient`, in its first `batch` rows, to `residual_gradient`, which becomes the gradient of the first
 * trained block's input: of `embedded`, where no block is frozen. */
bool blocks_backward(const struct pass *pass, struct error *error);

/* ---- last_block.c: the last block's attention, with its products but for proj ---- */

/* From `normed1` to `attended`. */
bool last_block_attend(struct model *model, size_t batch, bool with_statistics, struct error *error);
/* From `attended_gradient` and `cls_residual_gradient` to `normed_gradient` and `residual_gradient` of all rows. */
bool last_block_attend_backward(const struct pass *pass, struct error *error);
/* The weights that this leaves out, of keys and values: from `normed1`, which may have been made again, and
 * `wide_gradient`. */
bool last_block_weights_backward(const struct pass *pass, struct error *error);

#endif
