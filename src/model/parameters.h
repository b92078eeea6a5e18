/* The parameters of a Vision Transformer: timm's names and shapes, and where each lies in the flat buffers.
 *
 * Master weights, working copies, gradients and both AdamW moments are five buffers of `total` numbers with the same
 * offsets. The order is the one in which the backward pass finishes the gradients (head first, patch embedding last),
 * so what is finished is always a prefix, and a gradient bucket is a contiguous span. Every tensor starts at a multiple
 * of 64 numbers; the padding stays zero. */
#ifndef QUEST_MODEL_PARAMETERS_H
#define QUEST_MODEL_PARAMETERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"
#include "src/config/config.h"

#define PARAMETER_ALIGNMENT 64 /* numbers; one decay flag stands for so many */

enum initialisation {
    INITIALISE_NORMAL,      /* N(0, 0.02): timm's trunc_normal_(std=.02), whose bounds +-2 lie at 100 sigma */
    INITIALISE_CLS,         /* N(0, 1e-6) */
    INITIALISE_CONVOLUTION, /* U(-1/sqrt(fan in), 1/sqrt(fan in)): PyTorch's default, which timm keeps for the patches
                             */
    INITIALISE_CONSTANT,    /* `value` */
};

struct parameter {
    char name[64]; /* as in timm: "blocks.3.attn.qkv.weight" */
    size_t rank, shape[4];
    size_t offset, count;
    bool decay;      /* weight decay applies: not on 1-D parameters, cls_token, pos_embed */
    double lr_scale; /* what the learning rate is multiplied by: optim.layer_decay; 0 would freeze the tensor */
    enum initialisation initialisation;
    double value;  /* of INITIALISE_CONSTANT */
    size_t fan_in; /* of INITIALISE_CONVOLUTION */
};

/* Offsets of one block's tensors; extras that the attention kind lacks, and gammas without LayerScale, are NO_OFFSET.
 */
#define NO_OFFSET ((size_t)-1)
struct block_offsets {
    size_t norm1_weight, norm1_bias, qkv_weight, qkv_bias, proj_weight, proj_bias, ls1_gamma;
    size_t norm2_weight, norm2_bias, fc1_weight, fc1_bias, fc2_weight, fc2_bias, ls2_gamma;
    size_t attention_extra[ATTENTION_EXTRAS];
};

struct parameters {
    struct parameter *list;
    size_t count;
    size_t total;   /* numbers in a flat buffer, padding included */
    size_t learned; /* without the padding */
    size_t depth;
    /* model.freeze: the numbers before `trained` have gradients and are updated, those behind it keep their bits. The
     * blocks before `frozen_blocks` lie behind it; `depth` of them: all. */
    size_t trained, frozen_blocks;
    struct block_offsets *blocks;
    size_t patch_weight, patch_bias, cls_token, pos_embed, norm_weight, norm_bias, head_weight, head_bias;
};

/* Lays the parameters of `config`'s model out (classes and channels must be known). */
bool parameters_plan(struct parameters *parameters, const struct config *config, size_t channels, struct error *error);
void parameters_free(struct parameters *parameters);
/* How many learned numbers are not frozen. */
size_t parameters_trained(const struct parameters *parameters);
/* Fills master [total] (host) as timm initialises. Each number depends on seed, tensor name and index only. */
void parameters_initialise(const struct parameters *parameters, float *master, uint64_t seed);
/* The same numbers for one of them: values [parameter->count]. */
void parameter_initialise(const struct parameter *parameter, float *values, uint64_t seed);
/* decay [total / 64], as adamw_update wants it. */
void parameters_decay_mask(const struct parameters *parameters, uint8_t *decay);
/* Whether some tensor's lr_scale is not 1; only then have optimisers to be told: */
bool parameters_are_scaled(const struct parameters *parameters);
/* lr_scale [total / 64], as adamw_update wants it. */
void parameters_lr_scales(const struct parameters *parameters, float *lr_scale);
/* Which groups of 64 numbers are whose: tensor_first [count + 1], tensor_of [total / 64], as lamb_moments wants them.
 */
void parameters_tensor_groups(const struct parameters *parameters, uint32_t *tensor_first, uint16_t *tensor_of);

#endif
