/* Places each tensor in the flat buffers, in the order in which gradients are finished, and initialises it. */
#include "src/model/parameters.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/attention_kinds.h"
#include "src/base/random.h"
#include "src/config/freeze.h"

struct layout {
    struct parameters *parameters;
    double layer_decay; /* 1: none */
};

/* d^(depth + 1 - layer) as BEiT's fine-tuning has it: embeddings are layer 0, block b is b + 1 and has the final norm
 * with it where it is the last, the head is layer depth + 1. */
static double lr_scale_of(const char *name, double layer_decay, size_t depth)
{
    size_t block, layer = 0;
    if (sscanf(name, "blocks.%zu.", &block) == 1)
        layer = block + 1;
    else if (strncmp(name, "norm.", 5) == 0)
        layer = depth;
    else if (strncmp(name, "head.", 5) == 0)
        layer = depth + 1;
    return pow(layer_decay, (double)(depth + 1 - layer));
}

/* Appends one tensor; shape ends at the first 0. Returns its offset. */
static size_t place(struct layout *layout, const char *name, enum initialisation initialisation, double value,
                    const size_t shape[4])
{
    struct parameters *all = layout->parameters;
    struct parameter *parameter = &all->list[all->count++];
    snprintf(parameter->name, sizeof parameter->name, "%s", name);
    parameter->count = 1;
    for (parameter->rank = 0; parameter->rank < 4 && shape[parameter->rank]; parameter->rank++) {
        parameter->shape[parameter->rank] = shape[parameter->rank];
        parameter->count *= shape[parameter->rank];
    }
    parameter->offset = all->total;
    parameter->initialisation = initialisation;
    parameter->value = value;
    parameter->decay = parameter->rank > 1 && strcmp(name, "cls_token") != 0 && strcmp(name, "pos_embed") != 0;
    parameter->lr_scale = lr_scale_of(name, layout->layer_decay, all->depth);
    all->total += (parameter->count + PARAMETER_ALIGNMENT - 1) / PARAMETER_ALIGNMENT * PARAMETER_ALIGNMENT;
    all->learned += parameter->count;
    return parameter->offset;
}

static size_t place_in_block(struct layout *layout, size_t block, const char *name, enum initialisation initialisation,
                             double value, size_t first, size_t second)
{
    char full_name[64];
    snprintf(full_name, sizeof full_name, "blocks.%zu.%s", block, name);
    return place(layout, full_name, initialisation, value, (size_t[4]){first, second});
}

/* The learned extras of the attention kind, all 1-D. */
static void place_attention_extras(struct layout *layout, size_t block, const struct config *config)
{
    enum attention_kind kind = config->attention.kind;
    size_t heads = (size_t)config->model.heads, head_dim = (size_t)config->model.dim / heads;
    for (enum attention_extra extra = 0; extra < ATTENTION_EXTRAS; extra++) {
        char name[48];
        if (!attention_learns(kind, extra))
            continue;
        snprintf(name, sizeof name, "attn.%s", attention_kinds[kind].extra[extra].name);
        layout->parameters->blocks[block].attention_extra[extra] =
            place_in_block(layout, block, name, INITIALISE_CONSTANT, attention_extra_start(kind, extra, head_dim),
                           attention_extra_count(extra, heads, head_dim), 0);
    }
}

/* ls2.gamma of block b is finished together with the norm after it, so it goes before that norm's block. */
static void place_ls2(struct layout *layout, size_t block, const struct config *config)
{
    if (config->model.layer_scale > 0)
        layout->parameters->blocks[block].ls2_gamma = place_in_block(
            layout, block, "ls2.gamma", INITIALISE_CONSTANT, config->model.layer_scale, (size_t)config->model.dim, 0);
}

