/* Recipes: what they give, what wins over them, and that their tables speak of keys that there are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/attention_kinds.h"
#include "src/config/load.h"
#include "src/config/recipe.h"

static const char *const presets[] = {"vit_tiny", "vit_small", "vit_base", "vit_large", "vit_huge"};
enum { PRESETS = 5 };

static bool parse(struct config *config, const char *text, const char *override, struct error *error)
{
    return config_parse(config, text, strlen(text), "run.yaml", &override, override ? 1 : 0, error);
}

static struct config parsed(const char *text, const char *override)
{
    struct config config;
    struct error error;
    if (!parse(&config, text, override, &error))
        fail_msg("%s", error.message);
    return config;
}

static struct config of_recipe(const char *recipe, const char *preset)
{
    char text[256];
    snprintf(text, sizeof text, "recipe: %s\nmodel: {preset: %s}\ndata: {train: a.h5}\n", recipe, preset);
    return parsed(text, NULL);
}

static void refused(const char *text, const char *override, const char *expected)
{
    struct config config;
    struct error error;
    if (parse(&config, text, override, &error))
        fail_msg("accepted: %s", text);
    assert_int_equal(error.status, ERROR_INPUT);
    if (!strstr(error.message, expected))
        fail_msg("'%s' expected, not: %s", expected, error.message);
}

/* ---- the tables ---- */

static void check_row(const char *recipe, const struct recipe_row *row)
{
    static struct config config;
    struct error error = {0};
    size_t index = config_key_find(&config_schema, row->key);
    if (index == config_key_count)
        fail_msg("recipe %s: there is no key %s", recipe, row->key);
    const struct config_key *key = &config_keys[index];
    if (!config_value_set(&config, key, row->value, key->type == CONFIG_TEXT, &error))
        fail_msg("recipe %s: %s: %s", recipe, row->key, error.message);
    if (row->preset && !config_preset(&config, row->preset))
        fail_msg("recipe %s: %s: there is no preset %s", recipe, row->key, row->preset);
    if (row->unless && config_key_find(&config_schema, row->unless) == config_key_count)
        fail_msg("recipe %s: %s: there is no key %s", recipe, row->key, row->unless);
}

static void every_row_speaks_of_a_key_that_there_is(void **state)
{
    (void)state;
    size_t all = 0;
    for (unsigned name = 0; config_recipe_names[name]; name++) {
        size_t count;
        const struct recipe_row *rows = recipe_rows((enum recipe_name)name, &count);
        for (size_t i = 0; i < count; i++)
            check_row(config_recipe_names[name], &rows[i]);
        assert_int_equal(count == 0, name == RECIPE_NONE);
        all += count;
    }
    assert_true(all > 40);
}

/* Every recipe of every preset for which it has numbers is a run, and its resolved text is the same run. */
static void every_recipe_is_a_run_that_reads_back(void **state)
{
    (void)state;
    for (unsigned name = RECIPE_DEIT; config_recipe_names[name]; name++)
        for (size_t i = 0; i < PRESETS; i++) {
            bool third = name == RECIPE_DEIT3 || name == RECIPE_DEIT3_FINETUNE;
            bool divides = name != RECIPE_DEIT_FINETUNE || strcmp(presets[i], "vit_huge") != 0; /* 384 by 14 */
            if (!divides || (third && strcmp(presets[i], "vit_tiny") == 0))
                continue;
            struct config config = of_recipe(config_recipe_names[name], presets[i]);
            char *resolved = config_format(&config);
            assert_non_null(resolved);
            struct config again = parsed(resolved, NULL);
            assert_memory_equal(&again, &config, sizeof config);
            free(resolved);
        }
}

/* ---- what wins ---- */

static void what_is_given_wins(void **state)
{
    (void)state;
    const char *text = "recipe: deit\nmodel: {preset: vit_tiny, drop_path: 0.0}\ndata: {train: a.h5}\n"
                       "optim: {lr: 7.0e-4}\n";
    struct config config = parsed(text, "train.label_smoothing=0.3");
    assert_true(config.model.drop_path == 0 && config.optim.lr == 7e-4 && config.train.label_smoothing == 0.3);
    assert_true(config.optim.min_lr == 1e-5 && config.train.epochs == 300);
    config = parsed(text, "train.epochs=30");
    assert_true(config.train.epochs == 30);
    config = parsed("recipe: deit\nmodel: {preset: vit_base}\ndata: {train: a.h5}\n", "recipe=deit3");
    assert_true(config.train.epochs == 800 && config.recipe == RECIPE_DEIT3);
}

