/* Layout, initialisation, stochastic depth and memory plan: what a run rests on before its first step. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/input/stochastic_depth.h"
#include "src/model/memory_plan.h"
#include "src/model/parameters.h"

static struct config small_config(enum attention_kind kind, double layer_scale)
{
    struct config config = {0};
    config.model.image_size = 16;
    config.model.patch_size = 4;
    config.model.dim = 48;
    config.model.depth = 3;
    config.model.heads = 3;
    config.model.classes = 7;
    config.model.mlp_ratio = 4;
    config.model.layer_scale = layer_scale;
    config.attention.kind = kind;
    return config;
}

static void plan(struct parameters *parameters, enum attention_kind kind, double layer_scale)
{
    struct error error;
    struct config config = small_config(kind, layer_scale);
    assert_true(parameters_plan(parameters, &config, 3, &error));
}

static const struct parameter *find(const struct parameters *parameters, const char *name)
{
    for (size_t i = 0; i < parameters->count; i++)
        if (strcmp(parameters->list[i].name, name) == 0)
            return &parameters->list[i];
    fail_msg("no parameter %s", name);
    return NULL;
}

static void tensors_tile_the_buffer(void **state)
{
    (void)state;
    for (enum attention_kind kind = 0; kind < ATTENTION_KINDS; kind++) {
        struct parameters parameters;
        size_t next = 0;
        plan(&parameters, kind, 0.1);
        for (size_t i = 0; i < parameters.count; i++) {
            assert_int_equal(parameters.list[i].offset, next);
            next = (next + parameters.list[i].count + 63) / 64 * 64;
        }
        assert_int_equal(parameters.total, next);
        parameters_free(&parameters);
    }
}

static void names_and_shapes_are_timms(void **state)
{
    (void)state;
    struct parameters parameters;
    plan(&parameters, ATTENTION_QKNORM_DS, 0.1);
    const struct {
        const char *name;
        size_t shape[4];
        bool decay;
    } expected[] = {
        {"cls_token", {1, 1, 48}, false},
        {"pos_embed", {1, 17, 48}, false},
        {"patch_embed.proj.weight", {48, 3, 4, 4}, true},
        {"blocks.2.attn.qkv.weight", {144, 48}, true},
        {"blocks.0.attn.q_scale", {16}, false},
        {"blocks.1.mlp.fc2.weight", {48, 192}, true},
        {"blocks.2.ls2.gamma", {48}, false},
        {"head.bias", {7}, false},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const struct parameter *parameter = find(&parameters, expected[i].name);
        assert_memory_equal(parameter->shape, expected[i].shape, sizeof expected[i].shape);
        assert_int_equal(parameter->decay, expected[i].decay);
    }
    parameters_free(&parameters);
}

/* Each kind's own parameters of a block, in their order there, with their size and first value. */
static void kinds_learn_their_extras(void **state)
{
    (void)state;
    const struct {
        enum attention_kind kind;
        const char *name;
        size_t count;
        float start;
    } expected[] = {
        {ATTENTION_QKNORM, "blocks.1.attn.q_norm.weight", 16, 1},
        {ATTENTION_QKNORM, "blocks.1.attn.q_norm.bias", 16, 0},
        {ATTENTION_QKNORM, "blocks.1.attn.k_norm.weight", 16, 1},
        {ATTENTION_QKNORM, "blocks.1.attn.k_norm.bias", 16, 0},
        {ATTENTION_QKNORM_HS, "blocks.1.attn.scale", 3, 4},
        {ATTENTION_QKNORM_DS, "blocks.1.attn.q_scale", 16, 2},
        {ATTENTION_QKNORM_DS, "blocks.1.attn.k_scale", 16, 2},
    };
    size_t next = 0;
    for (enum attention_kind kind = 0; kind < ATTENTION_KINDS; kind++) {
        struct parameters parameters;
        plan(&parameters, kind, 0);
        float *master = malloc(parameters.total * sizeof(float));
        parameters_initialise(&parameters, master, 1);
        size_t first = (size_t)(find(&parameters, "blocks.1.attn.proj.bias") - parameters.list) + 1;
        for (const struct parameter *extra = &parameters.list[first]; !strstr(extra->name, "qkv"); extra++, next++) {
            assert_true(next < sizeof expected / sizeof *expected);
            assert_int_equal(kind, expected[next].kind);
            assert_string_equal(extra->name, expected[next].name);
            assert_int_equal(extra->count, expected[next].count);
            assert_true(master[extra->offset] == expected[next].start);
        }
        free(master);
        parameters_free(&parameters);
    }
    assert_int_equal(next, sizeof expected / sizeof *expected);
}

