/* Memory of the model: counted by the same functions that hand it out, so plan and allocation cannot differ. */
#include "src/model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/model/optimiser_state.h"
#include "src/model/replay.h"

static const char *const allocation_names[4] = {"parameters", "optimiser", "activations", "activation gradients"};

static void set_sizes(struct model *model, const struct model_options *options)
{
    const struct config *config = options->config;
    size_t grid = (size_t)(config->model.image_size / config->model.patch_size);
    model->kernels = options->kernels;
    model->dtype = config->train.precision;
    model->kind = config->attention.kind;
    model->batch = options->batch;
    model->patch = (size_t)config->model.patch_size;
    model->columns = grid;
    model->patches = grid * grid;
    model->tokens = model->patches + 1;
    model->channels = options->channels;
    model->patch_dim = model->channels * model->patch * model->patch;
    model->dim = (size_t)config->model.dim;
    model->hidden = config_hidden_dim(config);
    model->heads = (size_t)config->model.heads;
    model->head_dim = model->dim / model->heads;
    model->depth = (size_t)config->model.depth;
    model->classes = (size_t)config->model.classes;
    model->training = options->training;
    model->recompute = config->train.recompute;
    model->keeps_inputs = model->training && !model->recompute && config->train.keep_inputs == SWITCH_ON;
}

static void cut_parameters(struct model *model, struct memory_cutter *cutter)
{
    size_t total = model->parameters.total;
    model->master = memory_cut(cutter, total * sizeof(float));
    model->working =
        model->dtype == DTYPE_FLOAT32 ? model->master : memory_cut(cutter, total * dtype_bytes(model->dtype));
    if (model->training)
        model->gradient = memory_cut(cutter, total * sizeof(float));
    model->pixel_scale = memory_cut(cutter, model->channels * sizeof(float));
    model->pixel_shift = memory_cut(cutter, model->channels * sizeof(float));
}

/* What a block computes behind its attention's projections, for `rows` rows. */
static void cut_tail(struct model *model, struct memory_cutter *cutter, struct block_activations *act, size_t rows,
                     bool layer_scale)
{
    size_t row_bytes = rows * model->dim * dtype_bytes(model->dtype);
    size_t hidden_bytes = rows * model->hidden * dtype_bytes(model->dtype);
    act->logsumexp = memory_cut(cutter, rows * model->heads * sizeof(float));
    act->attended = memory_cut(cutter, row_bytes);
    act->middle = memory_cut(cutter, row_bytes);
    act->hidden = memory_cut(cutter, hidden_bytes);
    act->normed2 = model->keeps_inputs ? memory_cut(cutter, row_bytes) : model->block_normed;
    act->activated = model->keeps_inputs ? memory_cut(cutter, hidden_bytes)
                     : model->training   ? model->activated
                                         : act->hidden;
    act->fc2_input = model->keeps_inputs ? act->activated : act->hidden;
    if (layer_scale) {
        act->branch1 = memory_cut(cutter, row_bytes);
        act->branch2 = memory_cut(cutter, row_bytes);
    } else {
        act->branch1 = act->branch2 = model->projected; /* read at once by the residual add */
    }
}

/* What every block keeps, whoever lends the rest. */
static void cut_norms(struct model *model, struct memory_cutter *cutter, struct block_activations *act, size_t tail)
{
    size_t rows = model->batch * model->tokens;
    size_t row_bytes = model->dim * dtype_bytes(model->dtype);
    act->normed1 = model->keeps_inputs ? memory_cut(cutter, rows * row_bytes) : model->block_normed;
    act->out = memory_cut(cutter, tail * row_bytes);
    act->mean1 = memory_cut(cutter, rows * sizeof(float));
    act->rstd1 = memory_cut(cutter, rows * sizeof(float));
    act->mean2 = memory_cut(cutter, tail * sizeof(float));
    act->rstd2 = memory_cut(cutter, tail * sizeof(float));
}

/* One block's activations. `shared` (or NULL) lends the large ones where nothing reads them after the block: in
 * evaluation, and under recomputation. */
static void cut_block(struct model *model, struct memory_cutter *cutter, struct block_activations *act,
                      const struct block_activations *shared, bool layer_scale)
{
    size_t rows = model->batch * model->tokens, row_bytes = rows * model->dim * dtype_bytes(model->dtype);
    if (shared) {
        *act = *shared;
    } else {
        act->qkv = memory_cut(cutter, 3 * row_bytes);
        cut_tail(model, cutter, act, rows, layer_scale);
    }
    cut_norms(model, cutter, act, rows);
}

