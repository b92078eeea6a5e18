/* The recipes and their sources. "main.py" is that of github.com/facebookresearch/deit, whose defaults are DeiT's
 * training (Touvron et al. 2021), README_deit.md and README_revenge.md (DeiT III, Touvron et al. 2022) its commands;
 * docs/recipes.md has the table of options, and says what published runs did otherwise. */
#include "src/config/recipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY(path, text) .key = (path), .value = (text)

/* A row reads as key, value; preset; the same in other words; source. */
static const struct recipe_row deit[] = {
    {KEY("model.image_size", "224")},        /* main.py --input-size */
    {KEY("model.drop_path", "0.1")},         /* --drop-path, all sizes; rising linearly (timm) */
    {KEY("model.drop_path_rule", "linear")}, /* timm VisionTransformer */
    {KEY("data.interpolation", "bicubic")},  /* --train-interpolation; datasets.py for evaluation */
    {KEY("data.crop_pct", "0.875")},         /* --eval-crop-ratio: 224 of 256 */
    {KEY("data.augment.flip", "true")},      /* timm create_transform, hflip 0.5 */
    {KEY("data.augment.random_resized_crop", "true"),
     .unless = "data.augment.simple_crop"}, /* the same, scale 0.08 to 1 */
    {KEY("data.augment.rand_augment", "rand-m9-mstd0.5-inc1"), .unless = "data.augment.three_augment"}, /* --aa */
    {KEY("data.augment.repeats", "3")},                    /* --repeated-aug, samplers.py */
    {KEY("data.augment.erase_probability", "0.25")},       /* --reprob, pixels of noise, once */
    {KEY("mix.mixup", "0.8")},                             /* --mixup */
    {KEY("mix.cutmix", "1.0")},                            /* --cutmix */
    {KEY("mix.probability", "1.0")},                       /* --mixup-prob */
    {KEY("mix.switch_probability", "0.5")},                /* --mixup-switch-prob */
    {KEY("mix.per", "batch")},                             /* --mixup-mode */
    {KEY("mix.cutmix_rule", "deit")},                      /* requirements.txt: timm 0.3.2 */
    {KEY("train.epochs", "300"), .unless = "train.steps"}, /* --epochs */
    {KEY("train.batch_size", "1024")},                     /* README_deit.md: 4 x 256 (Ti, S), 16 x 64 (B) */
    {KEY("train.loss", "cross_entropy")},                  /* SoftTargetCrossEntropy */
    {KEY("train.label_smoothing", "0.1")},                 /* --smoothing */
    {KEY("optim.kind", "adamw")},                          /* --opt */
    {KEY("optim.eps", "1.0e-8")},                          /* --opt-eps */
    {KEY("optim.beta1", "0.9")},                           /* --opt-betas None: PyTorch's */
    {KEY("optim.beta2", "0.999")},
    {KEY("optim.clip_grad_norm", "0.0")}, /* --clip-grad None */
    {KEY("optim.weight_decay", "0.05")},  /* --weight-decay */
    {KEY("optim.lr", "5.0e-4")},          /* --lr */
    {KEY("optim.lr_base_batch", "512")},  /* main.py: times batch / 512 */
    {KEY("optim.schedule", "deit")},      /* --sched cosine, stepped after each epoch with its own number */
    {KEY("optim.warmup_epochs", "5"), .unless = "optim.warmup_steps"}, /* --warmup-epochs */
    {KEY("optim.warmup_lr", "1.0e-6")},                                /* --warmup-lr, not scaled */
    {KEY("optim.min_lr", "1.0e-5")},                                   /* --min-lr */
    {KEY("ema.decay", "0.99996")}, /* --model-ema-decay; evaluations there are of the weights themselves */
};

/* What README_deit.md changes to go on at 384 pixels from DeiT-B at 224; all else as in deit. */
static const struct recipe_row deit_finetune[] = {
    {KEY("model.image_size", "384")},                     /* --input-size */
    {KEY("train.epochs", "30"), .unless = "train.steps"}, /* --epochs */
    {KEY("train.batch_size", "512")},                     /* --batch-size 32 on 2 nodes of 8 */
    {KEY("optim.weight_decay", "1.0e-8")},                /* --weight-decay */
    {KEY("optim.lr", "5.0e-6")},                          /* --lr, times batch / 512 */
    {KEY("optim.min_lr", "5.0e-6")},                      /* --min-lr */
};

