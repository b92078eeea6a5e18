/* The configuration of a run as a struct; load.h makes it of YAML text, checked against one schema table
 * (schema.c), from which docs/configuration.md is checked too. Keys, defaults and ranges are there; the names
 * here are the keys. */
#ifndef QUEST_CONFIG_CONFIG_H
#define QUEST_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/products.h"
#include "src/base/error.h"

enum schedule { SCHEDULE_COSINE, SCHEDULE_CONSTANT, SCHEDULE_TIMM_UPDATES, SCHEDULE_TIMM_EPOCHS, SCHEDULE_DEIT };
enum drop_path_rule { DROP_PATH_LINEAR, DROP_PATH_CONSTANT };
enum loss { LOSS_CROSS_ENTROPY, LOSS_BCE };
enum optimiser { OPTIMISER_ADAMW, OPTIMISER_LAMB, OPTIMISER_SGD, OPTIMISER_MUON, OPTIMISER_NMUON };
enum config_interpolation { CONFIG_INTERPOLATION_FAST, CONFIG_INTERPOLATION_BILINEAR, CONFIG_INTERPOLATION_BICUBIC };
enum config_mix_per { CONFIG_MIX_PER_BATCH, CONFIG_MIX_PER_IMAGE };
enum config_cutmix_rule { CONFIG_CUTMIX_RULE_TIMM, CONFIG_CUTMIX_RULE_DEIT };
enum switch_mode { SWITCH_AUTO, SWITCH_ON, SWITCH_OFF };
/* What follows an event of the diagnosis; of several at a step the last of these is taken. */
enum diagnosis_action {
    DIAGNOSIS_ACTION_LOG,
    DIAGNOSIS_ACTION_CHECKPOINT,
    DIAGNOSIS_ACTION_REWIND,
    DIAGNOSIS_ACTION_STOP
};

/* A published training that gives the keys which the configuration does not (recipe.c). */
enum recipe_name { RECIPE_NONE, RECIPE_DEIT, RECIPE_DEIT_FINETUNE, RECIPE_DEIT3, RECIPE_DEIT3_FINETUNE };

struct config {
    enum recipe_name recipe;
    struct {
        char preset[32];
        int64_t image_size, patch_size, dim, depth, heads, classes; /* classes 0: taken from the dataset */
        double mlp_ratio, layer_scale, drop_path;
        enum drop_path_rule drop_path_rule;
        char freeze[32]; /* freeze.h */
    } model;
    struct {
        enum attention_kind kind;
    } attention;
    struct {
        char train[1024], val[1024]; /* "" = none */
        char stage[1024];            /* "" = read where they are */
        bool shuffle;
        int64_t shuffle_window, workers, prefetch;
        enum config_interpolation interpolation;
        bool reduced_decode;
        double crop_pct;
        struct {
            bool flip;
            int64_t crop_padding;
            bool random_resized_crop;
            double crop_scale_min, crop_scale_max;
            bool simple_crop, three_augment;
            double color_jitter;
            char rand_augment[256]; /* "" = off */
            int64_t repeats;
            double erase_probability, erase_area_min, erase_area_max;
        } augment;
    } data;
    struct {
        double mixup, cutmix; /* alphas; 0 = off */
        double probability, switch_probability;
        enum config_mix_per per;
        int64_t group; /* images; 0 only where nothing is mixed */
        enum config_cutmix_rule cutmix_rule;
    } mix;
    struct {
        int64_t epochs, steps;                      /* exactly one is given; the other is 0 */
        int64_t batch_size, accumulate, eval_every; /* eval_every in steps; 0 = at every epoch's end; the end always */
        enum dtype precision;
        int64_t seed;
        double label_smoothing;
        enum loss loss;
        double bce_threshold; /* < 0: none */
        bool bce_sum;
        bool recompute;
        enum products_mode products;
        enum switch_mode keep_inputs;
        enum switch_mode graph;
    } train;
    struct {
        enum optimiser kind;
        double lr, min_lr, weight_decay, beta1, beta2, eps, clip_grad_norm, momentum, layer_decay;
        bool nesterov, trust_clip;
        int64_t warmup_steps;
        enum schedule schedule;
        double warmup_epochs, warmup_lr, cooldown_epochs;
        bool warmup_prefix;
        int64_t lr_base_batch; /* 0 = lr as it stands */
    } optim;
    struct {
        double decay; /* 0 = no average */
        bool warmup;
    } ema;
    struct {
        int64_t every; /* steps between metrics.jsonl lines */
        bool tensorboard;
        char prometheus[1024]; /* "" = none */
        double segment_mib;    /* 0 = off */
    } log;
    struct {
        int64_t every; /* steps between norms.jsonl records; 0 = never */
    } norms;
    struct {
        bool enabled;
        enum diagnosis_action on_warning, on_critical;
        double horizon_steps, logit_critical, entropy_critical, key_outlier, spike_z, skip_z, rewind_lr_scale;
        int64_t rewind_max;
    } diagnosis;
    struct {
        int64_t every, keep; /* every in steps; 0 = at every epoch's end; the end always */
    } checkpoint;
    struct {
        enum dtype dtype; /* of the gradients while they are reduced */
        double bucket_mib, timeout_s;
    } comm;
};

/* The resolved configuration as YAML with every key, readable by config_load. Caller frees. */
char *config_format(const struct config *config);
/* A list of all keys: range, default, meaning; Markdown. Caller frees. What docs/configuration.md holds. */
char *config_reference(void);

/* "deit as published", or where the configuration differs and what the recipe has: "deit, but train.batch_size 256
 * (1024),
 * ..."; a key that the recipe has for other presets alone is without. Caller frees; NULL: no recipe, or out of memory.
 */
char *config_recipe_describe(const struct config *config);

/* Width of the MLP's hidden layer: mlp_ratio * dim, rounded down as timm's int(). */
static inline size_t config_hidden_dim(const struct config *config)
{
    return (size_t)((double)config->model.dim * config->model.mlp_ratio);
}

/* The learning rate after the warm-up. */
static inline double config_peak_lr(const struct config *config)
{
    return config->optim.lr_base_batch
               ? config->optim.lr * (double)config->train.batch_size / (double)config->optim.lr_base_batch
               : config->optim.lr;
}

/* Names as in the YAML ("quest", "bf16", ...). */
const char *dtype_name(enum dtype dtype);
const char *optimiser_name(enum optimiser optimiser);
/* Muon for matrices, AdamW for the rest; or Nesterov's forms of both. */
static inline bool optimiser_is_muon(enum optimiser optimiser)
{
    return optimiser == OPTIMISER_MUON || optimiser == OPTIMISER_NMUON;
}

/* Fills dim, depth, heads, patch_size of a preset ("vit_tiny", ...) that are still 0. false: no such preset. */
bool config_preset(struct config *config, const char *preset);

#endif