static void other_words_for_the_same_win_too(void **state)
{
    (void)state;
    const char *text = "recipe: deit\nmodel: {preset: vit_tiny}\ndata: {train: a.h5}\n";
    struct config config = parsed(text, "train.steps=50");
    assert_true(config.train.steps == 50 && config.train.epochs == 0);
    config = parsed(text, "train.steps=0");
    assert_true(config.train.steps == 0 && config.train.epochs == 300);
    config = parsed("recipe: deit\nmodel: {preset: vit_tiny}\ndata: {train: a.h5}\noptim: {schedule: cosine}\n",
                    "optim.warmup_steps=20");
    assert_true(config.optim.warmup_steps == 20 && config.optim.warmup_epochs == 0);
    config = parsed(text, "data.augment.three_augment=true");
    assert_true(config.data.augment.three_augment && !config.data.augment.rand_augment[0]);
    config = parsed(text, "data.augment.simple_crop=true");
    assert_true(config.data.augment.simple_crop && !config.data.augment.random_resized_crop);
    config =
        parsed("recipe: deit3\nmodel: {preset: vit_base}\ndata: {train: a.h5}\n", "data.augment.rand_augment=rand-m9");
    assert_true(!config.data.augment.three_augment && config.data.augment.rand_augment[0]);
}

static void without_a_recipe_nothing_changes(void **state)
{
    (void)state;
    const char *text = "model: {preset: vit_tiny}\ndata: {train: a.h5}\ntrain: {epochs: 3}\n";
    struct config plain = parsed(text, NULL), none = parsed(text, "recipe=none");
    assert_memory_equal(&plain, &none, sizeof plain);
    assert_true(plain.model.drop_path == 0 && plain.train.batch_size == 256);
}

static void assert_described(const struct config *config, const char *expected)
{
    char *text = config_recipe_describe(config);
    assert_non_null(text);
    assert_string_equal(text, expected);
    free(text);
}

static void what_differs_from_the_recipe_is_said(void **state)
{
    (void)state;
    struct config config = of_recipe("deit", "vit_tiny");
    assert_described(&config, "deit as published");
    config.train.batch_size = 64;
    config.model.drop_path = 0;
    assert_described(&config, "deit, but model.drop_path 0.0 (0.1), train.batch_size 64 (1024)");
    config = of_recipe("deit3", "vit_base");
    assert_described(&config, "deit3 as published");
    config.data.augment.three_augment = false;
    strcpy(config.model.preset, "vit_tiny");
    assert_described(&config,
                     "deit3, but model.image_size 192, model.drop_path 0.2, data.augment.three_augment false (true), "
                     "optim.lr 0.003");
    config.recipe = RECIPE_NONE;
    assert_null(config_recipe_describe(&config));
}

/* ---- bad input ---- */

static void what_a_recipe_cannot_give_is_said(void **state)
{
    (void)state;
    refused("recipe: deti\nmodel: {preset: vit_tiny}\n", NULL,
            "run.yaml:1: recipe: 'deti' is not known (one of none, deit, deit_finetune, deit3, deit3_finetune is "
            "expected)");
    refused(
        "recipe: deit3\nmodel: {preset: vit_tiny, image_size: 224}\ndata: {train: a.h5}\n", NULL,
        "run.yaml:1: recipe: deit3 has model.drop_path for vit_small, vit_base, vit_large, vit_huge alone; give one "
        "of these as model.preset, or model.drop_path");
    refused("recipe: deit\nmodel: {preset: vit_tiny}\ndata: {train: a.h5}\n", "model.image_size=100",
            "--set model.image_size=100: 100 is not a multiple of model.patch_size 16");
    refused("recipe: deit\nmodel: {dim: 64, heads: 2, depth: 2, patch_size: 15}\ndata: {train: a.h5}\n", NULL,
            "run.yaml: model.image_size (of recipe deit): 224 is not a multiple of model.patch_size 15");
    refused("recipe: deit_finetune\nmodel: {preset: vit_base}\ndata: {train: a.h5}\n", "optim.lr=1.0e-6",
            "run.yaml: optim.min_lr (of recipe deit_finetune): 5e-06 is more than optim.lr 1e-06 x batch 512 / "
            "lr_base_batch 512");
    refused("recipe: deit\nmodel: {preset: vit_tiny}\ndata: {train: a.h5}\n", "train.epochs=5",
            "run.yaml: optim.warmup_epochs (of recipe deit): 5 and cooldown_epochs 0 are not less than train.epochs 5");
    refused("recipe: deit\nmodel: {preset: vit_tiny}\ndata: {train: a.h5}\n", "optim.warmup_steps=9",
            "--set optim.warmup_steps=9: this schedule counts epochs; give optim.warmup_epochs instead");
    refused("recipe: deit\nmodel: {preset: vit_tiny}\n", NULL, "data.train: is missing");
}