static void initialisation_has_timms_moments(void **state)
{
    (void)state;
    struct parameters parameters;
    plan(&parameters, ATTENTION_QKNORM_DS, 0.1);
    size_t bytes = parameters.total * sizeof(float);
    float *master = malloc(bytes), *again = malloc(bytes);
    parameters_initialise(&parameters, master, 1);
    parameters_initialise(&parameters, again, 1);
    assert_memory_equal(master, again, bytes);
    parameters_initialise(&parameters, again, 2);
    assert_memory_not_equal(master, again, bytes);

    const struct parameter *weight = find(&parameters, "blocks.1.mlp.fc1.weight");
    double sum = 0, squares = 0;
    for (size_t i = 0; i < weight->count; i++) {
        double x = (double)master[weight->offset + i];
        sum += x;
        squares += x * x;
    }
    assert_true(fabs(sum / (double)weight->count) < 0.001);
    assert_true(fabs(sqrt(squares / (double)weight->count) - 0.02) < 0.001);
    const struct parameter *patch = find(&parameters, "patch_embed.proj.weight");
    float largest = 0;
    for (size_t i = 0; i < patch->count; i++)
        largest = fmaxf(largest, fabsf(master[patch->offset + i]));
    assert_true(largest <= 1 / sqrtf(48) && largest > 0.9f / sqrtf(48));
    assert_true(master[find(&parameters, "blocks.0.attn.k_scale")->offset] == 2.0f); /* 16^(1/4) */
    assert_true(master[find(&parameters, "blocks.0.ls1.gamma")->offset] == 0.1f);
    free(master);
    free(again);
    parameters_free(&parameters);
}

static void decay_mask_follows_the_tensors(void **state)
{
    (void)state;
    struct parameters parameters;
    plan(&parameters, ATTENTION_QUEST, 0);
    uint8_t *decay = malloc(parameters.total / 64);
    parameters_decay_mask(&parameters, decay);
    for (size_t i = 0; i < parameters.count; i++)
        for (size_t at = 0; at < parameters.list[i].count; at += 64)
            assert_int_equal(decay[(parameters.list[i].offset + at) / 64], parameters.list[i].decay);
    free(decay);
    parameters_free(&parameters);
}

static void groups_of_numbers_know_their_tensor(void **state)
{
    (void)state;
    struct parameters parameters;
    plan(&parameters, ATTENTION_QKNORM, 0.1);
    uint32_t *first = malloc((parameters.count + 1) * sizeof *first);
    uint16_t *of = malloc(parameters.total / 64 * sizeof *of);
    parameters_tensor_groups(&parameters, first, of);
    for (size_t i = 0; i < parameters.count; i++) {
        assert_int_equal(64 * first[i], parameters.list[i].offset);
        assert_true(64 * first[i + 1] >= parameters.list[i].offset + parameters.list[i].count);
        for (size_t group = first[i]; group < first[i + 1]; group++)
            assert_int_equal(of[group], i);
    }
    assert_int_equal(64 * first[parameters.count], parameters.total);
    free(first);
    free(of);
    parameters_free(&parameters);
}

