/* Looking for the first tensor that holds a NaN or Inf, after a step has met one. */
#include <stdio.h>

#include "src/model/blocks.h"

struct search {
    struct model *model;
    bool *found;
    char *name;
    size_t name_bytes;
    long *layer;
};

/* Records `x` as the finding where it holds a number that is not finite and nothing was found before. */
static bool look(const struct search *search, const char *what, long layer, const void *x, enum dtype dtype,
                 size_t count, struct error *error)
{
    size_t first;
    if (*search->found)
        return true;
    if (!search->model->kernels->find_nonfinite(search->model->context, &first, x, dtype, count, error))
        return false;
    if (first == count)
        return true;
    *search->found = true;
    *search->layer = layer;
    if (layer >= 0)
        snprintf(search->name, search->name_bytes, "blocks.%ld.%s", layer, what);
    else
        snprintf(search->name, search->name_bytes, "%s", what);
    return true;
}

static bool look_at_parameters(const struct search *search, const float *flat, const char *suffix, struct error *error)
{
    const struct parameters *parameters = &search->model->parameters;
    for (size_t i = 0; i < parameters->count && !*search->found; i++) {
        const struct parameter *parameter = &parameters->list[i];
        char what[96];
        long layer = -1;
        snprintf(what, sizeof what, "%s%s", parameter->name, suffix);
        if (!look(search, what, -1, flat + parameter->offset, DTYPE_FLOAT32, parameter->count, error))
            return false;
        if (*search->found && sscanf(parameter->name, "blocks.%ld.", &layer) == 1)
            *search->layer = layer;
    }
    return true;
}

struct looked_at {
    const char *what;
    const void *x;
    size_t count;
};

/* The first tensor of a list that ends with a NULL. */
static bool look_at_list(const struct search *search, size_t block, const struct looked_at *list, struct error *error)
{
    for (; list->what; list++)
        if (!look(search, list->what, (long)block, list->x, search->model->dtype, list->count, error))
            return false;
    return true;
}

/* What is not kept is made again, in its scratch. */
static bool look_at_attention(const struct search *search, size_t block, size_t batch, struct error *error)
{
    struct model *model = search->model;
    const struct block_activations *act = &model->blocks[block];
    size_t dim = model->dim, rows = batch * model->tokens, tail = model_tail(model, block, batch).rows;
    const struct looked_at all[] = {
        {"norm1 output", act->normed1, rows * dim}, {"attn.qkv output", act->qkv, 3 * rows * dim}, {0}};
    const struct looked_at cls[] = {{"norm1 output", act->normed1, rows * dim},
                                    {"attn.qkv output", act->query, batch * dim},
                                    {"attn.qkv output", act->key_value, 2 * rows * dim},
                                    {0}};
    const struct looked_at behind[] = {
        {"attn output", act->attended, tail * dim}, {"residual after attn", act->middle, tail * dim}, {0}};
    return block_norm1(model, block, batch, error) &&
           look_at_list(search, block, model_is_last(model, block) ? cls : all, error) &&
           look_at_list(search, block, behind, error);
}

static bool look_at_mlp(const struct search *search, size_t block, size_t batch, struct error *error)
{
    struct model *model = search->model;
    const struct block_activations *act = &model->blocks[block];
    size_t tail = model_tail(model, block, batch).rows;
    const struct looked_at list[] = {{"norm2 output", act->normed2, tail * model->dim},
                                     {"mlp.fc1 output", act->hidden, tail * model->hidden},
                                     {"mlp.act output", act->activated, tail * model->hidden},
                                     {0}};
    return block_norm2(model, block, batch, error) && block_activate(model, block, batch, error) &&
           look_at_list(search, block, list, error);
}

/* Under recomputation the blocks but the last share memory, so only the residual stream can be told apart. */
static bool look_at_block(const struct search *search, size_t block, size_t batch, struct error *error)
{
    const struct model *model = search->model;
    bool kept = model_is_last(model, block) || !model->recompute;
    return (!kept || (look_at_attention(search, block, batch, error) && look_at_mlp(search, block, batch, error))) &&
           look(search, "residual after mlp", (long)block, model->blocks[block].out, model->dtype,
                model_tail(model, block, batch).rows * model->dim, error);
}

bool model_find_nonfinite(struct model *model, size_t batch, bool *found, char *name, size_t name_bytes, long *layer,
                          struct error *error)
{
    struct search search = {model, found, name, name_bytes, layer};
    size_t rows = batch * model->tokens;
    *found = false;
    if (!look_at_parameters(&search, model->master, "", error) ||
        !look(&search, "patch_embed output", -1, model->embedded, model->dtype, rows * model->dim, error))
        return false;
    for (size_t block = 0; block < model->depth && !*found; block++)
        if (!look_at_block(&search, block, batch, error))
            return false;
    return look(&search, "norm output", -1, model->normed, model->dtype, batch * model->dim, error) &&
           look(&search, "logits", -1, model->logits, model->dtype, batch * model->classes, error) &&
           look(&search, "loss", -1, model->loss, DTYPE_FLOAT32, batch, error);
}

bool model_find_nonfinite_gradient(struct model *model, bool *found, char *name, size_t name_bytes, long *layer,
                                   struct error *error)
{
    struct search search = {model, found, name, name_bytes, layer};
    *found = false;
    return look_at_parameters(&search, model->gradient, " gradient", error);
}
