/* Configurations: defaults, presets, strict values, and errors that say file, line, key and what is allowed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/attention_kinds.h"
#include "src/config/load.h"

#define RUN "model: {preset: vit_tiny}\ndata: {train: a.h5}\ntrain: {epochs: 3}\n"

static bool parse(struct config *config, const char *text, struct error *error)
{
    return config_parse(config, text, strlen(text), "run.yaml", NULL, 0, error);
}

static struct config parsed(const char *text)
{
    struct config config;
    struct error error;
    if (!parse(&config, text, &error))
        fail_msg("%s", error.message);
    return config;
}

/* The message must hold every text of the list. */
static void refused(const char *text, const char *first, const char *second)
{
    struct config config;
    struct error error;
    if (parse(&config, text, &error))
        fail_msg("accepted: %s", text);
    assert_int_equal(error.status, ERROR_INPUT);
    assert_null(strchr(error.message, '\n'));
    if (!strstr(error.message, first) || !strstr(error.message, second))
        fail_msg("'%s' ... '%s' expected, not: %s", first, second, error.message);
}

/* ---- values ---- */

static void defaults_and_presets_fill_in_what_is_not_given(void **state)
{
    (void)state;
    struct config config = parsed(RUN);
    assert_int_equal(config.model.dim, 192);
    assert_int_equal(config.model.depth, 12);
    assert_int_equal(config.model.heads, 3);
    assert_int_equal(config.model.patch_size, 16);
    assert_int_equal(config.model.image_size, 224);
    assert_true(config.model.mlp_ratio == 4);
    assert_int_equal(config.attention.kind, ATTENTION_QUEST);
    assert_true(config.data.shuffle);
    assert_int_equal(config.data.workers, 2);
    assert_int_equal(config.train.accumulate, 1);
    assert_int_equal(config.train.precision, DTYPE_FLOAT32);
    assert_int_equal(config.norms.every, 10);
    assert_int_equal(config.checkpoint.keep, 3);
    assert_true(config.optim.lr == 1e-3 && config.optim.beta2 == 0.999 && config.optim.eps == 1e-8);
}

static void presets_are_deit_s(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int64_t patch_size, dim, depth, heads;
    } expected[] = {{"vit_tiny", 16, 192, 12, 3},
                    {"vit_small", 16, 384, 12, 6},
                    {"vit_base", 16, 768, 12, 12},
                    {"vit_large", 16, 1024, 24, 16},
                    {"vit_huge", 14, 1280, 32, 16}};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        struct config config = {0};
        assert_true(config_preset(&config, expected[i].name));
        assert_int_equal(config.model.patch_size, expected[i].patch_size);
        assert_int_equal(config.model.dim, expected[i].dim);
        assert_int_equal(config.model.depth, expected[i].depth);
        assert_int_equal(config.model.heads, expected[i].heads);
    }
    struct config config = {0};
    assert_false(config_preset(&config, "vit_giant"));
    config = parsed("model: {preset: vit_tiny, patch_size: 8, depth: 2}\ndata: {train: a.h5}\ntrain: {steps: 3}\n");
    assert_int_equal(config.model.patch_size, 8);
    assert_int_equal(config.model.depth, 2);
    assert_int_equal(config.model.dim, 192);
}

static void every_way_to_write_a_value_is_read_as_meant(void **state)
{
    (void)state;
    struct config config = parsed(RUN "optim: {lr: 1e-3, min_lr: .5e-4, weight_decay: 5, eps: 1.E-6}\n"
                                      "data.val: 'v: 1.h5'\nattention: {kind: \"qknorm_hs\"}\n"
                                      "checkpoint:\n  # every: 5\nlog: {every: +7}\n");
    assert_true(config.optim.lr == 1e-3 && config.optim.min_lr == 0.5e-4);
    assert_true(config.optim.weight_decay == 5 && config.optim.eps == 1e-6);
    assert_string_equal(config.data.val, "v: 1.h5");
    assert_int_equal(config.attention.kind, ATTENTION_QKNORM_HS);
    assert_int_equal(config.log.every, 7);
    static const char *const yes[] = {"true", "True", "yes", "on", "YES"}, *const no[] = {"false", "no", "Off"};
    char text[256];
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        snprintf(text, sizeof text, RUN "train.recompute: %s\n", yes[i]);
        assert_true(parsed(text).train.recompute);
    }
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++) {
        snprintf(text, sizeof text, RUN "data.shuffle: %s\n", no[i]);
        assert_false(parsed(text).data.shuffle);
    }
}