static void place_block(struct layout *layout, size_t block, const struct config *config)
{
    struct block_offsets *offsets = &layout->parameters->blocks[block];
    size_t dim = (size_t)config->model.dim, hidden = config_hidden_dim(config);

    offsets->fc2_weight = place_in_block(layout, block, "mlp.fc2.weight", INITIALISE_NORMAL, 0, dim, hidden);
    offsets->fc2_bias = place_in_block(layout, block, "mlp.fc2.bias", INITIALISE_CONSTANT, 0, dim, 0);
    offsets->fc1_bias = place_in_block(layout, block, "mlp.fc1.bias", INITIALISE_CONSTANT, 0, hidden, 0);
    offsets->fc1_weight = place_in_block(layout, block, "mlp.fc1.weight", INITIALISE_NORMAL, 0, hidden, dim);
    offsets->norm2_weight = place_in_block(layout, block, "norm2.weight", INITIALISE_CONSTANT, 1, dim, 0);
    offsets->norm2_bias = place_in_block(layout, block, "norm2.bias", INITIALISE_CONSTANT, 0, dim, 0);
    if (config->model.layer_scale > 0)
        offsets->ls1_gamma =
            place_in_block(layout, block, "ls1.gamma", INITIALISE_CONSTANT, config->model.layer_scale, dim, 0);
    offsets->proj_weight = place_in_block(layout, block, "attn.proj.weight", INITIALISE_NORMAL, 0, dim, dim);
    offsets->proj_bias = place_in_block(layout, block, "attn.proj.bias", INITIALISE_CONSTANT, 0, dim, 0);
    place_attention_extras(layout, block, config);
    offsets->qkv_weight = place_in_block(layout, block, "attn.qkv.weight", INITIALISE_NORMAL, 0, 3 * dim, dim);
    offsets->qkv_bias = place_in_block(layout, block, "attn.qkv.bias", INITIALISE_CONSTANT, 0, 3 * dim, 0);
    offsets->norm1_weight = place_in_block(layout, block, "norm1.weight", INITIALISE_CONSTANT, 1, dim, 0);
    offsets->norm1_bias = place_in_block(layout, block, "norm1.bias", INITIALISE_CONSTANT, 0, dim, 0);
    if (block > 0)
        place_ls2(layout, block - 1, config);
}

/* What is frozen is the end of the order. ls2.gamma of the last frozen block stands before its other tensors. */
static size_t trained_numbers(const struct parameters *parameters, const struct config_freeze *freeze)
{
    if (!freeze->embedding)
        return parameters->total;
    if (freeze->all_but_head)
        return parameters->norm_weight;
    if (freeze->blocks == 0)
        return parameters->cls_token;
    const struct block_offsets *last = &parameters->blocks[freeze->blocks - 1];
    return last->ls2_gamma != NO_OFFSET ? last->ls2_gamma : last->fc2_weight;
}

bool parameters_plan(struct parameters *parameters, const struct config *config, size_t channels, struct error *error)
{
    size_t dim = (size_t)config->model.dim, classes = (size_t)config->model.classes;
    size_t patch = (size_t)config->model.patch_size, grid = (size_t)config->model.image_size / patch;
    const size_t per_block = 14 + ATTENTION_EXTRAS, outside_blocks = 8;

    *parameters = (struct parameters){.depth = (size_t)config->model.depth};
    parameters->list = calloc(parameters->depth * per_block + outside_blocks, sizeof *parameters->list);
    parameters->blocks = malloc(parameters->depth * sizeof *parameters->blocks);
    if (!parameters->list || !parameters->blocks)
        return error_runtime(error, "out of memory for the parameter table");
    memset(parameters->blocks, 0xff, parameters->depth * sizeof *parameters->blocks); /* all NO_OFFSET */

    double layer_decay = config->optim.layer_decay; /* 0 in structs that no file has filled in */
    struct layout layout = {.parameters = parameters, .layer_decay = layer_decay > 0 ? layer_decay : 1};
    parameters->head_weight = place(&layout, "head.weight", INITIALISE_NORMAL, 0, (size_t[4]){classes, dim});
    parameters->head_bias = place(&layout, "head.bias", INITIALISE_CONSTANT, 0, (size_t[4]){classes});
    parameters->norm_weight = place(&layout, "norm.weight", INITIALISE_CONSTANT, 1, (size_t[4]){dim});
    parameters->norm_bias = place(&layout, "norm.bias", INITIALISE_CONSTANT, 0, (size_t[4]){dim});
    place_ls2(&layout, parameters->depth - 1, config);
    for (size_t block = parameters->depth; block-- > 0;)
        place_block(&layout, block, config);
    parameters->cls_token = place(&layout, "cls_token", INITIALISE_CLS, 0, (size_t[4]){1, 1, dim});
    parameters->pos_embed = place(&layout, "pos_embed", INITIALISE_NORMAL, 0, (size_t[4]){1, grid * grid + 1, dim});
    parameters->patch_weight =
        place(&layout, "patch_embed.proj.weight", INITIALISE_CONVOLUTION, 0, (size_t[4]){dim, channels, patch, patch});
    parameters->list[parameters->count - 1].fan_in = channels * patch * patch;
    parameters->patch_bias = place(&layout, "patch_embed.proj.bias", INITIALISE_CONVOLUTION, 0, (size_t[4]){dim});
    parameters->list[parameters->count - 1].fan_in = channels * patch * patch;
    struct config_freeze freeze = config_freeze(config);
    parameters->trained = trained_numbers(parameters, &freeze);
    parameters->frozen_blocks = freeze.blocks;
    return true;
}