/* README_revenge.md, training on ImageNet-1k from nothing; all else as main.py has it. */
static const struct recipe_row deit3[] = {
    {KEY("model.image_size", "224"), .preset = "vit_small"}, /* --input-size */
    {KEY("model.image_size", "192"), .preset = "vit_base"},
    {KEY("model.image_size", "192"), .preset = "vit_large"},
    {KEY("model.image_size", "154"), .preset = "vit_huge"},  /* 160, of which 11 x 11 patches of 14 see 154 */
    {KEY("model.drop_path", "0.05"), .preset = "vit_small"}, /* --drop-path */
    {KEY("model.drop_path", "0.2"), .preset = "vit_base"},
    {KEY("model.drop_path", "0.45"), .preset = "vit_large"},
    {KEY("model.drop_path", "0.6"), .preset = "vit_huge"},
    {KEY("model.drop_path_rule", "constant")}, /* models_v2.py */
    {KEY("model.layer_scale", "1.0e-4")},      /* models_v2.py, init_scale */
    {KEY("data.crop_pct", "1.0")},             /* --eval-crop-ratio 1.0 */
    {KEY("data.augment.rand_augment", "")},    /* --ThreeAugment takes its place */
    {KEY("data.augment.three_augment", "true"), .unless = "data.augment.rand_augment"}, /* augment.py 90-123 */
    {KEY("data.augment.color_jitter", "0.3")},                                          /* --color-jitter */
    {KEY("data.augment.erase_probability", "0.0")},                                     /* --reprob */
    {KEY("train.epochs", "800"), .unless = "train.steps"},                              /* --epochs */
    {KEY("train.batch_size", "2048")},                  /* --batch 256 on 8, or 64 on 4 x 8 */
    {KEY("train.loss", "bce")},                         /* --bce-loss, engine.py 43 */
    {KEY("train.bce_threshold", "0.0")},                /* the same: any target above 0 is 1 */
    {KEY("train.bce_sum", "false")},                    /* BCEWithLogitsLoss: the mean */
    {KEY("train.label_smoothing", "0.0")},              /* --smoothing */
    {KEY("optim.kind", "lamb")},                        /* --opt fusedlamb */
    {KEY("optim.clip_grad_norm", "1.0")},               /* apex FusedLAMB, max_grad_norm */
    {KEY("optim.lr_base_batch", "0")},                  /* --unscale-lr */
    {KEY("optim.lr", "4.0e-3"), .preset = "vit_small"}, /* --lr */
    {KEY("optim.lr", "3.0e-3"), .preset = "vit_base"},
    {KEY("optim.lr", "3.0e-3"), .preset = "vit_large"},
    {KEY("optim.lr", "3.0e-3"), .preset = "vit_huge"},
};

/* README_revenge.md, fine-tuning: 20 epochs at 224 pixels (S, which was trained at 224: 384). */
static const struct recipe_row deit3_finetune[] = {
    {KEY("model.image_size", "384"), .preset = "vit_small"}, /* --input-size */
    {KEY("model.image_size", "224")},
    {KEY("model.drop_path", "0.0"), .preset = "vit_small"}, /* --drop-path */
    {KEY("model.drop_path", "0.2"), .preset = "vit_base"},
    {KEY("model.drop_path", "0.45"), .preset = "vit_large"},
    {KEY("model.drop_path", "0.55"), .preset = "vit_huge"},
    {KEY("model.drop_path_rule", "constant")},            /* models_v2.py */
    {KEY("model.layer_scale", "1.0e-4")},                 /* models_v2.py: the weights have it */
    {KEY("data.crop_pct", "1.0")},                        /* --eval-crop-ratio 1.0 */
    {KEY("data.augment.repeats", "1")},                   /* --no-repeated-aug */
    {KEY("data.augment.erase_probability", "0.0")},       /* --reprob */
    {KEY("train.epochs", "20"), .unless = "train.steps"}, /* --epochs */
    {KEY("train.batch_size", "512")},                     /* --batch 64 on 8, or 32 on 2 x 8 */
    {KEY("optim.weight_decay", "0.1")},                   /* --weight-decay */
    {KEY("optim.lr_base_batch", "0")},                    /* --unscale-lr */
    {KEY("optim.lr", "1.0e-5")},                          /* --lr */
    {KEY("optim.min_lr", "1.0e-5")},                      /* main.py --min-lr: flat after the warm-up */
};
#define ROWS(list) (list), sizeof(list) / sizeof(list)[0]
static const struct recipe {
    const struct recipe_row *rows;
    size_t count;
} recipes[] = {
    [RECIPE_NONE] = {NULL, 0},
    [RECIPE_DEIT] = {ROWS(deit)},
    [RECIPE_DEIT3] = {ROWS(deit3)},
    [RECIPE_DEIT_FINETUNE] = {ROWS(deit_finetune)},
    [RECIPE_DEIT3_FINETUNE] = {ROWS(deit3_finetune)},
};