static void numbers_are_read_strictly(void **state)
{
    (void)state;
    refused(RUN "optim:\n  lr: fast\n",
            "run.yaml:5: optim.lr: 'fast' is not a number (a positive real number is expected, such as 1.0e-3)", "");
    static const char *const reals[] = {"4x", "0x1p3", "nan", ".inf", "1e", "1,5", "--1", "1_000", "010", "1:30", "."};
    static const char *const wholes[] = {"4x", "4.0", "1e3", "0x10", "010", "1_000", "four", "99999999999999999999"};
    char text[256];
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++) {
        snprintf(text, sizeof text, RUN "optim:\n  weight_decay: %s\n", reals[i]);
        refused(text, "run.yaml:5: optim.weight_decay: '", "is not a number (a real number");
    }
    for (size_t i = 0; i < sizeof wholes / sizeof wholes[0]; i++) {
        snprintf(text, sizeof text, RUN "log:\n  every: %s\n", wholes[i]);
        refused(text, "run.yaml:5: log.every: '", "(a whole number from 1 to");
    }
    refused(RUN "optim: {lr: \"1e-3\"}\n", "optim.lr: '1e-3' is in quotes", "a positive real number");
    refused(RUN "data: {}\n", "data is given twice", "");
    refused(RUN "log: {every: 0}\n", "log.every: '0' is out of range", "from 1 to");
    refused(RUN "optim: {lr: 0}\n", "optim.lr: '0' is out of range", "positive");
    refused(RUN "optim: {lr: 1e999}\n", "optim.lr: '1e999' is out of range", "");
    refused(RUN "optim: {beta1: 1}\n", "optim.beta1: '1' is out of range", "from 0 to below 1");
    refused(RUN "optim: {lr: }\n", "run.yaml:4: optim.lr: has no value", "");
    refused(RUN "optim: {lr: ~}\n", "optim.lr: has no value", "");
    refused(RUN "optim: {schedule: linear}\n", "optim.schedule: 'linear' is not known", "one of cosine, constant");
    refused(RUN "optim: {warmup_epochs: -1}\n", "optim.warmup_epochs: '-1' is out of range", "");
    refused(RUN "train.loss: focal\n", "train.loss: 'focal' is not known", "one of cross_entropy, bce");
    refused(RUN "optim: {kind: adam}\n", "optim.kind: 'adam' is not known", "adamw");
    refused(RUN "optim: {kind: sgd, momentum: 1}\n", "optim.momentum: '1' is out of range", "from 0 to below 1");
    refused(RUN "data.shuffle: 1\n", "'1' is neither true nor false", "");
}

/* ---- keys and structure ---- */

static void unknown_keys_come_with_the_one_that_was_meant(void **state)
{
    (void)state;
    refused(RUN "optim:\n  wieght_decay: 1\n", "run.yaml:5: optim.wieght_decay: is not a known key",
            "did you mean optim.weight_decay?");
    refused(RUN "train.lr: 1\n", "run.yaml:4: train.lr: is not a known key", "did you mean optim.lr?");
    refused(RUN "optimizer: {lr: 1}\n", "run.yaml:4: optimizer: is not a known key", "");
    refused(RUN "zzzzzzzzzzzz: 1\n", "zzzzzzzzzzzz: is not a known key; docs/configuration.md lists them", "");
    refused(RUN "optim: 5\n", "optim: is a section", "");
    refused(RUN "optim: {lr: {a: 1}}\n", "optim.lr: takes one value, not a section", "");
}

static void yaml_that_means_something_else_is_refused(void **state)
{
    (void)state;
    refused("", "run.yaml: holds no configuration", "");
    refused("# only a comment\n", "run.yaml: holds no configuration", "");
    refused("model\n", "run.yaml:1: 'section: ...' is expected", "");
    refused("- a\n", "run.yaml:1: a list stands where", "");
    refused(RUN "---\n" RUN, "run.yaml:5: a second document", "");
    refused(RUN "optim:\n  lr: 1e-3\n  lr: 1e-4\n", "run.yaml:6: optim.lr is given twice (first in line 5)", "");
    refused(RUN "optim: {lr: 1}\noptim.lr: 2\n", "optim.lr is given twice", "");
    refused(RUN "optim: {lr: [1]}\n", "run.yaml:4: a list stands where", "");
    refused(RUN "a: &x {b: 1}\n", "run.yaml:4: anchors", "");
    refused(RUN "optim: {lr: *x}\n", "run.yaml:4: aliases", "");
    refused(RUN "optim: {lr: !!float 1}\n", "run.yaml:4: tags", "");
    refused(RUN "data.val: |\n  a\n  b\n", "run.yaml:4: data.val: the value has several lines", "");
    refused(RUN "data.val: \"a\\0b\"\n", "control characters", "");
    refused(RUN "data.val: a\xff\n", "run.yaml:4: not UTF-8 text", "");
    refused(RUN "optim: {lr: 1\n", "run.yaml:", "not valid YAML");
    refused(RUN "\toptim: 1\n", "not valid YAML", "");
    refused(RUN "? {a: b}\n: c\n", "a mapping stands where a key is expected", "");
    refused("{a: {a: {a: {a: {a: {a: {a: {a: {a: 1}}}}}}}}}\n", "nested more than 8 deep", "");
}

