/* Relations between keys, and the presets. */
#include "src/config/freeze.h"
#include "src/config/schema.h"

#include <string.h>

struct preset {
    const char *name;
    int64_t patch_size, dim, depth, heads;
};

/* Touvron et al. 2021 (DeiT), table 1; huge as Dosovitskiy et al. 2021, table 1. */
static const struct preset presets[] = {
    {"vit_tiny", 16, 192, 12, 3},    {"vit_small", 16, 384, 12, 6},  {"vit_base", 16, 768, 12, 12},
    {"vit_large", 16, 1024, 24, 16}, {"vit_huge", 14, 1280, 32, 16},
};

bool config_preset(struct config *config, const char *preset)
{
    for (size_t i = 0; i < sizeof presets / sizeof presets[0]; i++) {
        if (strcmp(preset, presets[i].name) != 0)
            continue;
        int64_t *fields[] = {&config->model.patch_size, &config->model.dim, &config->model.depth, &config->model.heads};
        const int64_t values[] = {presets[i].patch_size, presets[i].dim, presets[i].depth, presets[i].heads};
        for (size_t field = 0; field < sizeof values / sizeof values[0]; field++)
            if (*fields[field] == 0)
                *fields[field] = values[field];
        return true;
    }
    return false;
}

static bool fill_in_preset(const struct config_reading *reading)
{
    struct config *config = reading->config;
    if (config->model.preset[0] && !config_preset(config, config->model.preset))
        return config_refuse(reading, "model.preset",
                             "'%s' is not known (vit_tiny, vit_small, vit_base, vit_large or vit_huge is expected)",
                             config->model.preset);
    if (config->model.patch_size == 0)
        config->model.patch_size = 16;
    const char *missing = config->model.dim == 0     ? "model.dim"
                          : config->model.depth == 0 ? "model.depth"
                          : config->model.heads == 0 ? "model.heads"
                                                     : NULL;
    return !missing || config_refuse(reading, missing, "is missing; give it or a model.preset, such as vit_tiny");
}

bool config_check_model(const struct config_reading *reading)
{
    if (!fill_in_preset(reading))
        return false;
    const struct config *config = reading->config;
    long long dim = config->model.dim, heads = config->model.heads;
    long long image = config->model.image_size, patch = config->model.patch_size;
    if (dim % heads != 0)
        return config_refuse(reading, "model.heads", "%lld heads do not divide model.dim %lld", heads, dim);
    if (!attention_head_dim_fits((size_t)(dim / heads)))
        return config_refuse(reading, "model.heads",
                             "model.dim %lld over %lld heads gives a head dimension of %lld; it must be a multiple of "
                             "%d and at most %d",
                             dim, heads, dim / heads, ATTENTION_HEAD_DIM_STEP, ATTENTION_MOST_HEAD_DIM);
    if (image % patch != 0)
        return config_refuse(reading, "model.image_size", "%lld is not a multiple of model.patch_size %lld", image,
                             patch);
    if (config_hidden_dim(config) == 0)
        return config_refuse(reading, "model.mlp_ratio", "%g of model.dim %lld leaves no hidden unit",
                             config->model.mlp_ratio, dim);
    struct config_freeze freeze = config_freeze(config);
    if (freeze.unreadable)
        return config_refuse(reading, "model.freeze",
                             "'%s' %s (all_but_head, or a whole number from 0 to model.depth %lld, is expected)",
                             config->model.freeze, freeze.unreadable, (long long)config->model.depth);
    return true;
}

/* Images that are mixed among themselves must all be on one rank, whatever the number of ranks, so that a group is a
 * run of the sequence of samples, not what a rank happens to have. */
