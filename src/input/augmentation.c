/* Keys to the loaders' options (augmentation.h). */
#include "src/input/augmentation.h"

struct augment input_resizing(const struct config *config)
{
    static const enum interpolation interpolations[] = {[CONFIG_INTERPOLATION_FAST] = INTERPOLATION_FAST,
                                                        [CONFIG_INTERPOLATION_BILINEAR] = INTERPOLATION_BILINEAR,
                                                        [CONFIG_INTERPOLATION_BICUBIC] = INTERPOLATION_BICUBIC};
    return (struct augment){.interpolation = interpolations[config->data.interpolation],
                            .crop_share = config->data.crop_pct};
}

static bool what_training_draws(struct augment *augment, const struct config *config, struct error *error)
{
    *augment = input_resizing(config);
    augment->reduced_decode = config->data.reduced_decode;
    augment->flip = config->data.augment.flip;
    augment->crop_padding = (size_t)config->data.augment.crop_padding;
    augment->random_resized_crop = config->data.augment.random_resized_crop;
    augment->crop_scale_min = config->data.augment.crop_scale_min;
    augment->crop_scale_max = config->data.augment.crop_scale_max;
    augment->simple_crop = config->data.augment.simple_crop;
    augment->three_augment = config->data.augment.three_augment;
    augment->colour_jitter = config->data.augment.color_jitter;
    return rand_augment_parse(&augment->rand_augment, config->data.augment.rand_augment, error) ||
           error_prefix(error, "data.augment.rand_augment");
}

struct loader_options input_reading(const struct config *config, const struct dataset *dataset)
{
    return (struct loader_options){
        .dataset = dataset,
        .image_size = (size_t)config->model.image_size,
        .patch_size = (size_t)config->model.patch_size,
        .seed = (uint64_t)config->train.seed,
        .workers = (size_t)config->data.workers,
        .prefetch = (size_t)config->data.prefetch,
    };
}

bool input_training(struct loader_options *loader, const struct config *config, const struct dataset *dataset,
                    struct error *error)
{
    *loader = input_reading(config, dataset);
    loader->shuffle = config->data.shuffle;
    loader->shuffle_window = (uint64_t)config->data.shuffle_window;
    loader->repeats = (uint64_t)config->data.augment.repeats;
    return what_training_draws(&loader->augment, config, error);
}

struct draw_options input_draws(const struct config *config)
{
    bool mixed = config->mix.mixup > 0 || config->mix.cutmix > 0;
    return (struct draw_options){
        .drop_path = {config->model.drop_path_rule, config->model.drop_path, (size_t)config->model.depth},
        .erase = {config->data.augment.erase_probability, config->data.augment.erase_area_min,
                  config->data.augment.erase_area_max},
        .mix = {.mixup_alpha = config->mix.mixup,
                .cutmix_alpha = config->mix.cutmix,
                .probability = config->mix.probability,
                .switch_probability = config->mix.switch_probability,
                .rule = config->mix.cutmix_rule == CONFIG_CUTMIX_RULE_DEIT ? CUTMIX_RULE_DEIT : CUTMIX_RULE_CURRENT},
        .mix_group = mixed ? (size_t)config->mix.group : 0,
        .mix_per_image = config->mix.per == CONFIG_MIX_PER_IMAGE,
    };
}