void parameters_free(struct parameters *parameters)
{
    free(parameters->list);
    free(parameters->blocks);
    *parameters = (struct parameters){0};
}

size_t parameters_trained(const struct parameters *parameters)
{
    size_t count = 0;
    for (size_t i = 0; i < parameters->count && parameters->list[i].offset < parameters->trained; i++)
        count += parameters->list[i].count;
    return count;
}

/* Two normal numbers from two uniform ones (Box and Muller 1958). */
static void normal_pair(double pair[2], uint64_t seed, uint64_t stream, uint64_t index)
{
    double u[2];
    random_uniform_pair(u, seed, stream, index);
    double radius = sqrt(-2.0 * log(u[0])), angle = 2.0 * 3.14159265358979323846 * u[1];
    pair[0] = radius * cos(angle);
    pair[1] = radius * sin(angle);
}

void parameter_initialise(const struct parameter *parameter, float *values, uint64_t seed)
{
    uint64_t stream = random_stream(parameter->name);
    double deviation = parameter->initialisation == INITIALISE_CLS ? 1e-6 : 0.02;
    double bound = parameter->fan_in ? 1.0 / sqrt((double)parameter->fan_in) : 0.0;
    for (size_t i = 0; i < parameter->count; i += 2) {
        double pair[2] = {parameter->value, parameter->value};
        if (parameter->initialisation == INITIALISE_CONVOLUTION) {
            random_uniform_pair(pair, seed, stream, i / 2);
            pair[0] = bound * (2.0 * pair[0] - 1.0);
            pair[1] = bound * (2.0 * pair[1] - 1.0);
        } else if (parameter->initialisation != INITIALISE_CONSTANT) {
            normal_pair(pair, seed, stream, i / 2);
            pair[0] *= deviation;
            pair[1] *= deviation;
        }
        values[i] = (float)pair[0];
        if (i + 1 < parameter->count)
            values[i + 1] = (float)pair[1];
    }
}

void parameters_initialise(const struct parameters *parameters, float *master, uint64_t seed)
{
    memset(master, 0, parameters->total * sizeof *master);
    for (size_t i = 0; i < parameters->count; i++)
        parameter_initialise(&parameters->list[i], master + parameters->list[i].offset, seed);
}

static size_t groups_of(const struct parameter *parameter)
{
    return (parameter->count + PARAMETER_ALIGNMENT - 1) / PARAMETER_ALIGNMENT;
}

void parameters_decay_mask(const struct parameters *parameters, uint8_t *decay)
{
    memset(decay, 0, parameters->total / PARAMETER_ALIGNMENT);
    for (size_t i = 0; i < parameters->count; i++) {
        const struct parameter *parameter = &parameters->list[i];
        if (parameter->decay)
            memset(decay + parameter->offset / PARAMETER_ALIGNMENT, 1, groups_of(parameter));
    }
}

bool parameters_are_scaled(const struct parameters *parameters)
{
    for (size_t i = 0; i < parameters->count; i++)
        if (parameters->list[i].lr_scale != 1)
            return true;
    return false;
}

void parameters_lr_scales(const struct parameters *parameters, float *lr_scale)
{
    for (size_t i = 0; i < parameters->count; i++) {
        const struct parameter *parameter = &parameters->list[i];
        for (size_t group = 0; group < groups_of(parameter); group++)
            lr_scale[parameter->offset / PARAMETER_ALIGNMENT + group] = (float)parameter->lr_scale;
    }
}

void parameters_tensor_groups(const struct parameters *parameters, uint32_t *tensor_first, uint16_t *tensor_of)
{
    for (size_t i = 0; i < parameters->count; i++) {
        const struct parameter *parameter = &parameters->list[i];
        size_t first = parameter->offset / PARAMETER_ALIGNMENT;
        tensor_first[i] = (uint32_t)first;
        for (size_t group = 0; group < groups_of(parameter); group++)
            tensor_of[first + group] = (uint16_t)i; /* 1024 blocks of 21 tensors are 21,512 with the rest */
    }
    tensor_first[parameters->count] = (uint32_t)(parameters->total / PARAMETER_ALIGNMENT);
}