static bool check_mixing(const struct config_reading *reading)
{
    struct config *config = reading->config;
    const long long images = config->train.batch_size / config->train.accumulate;
    if (config->mix.mixup == 0 && config->mix.cutmix == 0)
        return true;
    if (images % 2 != 0)
        return config_refuse(reading, config->mix.mixup > 0 ? "mix.mixup" : "mix.cutmix",
                             "mixes images in pairs, but a micro-step has %lld (train.batch_size / train.accumulate); "
                             "take an even number",
                             images);
    for (long long group = 16; config->mix.group == 0; group /= 2)
        config->mix.group = images % group == 0 ? group : 0;
    if (config->mix.group % 2 != 0 || images % config->mix.group != 0)
        return config_refuse(reading, "mix.group",
                             "%lld must be even and divide the %lld images of a micro-step (train.batch_size / "
                             "train.accumulate)",
                             (long long)config->mix.group, images);
    return true;
}

/* A key that this optimiser does not look at, but that somebody has changed. */
static bool check_optimiser(const struct config_reading *reading)
{
    const struct config *config = reading->config;
    const char *kind = optimiser_name(config->optim.kind);
    bool is_sgd = config->optim.kind == OPTIMISER_SGD;
    if (config->optim.trust_clip && config->optim.kind != OPTIMISER_LAMB)
        return config_refuse(reading, "optim.trust_clip", "is for optim.kind: lamb, and this is %s; leave it out",
                             kind);
    if (config->optim.momentum != 0.9 && !is_sgd && !optimiser_is_muon(config->optim.kind))
        return config_refuse(reading, "optim.momentum",
                             "is for optim.kind: sgd, muon and nmuon, and this is %s, which has optim.beta1", kind);
    if (!config->optim.nesterov && !is_sgd)
        return config_refuse(reading, "optim.nesterov", "is for optim.kind: sgd, and this is %s; leave it out", kind);
    return true;
}

bool config_check_run(const struct config_reading *reading)
{
    const struct config *config = reading->config;
    if (!config->data.train[0])
        return config_refuse(reading, "data.train", "is missing; name a dataset that quest-data made");
    if (config->data.augment.crop_scale_min > config->data.augment.crop_scale_max)
        return config_refuse(reading, "data.augment.crop_scale_min", "%g is more than crop_scale_max %g",
                             config->data.augment.crop_scale_min, config->data.augment.crop_scale_max);
    if (config->data.augment.simple_crop && config->data.augment.random_resized_crop)
        return config_refuse(reading, "data.augment.simple_crop", "%s",
                             "data.augment.random_resized_crop is on too; keep one of the two");
    if (config->data.augment.three_augment && config->data.augment.rand_augment[0])
        return config_refuse(reading, "data.augment.three_augment", "%s",
                             "data.augment.rand_augment is on too; keep one of the two");
    if (config->data.augment.erase_area_min > config->data.augment.erase_area_max)
        return config_refuse(reading, "data.augment.erase_area_min", "%g is more than erase_area_max %g",
                             config->data.augment.erase_area_min, config->data.augment.erase_area_max);
    long long epochs = config->train.epochs, steps = config->train.steps;
    if ((epochs == 0) == (steps == 0))
        return config_refuse(reading, epochs ? "train.steps" : "train.epochs",
                             epochs ? "train.epochs is given too; keep one of the two"
                                    : "is missing; give train.epochs or train.steps");
    if (config->train.batch_size % config->train.accumulate != 0)
        return config_refuse(reading, "train.batch_size", "%lld is not a multiple of train.accumulate %lld",
                             (long long)config->train.batch_size, (long long)config->train.accumulate);
    if (!check_mixing(reading))
        return false;
    if (steps && config->optim.warmup_steps >= steps)
        return config_refuse(reading, "optim.warmup_steps", "%lld is not less than train.steps %lld",
                             (long long)config->optim.warmup_steps, steps);
    if (config->diagnosis.skip_z > 0 && !config->diagnosis.enabled)
        return config_refuse(reading, "diagnosis.skip_z", "%g asks for diagnosis.enabled: true",
                             config->diagnosis.skip_z);
    return check_optimiser(reading) && config_check_recipe(reading);
}