/* The last block's: little but keys and values has a row for each token. */
static void cut_last_block(struct model *model, struct memory_cutter *cutter, struct block_activations *act,
                           const struct block_activations *shared, bool layer_scale)
{
    size_t cls_bytes = model->batch * model->dim * dtype_bytes(model->dtype), row_bytes = model->tokens * cls_bytes;
    act->key_value = shared ? shared->qkv : memory_cut(cutter, 2 * row_bytes);
    act->cls_normed1 = memory_cut(cutter, cls_bytes);
    act->query = memory_cut(cutter, cls_bytes);
    cut_tail(model, cutter, act, model->batch, layer_scale);
    cut_norms(model, cutter, act, model->batch);
}

static void cut_activations(struct model *model, struct memory_cutter *cutter, const struct config *config)
{
    size_t element = dtype_bytes(model->dtype), rows = model->batch * model->tokens;
    size_t row_bytes = rows * model->dim * element;
    bool layer_scale = config->model.layer_scale > 0;
    bool share = !model->training || model->recompute;

    model->patch_pixels = memory_cut(cutter, model->batch * model->patches * model->patch_dim * element);
    model->projected = memory_cut(cutter, row_bytes);
    model->embedded = memory_cut(cutter, row_bytes);
    model->block_normed = memory_cut(cutter, row_bytes);
    /* In the forward pass no gradient needs its memory yet, nor where a block is recomputed up to `hidden`. */
    if (model->training)
        model->activated =
            model->recompute && layer_scale ? memory_cut(cutter, rows * model->hidden * element) : model->wide_gradient;
    for (size_t block = 0; block < model->depth; block++) {
        const struct block_activations *shared = share && block > 0 ? &model->blocks[0] : NULL;
        (block + 1 < model->depth ? cut_block : cut_last_block)(model, cutter, &model->blocks[block], shared,
                                                                layer_scale);
    }
    model->normed = memory_cut(cutter, model->batch * model->dim * element);
    model->mean = memory_cut(cutter, model->batch * sizeof(float));
    model->rstd = memory_cut(cutter, model->batch * sizeof(float));
    model->logits = memory_cut(cutter, model->batch * model->classes * element);
    model->loss = memory_cut(cutter, model->batch * sizeof(float));
    model->label_rank = memory_cut(cutter, model->batch * sizeof(int32_t));
    model->statistics = memory_cut(cutter, model->depth * model->heads * ATTENTION_STATISTICS * sizeof(double));
}

static void cut_activation_gradients(struct model *model, struct memory_cutter *cutter, const struct config *config)
{
    size_t element = dtype_bytes(model->dtype), rows = model->batch * model->tokens;
    size_t row_bytes = rows * model->dim * element;
    size_t wide = model->hidden > 3 * model->dim ? model->hidden : 3 * model->dim;
    if (!model->training)
        return;
    model->logits_gradient = memory_cut(cutter, model->batch * model->classes * element);
    model->residual_gradient = memory_cut(cutter, row_bytes);
    model->normed_gradient = memory_cut(cutter, row_bytes);
    model->attended_gradient = memory_cut(cutter, row_bytes);
    if (config->model.layer_scale > 0 || config->model.drop_path > 0)
        model->branch_gradient = memory_cut(cutter, row_bytes);
    model->wide_gradient = memory_cut(cutter, rows * wide * element);
    model->cls_residual_gradient = memory_cut(cutter, model->batch * model->dim * element);
    model->cls_normed1_gradient = memory_cut(cutter, model->batch * model->dim * element);
    model->query_gradient = memory_cut(cutter, model->batch * model->dim * element);
}

/* Lays all views out over `bases` (NULL: only counts) and returns the bytes of each allocation. */
static void cut_all(struct model *model, const struct config *config, void *const bases[4], size_t bytes[4])
{
    struct memory_cutter cutters[4];
    for (size_t i = 0; i < 4; i++)
        cutters[i] = (struct memory_cutter){bases ? bases[i] : NULL, 0};
    cut_parameters(model, &cutters[0]);
    optimiser_state_cut(model, &cutters[1], config->optim.kind);
    cut_activation_gradients(model, &cutters[3], config);
    cut_activations(model, &cutters[2], config);
    for (size_t i = 0; i < 4; i++)
        bytes[i] = cutters[i].used;
}

static bool prepare(struct model *model, const struct model_options *options, struct error *error)
{
    set_sizes(model, options);
    model->blocks = calloc(model->depth, sizeof *model->blocks);
    if (!model->blocks)
        return error_runtime(error, "out of memory for the model's tables");
    return parameters_plan(&model->parameters, options->config, options->channels, error);
}

static struct context_options context_options(const struct model *model, const struct model_options *options)
{
    return (struct context_options){
        .dtype = model->dtype,
        .device = options->device,
        .threads = options->threads,
        .workload = {model->batch, model->patches, model->patch_dim, model->dim, model->hidden, model->heads,
                     model->classes, model->kind, model->training && optimiser_is_muon(options->config->optim.kind)},
    };
}

static void free_tables(struct model *model)
{
    parameters_free(&model->parameters);
    free(model->blocks);
    model->blocks = NULL;
}