static void check_dropped_paths(const struct stochastic_depth *options, const double *rates)
{
    enum { IMAGES = 4000 };
    float *scale = malloc(2 * options->depth * IMAGES * sizeof *scale);
    float *shifted = malloc(2 * options->depth * IMAGES * sizeof *shifted);
    uint64_t *positions = malloc(IMAGES * sizeof *positions);
    for (uint64_t i = 0; i < IMAGES; i++)
        positions[i] = i;
    stochastic_depth_draw(scale, options, IMAGES, 7, positions, IMAGES);
    stochastic_depth_draw(shifted, options, IMAGES, 7, positions + 5, IMAGES - 5);
    for (size_t branch = 0; branch < 2 * options->depth; branch++) {
        double drop = rates[branch / 2], kept = 0;
        for (size_t i = 0; i < IMAGES; i++) {
            float value = scale[branch * IMAGES + i];
            assert_true(value == 0.0f || fabs((double)value - 1 / (1 - drop)) < 1e-6);
            kept += value > 0;
            if (i >= 5) /* an image's draw depends on its position only */
                assert_true(value == shifted[branch * IMAGES + i - 5]);
        }
        assert_true(fabs(kept / IMAGES - (1 - drop)) < 0.03);
    }
    free(scale);
    free(shifted);
    free(positions);
}

static void dropped_paths_have_the_right_rate_and_scale(void **state)
{
    (void)state;
    check_dropped_paths(&(struct stochastic_depth){DROP_PATH_LINEAR, 0.4, 3}, (double[]){0, 0.2, 0.4});
    check_dropped_paths(&(struct stochastic_depth){DROP_PATH_CONSTANT, 0.4, 3}, (double[]){0.4, 0.4, 0.4});
    check_dropped_paths(&(struct stochastic_depth){DROP_PATH_LINEAR, 0.4, 1}, (double[]){0.4});
}

/* 100 MiB and 100 an image, but 32 less from 6 images on: no straight line through 0 leads to what fits. */
static bool plan_of_test(void *owner, size_t batch, struct memory_plan *plan, struct error *error)
{
    (void)owner, (void)error;
    memory_plan_add(plan, "parameters", 100 << 20);
    memory_plan_add(plan, "activations", batch * (100 << 20) - (batch > 5 ? 32 << 20 : 0));
    return true;
}

static void memory_plan_says_which_batch_fits(void **state)
{
    (void)state;
    struct memory_plan memory = {0};
    struct error error;
    plan_of_test(NULL, 8, &memory, &error);
    struct memory_wish wish = {.plan = &memory, .batch = 8, .batch_share = 6, .plan_for = plan_of_test};
    assert_int_equal(memory_plan_total(&memory), 868 << 20);
    assert_true(memory_plan_check(&wish, 868 << 20, "GPU 0", &error));
    assert_false(memory_plan_check(&wish, 550 << 20, "GPU 0", &error));
    assert_int_equal(error.status, ERROR_INPUT);
    assert_non_null(strstr(error.message, "318 MiB more"));
    assert_non_null(strstr(error.message, ": 4 images a rank and micro-step fit, 24 a step, not 8 and 48;"));
    assert_false(memory_plan_check(&wish, 768 << 20, "GPU 0", &error));
    assert_non_null(strstr(error.message, ": 7 images a rank"));
    assert_false(memory_plan_check(&wish, 200 << 20, "GPU 0", &error));
    assert_non_null(strstr(error.message, ": 1 images a rank"));
    assert_false(memory_plan_check(&wish, 199 << 20, "GPU 0", &error));
    assert_non_null(
        strstr(error.message, "and 200 MiB even for one image a rank and micro-step; take a smaller model"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_tile_the_buffer),
        cmocka_unit_test(names_and_shapes_are_timms),
        cmocka_unit_test(kinds_learn_their_extras),
        cmocka_unit_test(initialisation_has_timms_moments),
        cmocka_unit_test(decay_mask_follows_the_tensors),
        cmocka_unit_test(groups_of_numbers_know_their_tensor),
        cmocka_unit_test(dropped_paths_have_the_right_rate_and_scale),
        cmocka_unit_test(memory_plan_says_which_batch_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