const struct recipe_row *recipe_rows(enum recipe_name name, size_t *count)
{
    *count = recipes[name].count;
    return recipes[name].rows;
}

/* Among one list's rows of a key. *sized: there are some, and all for other presets. */
static const struct recipe_row *find_row(const struct recipe *recipe, const char *key, const char *preset, bool *sized)
{
    for (size_t i = 0; i < recipe->count; i++) {
        const struct recipe_row *row = &recipe->rows[i];
        if (strcmp(row->key, key) != 0)
            continue;
        if (!row->preset || strcmp(row->preset, preset) == 0)
            return row;
        *sized = true;
    }
    return NULL;
}

/* Its own, else main.py's. */
static const struct recipe_row *choose_row(enum recipe_name name, const char *key, const char *preset, bool *sized)
{
    *sized = false;
    const struct recipe_row *row = find_row(&recipes[name], key, preset, sized);
    return row || *sized || name == RECIPE_NONE ? row : find_row(&recipes[RECIPE_DEIT], key, preset, sized);
}

/* A text as the value of a key, in the one form that config_value_format has for it. */
static void format_text_of(const struct config_key *key, const char *value, char *text, size_t text_bytes)
{
    struct config config = {0};
    struct error ignored;
    config_value_set(&config, key, value, key->type == CONFIG_TEXT, &ignored);
    config_value_format(&config, key, text, text_bytes);
}

/* Whether the key is given, as something else than what it is anyway. */
static bool says_something(const struct config_reading *reading, const char *path)
{
    size_t index = config_key_find(reading->schema, path);
    const struct config_key *key = &reading->schema->keys[index];
    char value[2200], initial[2200]; /* as config_format_schema */
    if (!reading->places[index].given)
        return false;
    format_text_of(key, key->initial, initial, sizeof initial);
    config_value_format(reading->config, key, value, sizeof value);
    return strcmp(value, initial) != 0;
}

static bool refuse_preset(const struct config_reading *reading, enum recipe_name name, const char *key)
{
    char presets[128] = "";
    const struct recipe *recipe = &recipes[name];
    for (size_t i = 0; i < recipe->count; i++) {
        size_t used = strlen(presets);
        if (recipe->rows[i].preset && strcmp(recipe->rows[i].key, key) == 0)
            snprintf(presets + used, sizeof presets - used, "%s%s", used ? ", " : "", recipe->rows[i].preset);
    }
    return config_refuse(reading, "recipe", "%s has %s for %s alone; give one of these as model.preset, or %s",
                         config_recipe_names[name], key, presets, key);
}

bool recipe_apply(struct config_reading *reading)
{
    const struct config *config = reading->config;
    enum recipe_name name = config->recipe;
    for (size_t i = 0; i < reading->schema->count; i++) {
        const struct config_key *key = &reading->schema->keys[i];
        bool sized;
        if (reading->places[i].given)
            continue;
        const struct recipe_row *row = choose_row(name, key->path, config->model.preset, &sized);
        if (!row && sized)
            return refuse_preset(reading, name, key->path);
        if (!row || (row->unless && says_something(reading, row->unless)))
            continue;
        reading->places[i].recipe = config_recipe_names[name];
        if (!config_value_set(reading->config, key, row->value, key->type == CONFIG_TEXT, reading->error))
            return config_refuse_value(reading, key->path);
    }
    return true;
}

char *config_recipe_describe(const struct config *config)
{
    char *text = NULL;
    size_t bytes, changes = 0;
    FILE *out = config->recipe != RECIPE_NONE ? open_memstream(&text, &bytes) : NULL;
    if (!out)
        return NULL;
    fputs(config_recipe_names[config->recipe], out);
    for (size_t i = 0; i < config_key_count; i++) {
        const struct config_key *key = &config_keys[i];
        char here[2200], there[2200];
        bool sized;
        const struct recipe_row *row = choose_row(config->recipe, key->path, config->model.preset, &sized);
        if (!row && !sized)
            continue;
        config_value_format(config, key, here, sizeof here);
        if (row)
            format_text_of(key, row->value, there, sizeof there);
        if (row && strcmp(here, there) == 0)
            continue;
        fprintf(out, "%s%s %s%s%s%s", changes++ ? ", " : ", but ", key->path, here, row ? " (" : "", row ? there : "",
                row ? ")" : "");
    }
    if (changes == 0)
        fputs(" as published", out);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