/* ---- the numbers, once more, as github.com/facebookresearch/deit prints them ---- */

static void check_mixing(const struct config *config)
{
    assert_true(config->mix.mixup == 0.8 && config->mix.cutmix == 1 && config->mix.probability == 1);
    assert_true(config->mix.switch_probability == 0.5 && config->mix.per == CONFIG_MIX_PER_BATCH);
    assert_true(config->mix.cutmix_rule == CONFIG_CUTMIX_RULE_DEIT);
}

static void check_schedule(const struct config *config)
{
    assert_true(config->optim.schedule == SCHEDULE_DEIT && config->optim.warmup_epochs == 5);
    assert_true(config->optim.warmup_lr == 1e-6 && config->optim.min_lr == 1e-5 && config->optim.warmup_steps == 0);
}

static void deit_is_what_main_py_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) { /* tiny, small and base: the same */
        struct config c = of_recipe("deit", presets[i]);
        assert_true(c.train.epochs == 300 && c.train.batch_size == 1024 && c.model.image_size == 224);
        assert_true(c.model.drop_path == 0.1 && c.model.layer_scale == 0 && c.train.label_smoothing == 0.1);
        assert_true(c.optim.kind == OPTIMISER_ADAMW && c.optim.weight_decay == 0.05 && c.optim.eps == 1e-8);
        assert_true(c.optim.beta1 == 0.9 && c.optim.beta2 == 0.999 && c.optim.clip_grad_norm == 0);
        assert_true(c.optim.lr == 5e-4 && c.optim.lr_base_batch == 512 && config_peak_lr(&c) == 1e-3);
        assert_true(c.train.loss == LOSS_CROSS_ENTROPY && c.model.drop_path_rule == DROP_PATH_LINEAR);
        check_schedule(&c);
        assert_true(c.ema.decay == 0.99996);
        assert_true(c.data.interpolation == CONFIG_INTERPOLATION_BICUBIC && c.data.crop_pct == 0.875);
        assert_true(c.data.augment.random_resized_crop && c.data.augment.flip && c.data.augment.repeats == 3);
        assert_true(c.data.augment.crop_scale_min == 0.08 && c.data.augment.crop_scale_max == 1);
        assert_string_equal(c.data.augment.rand_augment, "rand-m9-mstd0.5-inc1");
        assert_false(c.data.augment.three_augment || c.data.augment.simple_crop);
        assert_true(c.data.augment.erase_probability == 0.25 && c.data.augment.erase_area_min == 0.02);
        assert_true(c.data.augment.erase_area_max == 1.0 / 3);
        check_mixing(&c);
    }
    struct config c = of_recipe("deit_finetune", "vit_base");
    assert_true(c.model.image_size == 384 && c.train.epochs == 30 && c.train.batch_size == 512);
    assert_true(config_peak_lr(&c) == 5e-6 && c.optim.min_lr == 5e-6 && c.optim.weight_decay == 1e-8);
    assert_true(c.model.drop_path == 0.1 && c.data.augment.repeats == 3);
}