/* Auto: where memory is short a GPU makes inputs again. A CPU always does: it is faster at that than its memory. */
static void keep_inputs_where_they_fit(struct model *model, const struct model_options *options, size_t available)
{
    size_t least[4], all[4];
    if (!model->training || model->recompute || model->kernels->on_host ||
        options->config->train.keep_inputs != SWITCH_AUTO)
        return;
    cut_all(model, options->config, NULL, least);
    model->keeps_inputs = true;
    cut_all(model, options->config, NULL, all);
    model->kept_bytes = all[2] - least[2];
    model->keeps_inputs = memory_plan_total(options->memory->plan) + model->kept_bytes <= available;
    if (!model->keeps_inputs)
        model->kept_bytes = 0;
}

bool model_plan(struct memory_plan *plan, const struct model_options *options, struct error *error)
{
    struct model model = {0};
    size_t bytes[4];
    bool ok = prepare(&model, options, error);
    if (ok) {
        cut_all(&model, options->config, NULL, bytes);
        for (size_t i = 0; i < 4; i++)
            memory_plan_add(plan, allocation_names[i], bytes[i]);
        struct context_options context = context_options(&model, options);
        memory_plan_add(plan, "workspace", options->kernels->workspace_bytes(&context));
    }
    free_tables(&model);
    return ok;
}

static bool allocate(struct model *model, const struct config *config, struct error *error)
{
    size_t bytes[4];
    cut_all(model, config, NULL, bytes);
    for (size_t i = 0; i < 4; i++)
        if (bytes[i] &&
            !model->kernels->allocate(model->context, &model->allocations[i], bytes[i], allocation_names[i], error))
            return false;
    cut_all(model, config, model->allocations, bytes);
    return true;
}

/* The context's workspace is already taken by now, and part of the plan. */
static bool check_memory(struct model *model, const struct model_options *options,
                         const struct context_options *context, struct error *error)
{
    size_t available;
    char where[64], holders[384];
    if (!options->memory)
        return true;
    if (!model->kernels->memory_available(model->context, &available, error))
        return false;
    available = available / options->ranks_on_device + model->kernels->workspace_bytes(context);
    snprintf(where, sizeof where, "the %s%s", model->kernels->on_host ? "host" : "GPU",
             options->ranks_on_device > 1 ? " (this rank's share)" : "");
    keep_inputs_where_they_fit(model, options, available);
    if (memory_plan_check(options->memory, available, where, error))
        return true;
    model->kernels->memory_holders(model->context, holders, sizeof holders);
    return *holders ? error_append(error, "; %s", holders) : false;
}

bool model_open(struct model **out, const struct model_options *options, struct error *error)
{
    *out = NULL;
    struct model *model = calloc(1, sizeof *model);
    if (!model)
        return error_runtime(error, "out of memory for the model");
    if (!prepare(model, options, error)) {
        model_close(model);
        return false;
    }
    struct context_options context = context_options(model, options);
    if (!model->kernels->open(&model->context, &context, error) || !check_memory(model, options, &context, error) ||
        !allocate(model, options->config, error) ||
        !replays_open(&model->replays, options->config->train.graph, error) ||
        (model->training && !optimiser_state_upload(model, error))) {
        model_close(model);
        return false;
    }
    *out = model;
    return true;
}

void model_close(struct model *model)
{
    if (!model)
        return;
    replays_close(model->replays, model);
    for (size_t i = 0; i < 4; i++)
        if (model->allocations[i])
            model->kernels->release(model->context, model->allocations[i]);
    if (model->context)
        model->kernels->close(model->context);
    free_tables(model);
    free(model);
}

bool model_set_normalisation(struct model *model, const float *mean, const float *std, struct error *error)
{
    float scale[4], shift[4];
    for (size_t c = 0; c < model->channels; c++) {
        scale[c] = 1.0f / (255.0f * std[c]);
        shift[c] = -mean[c] / std[c];
    }
    size_t bytes = model->channels * sizeof(float);
    return model->kernels->upload(model->context, model->pixel_scale, scale, bytes, error) &&
           model->kernels->upload(model->context, model->pixel_shift, shift, bytes, error) &&
           model->kernels->synchronise(model->context, error);
}

bool model_set_parameters(struct model *model, const float *master, struct error *error)
{
    size_t total = model->parameters.total;
    return model->kernels->upload(model->context, model->master, master, total * sizeof(float), error) &&
           model->kernels->round_parameters(model->context, model->working, model->master, total, error) &&
           model->kernels->synchronise(model->context, error);
}

/* Weight decay applies to exactly the weights of linear layers, the patches' among them. */
bool model_zero_gradient(struct model *model, struct error *error)
{
    model->first_backward = true;
    return model->kernels->zero_groups(model->context, model->gradient, model->decay, model->parameters.trained, error);
}