/* "Billion laughs" and its kin end at the first anchor; size, depth and number of keys are limited. */
static void bombs_are_refused(void **state)
{
    (void)state;
    refused("a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n", "run.yaml:1:", "");
    refused("a: &a x\nb: {c: *a, d: *a}\n", "run.yaml:1: anchors", "");
    size_t bytes = (1 << 20) + 1;
    char *text = malloc(bytes + 1);
    assert_non_null(text);
    memset(text, '#', bytes);
    text[bytes] = '\0';
    refused(text, "larger than 1048576 bytes", "");
    memset(text, '{', bytes - 1);
    text[bytes - 1] = '\0';
    refused(text, "run.yaml:1:", "");
    memset(text, '[', bytes - 1);
    refused(text, "a list stands where", "");
    size_t used = 0;
    for (int i = 0; i < 2000; i++)
        used += (size_t)sprintf(text + used, "k%d: 1\n", i);
    refused(text, "more than 1000 keys", "");
    memset(text, 'k', 2000);
    strcpy(text + 2000, ": 1\n");
    refused(text, "run.yaml:1:", "");
    used = (size_t)sprintf(text, RUN "data.val: ");
    memset(text + used, 'p', 1024);
    strcpy(text + used + 1024, "\n");
    refused(text, "run.yaml:4: data.val: is longer than 1023 bytes", "");
    free(text);
}

/* ---- relations ---- */

static void relations_between_keys_are_checked(void **state)
{
    (void)state;
#define REST "data: {train: a.h5}\ntrain: {epochs: 3}\n"
    refused("model: {preset: vit_tiny,\n  heads: 5}\n" REST, "run.yaml:2: model.heads: 5 heads do not divide", "192");
    refused("model: {dim: 16, depth: 1, heads: 4}\n" REST, "model.heads", "head dimension of 4;");
    refused("model: {dim: 24, depth: 1, heads: 2}\n" REST, "model.heads", "head dimension of 12;");
    refused("model: {dim: 264, depth: 1, heads: 1}\n" REST, "model.heads", "head dimension of 264;");
    refused("model: {dim: 512, depth: 1, heads: 1}\n" REST, "model.heads", "at most 256");
    refused("model: {preset: vit_tiny, image_size: 225}\n" REST, "model.image_size: 225 is not a multiple", "16");
    refused("model: {preset: vit_huge, image_size: 225}\n" REST, "model.image_size: 225 is not a multiple", "14");
    refused("model: {preset: vit_giant}\n" REST, "model.preset: 'vit_giant' is not known (vit_tiny", "");
    refused("model: {dim: 64, heads: 1}\n" REST, "run.yaml: model.depth: is missing", "preset");
    refused("model: {preset: vit_tiny}\ntrain: {epochs: 3}\n", "data.train: is missing", "");
    refused("model: {preset: vit_tiny}\ndata: {train: a}\n", "train.epochs: is missing", "train.steps");
    refused(RUN "train.steps: 5\n", "run.yaml:4: train.steps: train.epochs is given too", "");
    refused(RUN "train.batch_size: 10\ntrain.accumulate: 4\n", "train.batch_size: 10 is not a multiple", "4");
    refused("model: {preset: vit_tiny}\ndata: {train: a}\ntrain: {steps: 5}\noptim: {warmup_steps: 5}\n",
            "run.yaml:4: optim.warmup_steps: 5 is not less than train.steps 5", "");
    refused("model: {preset: vit_tiny, freeze: 13}\n" REST, "run.yaml:1: model.freeze: '13' is more than model.depth",
            "from 0 to model.depth 12");
    refused("model: {preset: vit_tiny, freeze: all}\n" REST, "model.freeze: 'all' leaves nothing to train", "");
    refused("model: {preset: vit_tiny, freeze: -1}\n" REST, "model.freeze: '-1' is not a number of blocks", "");
    refused(RUN "optim: {lr: 1e-3, min_lr: 2e-3}\n", "optim.min_lr: 0.002 is more than optim.lr 0.001", "");
    refused(RUN "optim: {momentum: 0.95}\n",
            "run.yaml:4: optim.momentum: is for optim.kind: sgd, muon and nmuon, and this is adamw", "");
    refused(RUN "optim: {kind: lamb, nesterov: false}\n", "optim.nesterov: is for optim.kind: sgd", "lamb");
    refused(RUN "optim: {kind: sgd, trust_clip: true}\n", "optim.trust_clip: is for optim.kind: lamb", "sgd");
    refused(RUN "optim: {layer_decay: 0}\n", "optim.layer_decay: '0' is out of range", "");
    refused(RUN "optim: {layer_decay: 1.1}\n", "optim.layer_decay: '1.1' is out of range", "");
    refused(RUN "data.augment: {crop_scale_min: 0.9, crop_scale_max: 0.5}\n", "data.augment.crop_scale_min", "0.5");
}