static void deit3_is_what_its_commands_say(void **state)
{
    (void)state;
    static const struct {
        const char *preset;
        double lr, drop_path, finetune_drop_path;
        int64_t image_size, finetune_size;
    } rows[] = {{"vit_small", 4e-3, 0.05, 0, 224, 384},
                {"vit_base", 3e-3, 0.2, 0.2, 192, 224},
                {"vit_large", 3e-3, 0.45, 0.45, 192, 224},
                {"vit_huge", 3e-3, 0.6, 0.55, 154, 224}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct config c = of_recipe("deit3", rows[i].preset);
        check_schedule(&c);
        assert_true(c.ema.decay == 0.99996);
        assert_true(c.train.loss == LOSS_BCE && c.train.bce_threshold == 0 && !c.train.bce_sum);
        assert_true(c.model.drop_path_rule == DROP_PATH_CONSTANT && config_peak_lr(&c) == c.optim.lr);
        assert_true(c.optim.lr == rows[i].lr && c.model.drop_path == rows[i].drop_path);
        assert_true(c.model.image_size == rows[i].image_size && c.model.layer_scale == 1e-4);
        assert_true(c.train.epochs == 800 && c.train.batch_size == 2048 && c.train.label_smoothing == 0);
        assert_true(c.optim.kind == OPTIMISER_LAMB && c.optim.clip_grad_norm == 1 && !c.optim.trust_clip);
        assert_true(c.optim.weight_decay == 0.05 && c.optim.min_lr == 1e-5 && c.optim.eps == 1e-8);
        assert_true(c.data.augment.three_augment && c.data.augment.color_jitter == 0.3 && c.data.crop_pct == 1);
        assert_true(!c.data.augment.rand_augment[0] && c.data.augment.repeats == 3);
        assert_true(c.data.augment.erase_probability == 0);
        check_mixing(&c);
        c = of_recipe("deit3_finetune", rows[i].preset);
        assert_true(c.model.image_size == rows[i].finetune_size && c.model.drop_path == rows[i].finetune_drop_path);
        assert_true(c.train.epochs == 20 && c.train.batch_size == 512 && c.train.label_smoothing == 0.1);
        assert_true(c.optim.lr == 1e-5 && c.optim.min_lr == 1e-5 && c.optim.weight_decay == 0.1);
        check_schedule(&c);
        assert_true(c.ema.decay == 0.99996);
        assert_true(c.train.loss == LOSS_CROSS_ENTROPY && c.model.drop_path_rule == DROP_PATH_CONSTANT);
        assert_true(config_peak_lr(&c) == 1e-5 && c.optim.clip_grad_norm == 0);
        assert_true(c.optim.kind == OPTIMISER_ADAMW && c.model.layer_scale == 1e-4 && c.data.crop_pct == 1);
        assert_true(c.data.augment.repeats == 1 && !c.data.augment.three_augment);
        assert_true(c.data.augment.erase_probability == 0);
        check_mixing(&c);
        assert_string_equal(c.data.augment.rand_augment, "rand-m9-mstd0.5-inc1");
    }
}

/* ---- configs/ ---- */

/* As it is and with every attention kind by one --set. The files of configs/experiments have other schemas. */
static void check_file(const char *path, bool by_recipe)
{
    struct config config, other;
    struct error error;
    if (!config_load(&config, path, NULL, 0, &error))
        fail_msg("%s", error.message);
    assert_int_equal(config.attention.kind, ATTENTION_QUEST);
    assert_int_equal(config.recipe != RECIPE_NONE, by_recipe);
    for (unsigned kind = 0; kind < ATTENTION_KINDS; kind++) {
        char override[64];
        const char *overrides[] = {override};
        snprintf(override, sizeof override, "attention.kind=%s", attention_kind_names[kind]);
        if (!config_load(&other, path, overrides, 1, &error))
            fail_msg("%s", error.message);
        config.attention.kind = other.attention.kind;
        assert_int_equal(other.attention.kind, kind);
        assert_memory_equal(&other, &config, sizeof config);
    }
}

static void every_configuration_that_comes_with_it_is_a_run(void **state)
{
    (void)state;
    static const struct {
        const char *pattern;
        size_t least;
        bool by_recipe;
    } folders[] = {{"configs/*.yaml", 7, false}, {"configs/deit/*.yaml", 5, true}, {"configs/deit3/*.yaml", 8, true}};
    for (size_t folder = 0; folder < 3; folder++) {
        glob_t found;
        assert_int_equal(glob(folders[folder].pattern, 0, NULL, &found), 0);
        assert_true(found.gl_pathc >= folders[folder].least);
        for (size_t i = 0; i < found.gl_pathc; i++)
            check_file(found.gl_pathv[i], folders[folder].by_recipe);
        globfree(&found);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_speaks_of_a_key_that_there_is),
        cmocka_unit_test(every_recipe_is_a_run_that_reads_back),
        cmocka_unit_test(what_is_given_wins),
        cmocka_unit_test(other_words_for_the_same_win_too),
        cmocka_unit_test(without_a_recipe_nothing_changes),
        cmocka_unit_test(what_differs_from_the_recipe_is_said),
        cmocka_unit_test(what_a_recipe_cannot_give_is_said),
        cmocka_unit_test(deit_is_what_main_py_does),
        cmocka_unit_test(deit3_is_what_its_commands_say),
        cmocka_unit_test(every_configuration_that_comes_with_it_is_a_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