static void keys_of_recipes_that_do_not_go_together_are_refused(void **state)
{
    (void)state;
    refused(RUN "train.loss: bce\ntrain.label_smoothing: 0.1\n",
            "run.yaml:5: train.label_smoothing: 0.1 with train.loss: bce puts every class over", "bce_threshold to -1");
    refused(RUN "train.loss: bce\ntrain.label_smoothing: 0.9\ntrain.bce_threshold: 0.05\nmodel.classes: 10\n",
            "train.label_smoothing: 0.9 with", "0.05");
    parsed(RUN "train.loss: bce\ntrain.label_smoothing: 0.1\ntrain.bce_threshold: 0.2\nmodel.classes: 10\n");
    parsed(RUN "train.loss: bce\ntrain.label_smoothing: 0.1\ntrain.bce_threshold: -1\n");
    parsed(RUN "train.label_smoothing: 0.1\n");
    refused(RUN "optim: {warmup_epochs: 1, warmup_steps: 5}\n", "run.yaml:4: optim.warmup_epochs: optim.warmup_steps",
            "");
    refused(RUN "optim: {warmup_epochs: 3}\n", "optim.warmup_epochs: 3 and cooldown_epochs 0 are not less than", "3");
    refused(RUN "optim: {schedule: timm_updates, warmup_epochs: 1, cooldown_epochs: 2}\n", "optim.warmup_epochs: 1",
            "2");
    refused(RUN "optim: {schedule: deit, warmup_steps: 5}\n", "optim.warmup_steps: this schedule counts epochs", "");
    refused(RUN "optim: {schedule: deit, cooldown_epochs: 1}\n", "optim.cooldown_epochs: only timm_updates", "");
    refused(RUN "optim: {warmup_prefix: true}\n", "optim.warmup_prefix: only timm_updates", "");
    refused(RUN "train.batch_size: 64\noptim: {lr: 1e-3, lr_base_batch: 512, min_lr: 2e-4}\n",
            "optim.min_lr: 0.0002 is more than optim.lr 0.001 x batch 64 / lr_base_batch 512", "");
    parsed(RUN "train.batch_size: 64\noptim: {lr: 1e-3, lr_base_batch: 16, min_lr: 2e-3}\n");
}

static void overrides_win_and_are_named_in_errors(void **state)
{
    (void)state;
    struct config config;
    struct error error;
    const char *const good[] = {"optim.lr=0.5", "optim.lr=0.25", "train.steps=50", "data.val=\xc3\xbc=b.h5"};
    assert_true(config_parse(&config, RUN, strlen(RUN), "run.yaml", good, 4, &error));
    assert_true(config.optim.lr == 0.25);
    assert_int_equal(config.train.steps, 50); /* in place of the file's epochs */
    assert_int_equal(config.train.epochs, 0);
    assert_string_equal(config.data.val, "\xc3\xbc=b.h5");
    static const char *const bad[][2] = {
        {"optim.lr=fast", "--set optim.lr=fast: 'fast' is not a number"},
        {"optim.lr", "--set optim.lr: key.path=value is expected"},
        {"=1", "--set =1: key.path=value is expected"},
        {"optim.lrr=1", "--set optim.lrr=1: is not a known key (did you mean optim.lr?)"},
        {"optim=1", "--set optim=1: is a section"},
        {"model.heads=5", "--set model.heads=5: 5 heads do not divide"},
        {"data.val=a\nb", "--set data.val=a...: is not one line of UTF-8 text"},
        {"data.val=\xc3(", "--set data.val=...: is not one line"},
        {"data.val=\xed\xa0\x80", "is not one line"},
        {"data.val=\xc2\x85", "is not one line"},
        {"train.epochs=0", "train.epochs=0: is missing"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(config_parse(&config, RUN, strlen(RUN), "run.yaml", &bad[i][0], 1, &error));
        assert_int_equal(error.status, ERROR_INPUT);
        if (!strstr(error.message, bad[i][1]))
            fail_msg("'%s' expected, not: %s", bad[i][1], error.message);
    }
}

/* ---- whole texts ---- */

static void a_model_alone_is_enough_for_evaluation(void **state)
{
    (void)state;
    static const char fixture[] = "model: {dim: 48, depth: 2, heads: 3, patch_size: 4, image_size: 16, classes: 7, "
                                  "layer_scale: 0.0}\nattention: {kind: qknorm_ds}\n";
    struct config config;
    struct error error;
    assert_true(config_parse_model(&config, fixture, strlen(fixture), "f.h5", &error));
    assert_int_equal(config.model.dim, 48);
    assert_int_equal(config.model.classes, 7);
    assert_int_equal(config.attention.kind, ATTENTION_QKNORM_DS);
    assert_true(config_parse_model(&config, RUN, strlen(RUN), "f.h5", &error));
    assert_false(config_parse_model(&config, "attention: {kind: quest}\n", 25, "f.h5", &error));
    assert_non_null(strstr(error.message, "f.h5: model.dim: is missing"));
}

static void the_resolved_text_reads_back_to_the_same(void **state)
{
    (void)state;
    struct config config = parsed(RUN "optim: {lr: 1.2345678901234567e-5, eps: 1e-8}\ntrain.label_smoothing: 0.1\n"
                                      "data.val: 'a \"quoted\" \\ path: #x'\ncomm: {dtype: bf16, timeout_s: 0.1}\n"
                                      "attention: {kind: qknorm}\ndata.augment: {flip: yes, crop_padding: 4}\n");
    char *text = config_format(&config);
    assert_non_null(text);
    struct config again = parsed(text);
    assert_memory_equal(&config, &again, sizeof config);
    char *second = config_format(&again);
    assert_string_equal(text, second);
    free(second);
    free(text);
}

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("%s: run the test in the repository's root", path);
    char *text = calloc(1, 1 << 18);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 18) - 1, file) > 0);
    fclose(file);
    return text;
}

static void the_documentation_holds_the_schema(void **state)
{
    (void)state;
    char *documented = read_file("docs/configuration.md"), *reference = config_reference();
    assert_non_null(reference);
    if (!strstr(documented, reference)) {
        printf("%s", reference); /* cmocka cuts a message after 1024 characters */
        fail_msg("docs/configuration.md does not hold the list above; put it there");
    }
    free(reference);
    free(documented);
}

static void a_file_that_cannot_be_read_is_named(void **state)
{
    (void)state;
    struct config config;
    struct error error;
    assert_false(config_load(&config, "/nowhere/run.yaml", NULL, 0, &error));
    assert_int_equal(error.status, ERROR_INPUT);
    assert_string_equal(error.message, "/nowhere/run.yaml: No such file or directory");
    assert_false(config_load(&config, "/tmp", NULL, 0, &error));
    assert_non_null(strstr(error.message, "/tmp: cannot be read: Is a directory"));
}

static void names_go_both_ways(void **state)
{
    (void)state;
    for (int kind = 0; kind < ATTENTION_KINDS; kind++) {
        enum attention_kind found;
        assert_true(attention_kind_from_name(&found, attention_kind_name((enum attention_kind)kind)));
        assert_int_equal(found, kind);
    }
    enum attention_kind found;
    assert_false(attention_kind_from_name(&found, "softmax"));
    assert_string_equal(dtype_name(DTYPE_BFLOAT16), "bf16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_and_presets_fill_in_what_is_not_given),
        cmocka_unit_test(presets_are_deit_s),
        cmocka_unit_test(every_way_to_write_a_value_is_read_as_meant),
        cmocka_unit_test(numbers_are_read_strictly),
        cmocka_unit_test(unknown_keys_come_with_the_one_that_was_meant),
        cmocka_unit_test(yaml_that_means_something_else_is_refused),
        cmocka_unit_test(bombs_are_refused),
        cmocka_unit_test(relations_between_keys_are_checked),
        cmocka_unit_test(keys_of_recipes_that_do_not_go_together_are_refused),
        cmocka_unit_test(overrides_win_and_are_named_in_errors),
        cmocka_unit_test(a_model_alone_is_enough_for_evaluation),
        cmocka_unit_test(the_resolved_text_reads_back_to_the_same),
        cmocka_unit_test(the_documentation_holds_the_schema),
        cmocka_unit_test(a_file_that_cannot_be_read_is_named),
        cmocka_unit_test(names_go_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
