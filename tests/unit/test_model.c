/* The whole model on the CPU: its gradient against central differences, and what the trainer relies on. */
#include <math.h>

#include "src/config/load.h"
#include "tests/unit/model_test.h"

/* Keeps each prefix as it was announced, to see that it did not change afterwards. */
struct prefix_check {
    struct model *model;
    float *announced;
    size_t done, calls;
};

static bool remember(void *owner, size_t done, struct error *error)
{
    (void)error;
    struct prefix_check *check = owner;
    assert_true(done >= check->done && done <= check->model->parameters.total);
    memcpy(check->announced + check->done, check->model->gradient + check->done, (done - check->done) * sizeof(float));
    check->done = done;
    check->calls++;
    return true;
}

static void announced_gradients_are_final(void **state)
{
    (void)state;
    for (int layer_scale = 0; layer_scale < 2; layer_scale++) {
        struct fixture fixture;
        open_fixture(&fixture, ATTENTION_QKNORM, layer_scale ? 0.3 : 0, false);
        size_t total = fixture.model->parameters.total;
        struct prefix_check check = {fixture.model, malloc(total * sizeof(float)), 0, 0};
        float *gradient = gradient_of(&fixture, remember, &check);
        assert_int_equal(check.done, total);
        assert_true(check.calls > 4 * DEPTH);
        assert_memory_equal(check.announced, gradient, total * sizeof(float));
        free(gradient);
        free(check.announced);
        close_fixture(&fixture);
    }
}

/* Along a random direction u of one tensor: (L(x + e u) - L(x - e u)) / 2 e = g.u */
static void check_direction(struct fixture *fixture, const struct parameter *parameter, const float *gradient)
{
    struct error error;
    const float step = 4e-3f;
    size_t bytes = fixture->model->parameters.total * sizeof(float);
    float *moved = malloc(bytes);
    double expected = 0, length = 0, sides[2];
    for (int side = 0; side < 2; side++) {
        memcpy(moved, fixture->master, bytes);
        for (size_t i = 0; i < parameter->count; i++) {
            uint32_t bits[4];
            random_bits(bits, 11, random_stream(parameter->name), i);
            float g = gradient[parameter->offset + i];
            float direction = (bits[0] & 1 ? 1.0f : -1.0f) / sqrtf((float)parameter->count);
            moved[parameter->offset + i] += (side ? -step : step) * direction;
            if (side == 0) {
                expected += (double)(g * direction);
                length += (double)(g * g);
            }
        }
        assert_true(model_set_parameters(fixture->model, moved, &error));
        sides[side] = loss_of(fixture, true);
    }
    double measured = (sides[0] - sides[1]) / (2 * (double)step);
    if (fabs(measured - expected) > 1e-3 + 0.02 * sqrt(length))
        fail_msg("%s: central difference %g, gradient %g (length %g)", parameter->name, measured, expected,
                 sqrt(length));
    free(moved);
}

static void gradient_matches_central_differences(void **state)
{
    (void)state;
    for (enum attention_kind kind = 0; kind < ATTENTION_KINDS; kind++) {
        struct fixture fixture;
        open_fixture(&fixture, kind, kind % 2 ? 0.5 : 0, false);
        float *gradient = gradient_of(&fixture, NULL, NULL);
        for (size_t i = 0; i < fixture.model->parameters.count; i++)
            check_direction(&fixture, &fixture.model->parameters.list[i], gradient);
        free(gradient);
        close_fixture(&fixture);
    }
}

static void compare_recomputation(enum dtype dtype, double layer_scale)
{
    float *gradients[2];
    size_t bytes = 0;
    for (int recompute = 0; recompute < 2; recompute++) {
        struct fixture fixture;
        configure_fixture(&fixture, ATTENTION_QUEST, DEPTH, layer_scale);
        fixture.config.train.recompute = recompute;
        fixture.config.train.precision = dtype;
        open_configured(&fixture);
        bytes = fixture.model->parameters.total * sizeof(float);
        gradients[recompute] = gradient_of(&fixture, NULL, NULL);
        close_fixture(&fixture);
    }
    assert_memory_equal(gradients[0], gradients[1], bytes);
    free(gradients[0]);
    free(gradients[1]);
}

/* What a step leaves in the gradient does not get into the next: it is zeroed, or overwritten by the first backward
 * pass and added to by the second. */
static void every_step_begins_with_a_new_gradient(void **state)
{
    (void)state;
    struct fixture fixture;
    struct error error;
    open_fixture(&fixture, ATTENTION_QKNORM_DS, 0.3, false);
    struct model *model = fixture.model;
    float *first = gradient_of(&fixture, NULL, NULL);
    for (size_t i = 0; i < model->parameters.count; i++) {
        const struct parameter *parameter = &model->parameters.list[i];
        memset(model->gradient + parameter->offset, 0xff, parameter->count * sizeof(float)); /* NaN */
    }
    float *second = gradient_of(&fixture, NULL, NULL);
    assert_memory_equal(first, second, model->parameters.total * sizeof(float));
    loss_of(&fixture, true);
    assert_true(model_backward(model, BATCH, true, NULL, NULL, &error));
    for (size_t i = 0; i < model->parameters.total; i++)
        if (!(fabsf(model->gradient[i] - 2 * first[i]) <= 1e-5f * (1 + fabsf(first[i]))))
            fail_msg("number %zu: %g after two passes, %g after one", i, (double)model->gradient[i], (double)first[i]);
    free(first);
    free(second);
    close_fixture(&fixture);
}

static void recomputation_changes_no_bit(void **state)
{
    struct context *context;
    struct error error;
    struct context_options options = {
        .dtype = DTYPE_BFLOAT16,
        .threads = 1,
        .workload = {.batch = 1, .patches = 4, .patch_dim = 16, .dim = 16, .hidden = 16, .heads = 1, .classes = 2}};
    bool bfloat16 = kernels_cpu()->open(&context, &options, &error); /* else this CPU has none */
    (void)state;
    if (bfloat16)
        kernels_cpu()->close(context);
    for (int dtype = DTYPE_FLOAT32; dtype <= (bfloat16 ? DTYPE_BFLOAT16 : DTYPE_FLOAT32); dtype++)
        for (int layer_scale = 0; layer_scale < 2; layer_scale++)
            compare_recomputation((enum dtype)dtype, layer_scale ? 0.3 : 0);
}

/* Finite numbers from `offset` on that overflow, found where it first shows in block 0 or 1, not where it ends. */
static void expect_nonfinite(size_t block, size_t offset, size_t count, float value, const char *expected)
{
    struct fixture fixture;
    struct error error;
    bool found;
    char name[128];
    long layer = -1;
    open_fixture(&fixture, ATTENTION_QUEST, 0, false);
    loss_of(&fixture, false);
    assert_true(model_find_nonfinite(fixture.model, BATCH, &found, name, sizeof name, &layer, &error));
    assert_false(found);
    for (size_t i = 0; i < count; i++)
        fixture.master[offset + i] = value;
    assert_true(model_set_parameters(fixture.model, fixture.master, &error));
    loss_of(&fixture, false);
    assert_true(model_find_nonfinite(fixture.model, BATCH, &found, name, sizeof name, &layer, &error));
    assert_true(found);
    assert_string_equal(name, expected);
    assert_int_equal(layer, (long)block);
    close_fixture(&fixture);
}

/* Kept or made again for the search. */
static void first_nonfinite_tensor_is_named(void **state)
{
    (void)state;
    struct fixture fixture;
    char expected[64];
    open_fixture(&fixture, ATTENTION_QUEST, 0, false);
    for (size_t block = 0; block < DEPTH; block++) {
        const struct block_offsets at = fixture.model->parameters.blocks[block];
        const struct {
            size_t offset, count;
            float value;
            const char *what;
        } cases[] = {
            {at.norm1_weight, 32, 3e38f, "norm1 output"}, {at.qkv_weight, 32, 3e38f, "attn.qkv output"},
            {at.norm2_weight, 32, 3e38f, "norm2 output"}, {at.fc1_weight, 32, 3e38f, "mlp.fc1 output"},
            {at.fc1_bias, 128, INFINITY, "mlp.fc1.bias"}, {at.fc2_weight, 32 * 128, 3e38f, "residual after mlp"}};
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            snprintf(expected, sizeof expected, "blocks.%zu.%s", block, cases[i].what);
            expect_nonfinite(block, cases[i].offset, cases[i].count, cases[i].value, expected);
        }
    }
    close_fixture(&fixture);
}

/* fc1's bias is added by GELU: its product is finite, the sum is not. */
static void an_overflow_in_gelu_is_found_there(void **state)
{
    (void)state;
    struct fixture fixture;
    struct error error;
    bool found;
    char name[128];
    long layer = -1;
    open_fixture(&fixture, ATTENTION_QUEST, 0, false);
    struct model *model = fixture.model;
    loss_of(&fixture, false);
    *(float *)model->blocks[1].hidden = 3e38f;
    model->master[model->parameters.blocks[1].fc1_bias] = 3e38f;
    assert_true(model_find_nonfinite(model, BATCH, &found, name, sizeof name, &layer, &error));
    assert_true(found);
    assert_string_equal(name, "blocks.1.mlp.act output");
    close_fixture(&fixture);
}

static void plan_grows_with_the_batch_and_shrinks_by_recomputation(void **state)
{
    (void)state;
    struct fixture fixture;
    struct error error;
    struct memory_plan small = {0}, large = {0}, recomputed = {0};
    open_fixture(&fixture, ATTENTION_QUEST, 0, false);
    struct model_options options = model_options(&fixture);
    assert_true(model_plan(&small, &options, &error));
    options.batch = 10 * BATCH;
    assert_true(model_plan(&large, &options, &error));
    fixture.config.train.recompute = true;
    assert_true(model_plan(&recomputed, &options, &error));
    assert_true(memory_plan_total(&large) > memory_plan_total(&small));
    assert_true(memory_plan_total(&recomputed) < memory_plan_total(&large));
    close_fixture(&fixture);
}

/* bfloat16 on a GPU: the CPU's workspace and program left out, CUDA's workspace, the input's two batches and the
 * reserve counted. */
static size_t bytes_on_gpu(const char *preset, size_t batch)
{
    struct error error;
    struct config config;
    struct memory_plan plan = {0};
    char text[128];
    snprintf(text, sizeof text, "model: {preset: %s, classes: 1000}\ntrain: {precision: bf16}\n", preset);
    assert_true(config_parse_model(&config, text, strlen(text), "a test", &error));
    struct model_options options = {
        .kernels = kernels_cpu(), .config = &config, .channels = 3, .batch = batch, .training = true, .threads = 1};
    assert_true(model_plan(&plan, &options, &error));
    size_t bytes = ((size_t)33 << 20) + 2 * batch * (224 * 224 * 3 + sizeof(int32_t)) + memory_reserve_bytes(1);
    for (size_t i = 0; i < plan.count; i++)
        bytes += strcmp(plan.groups[i].name, "workspace") == 0 ? 0 : plan.groups[i].bytes;
    return bytes;
}

/* A card of 80 GB has 79 GiB for a run. What a block keeps is 10 activations' worth. */
static void vit_large_trains_750_images_on_80_gb(void **state)
{
    (void)state;
    assert_true(bytes_on_gpu("vit_large", 750) < (size_t)79 << 30);
    assert_true(bytes_on_gpu("vit_base", 2100) < (size_t)79 << 30);
    size_t row = 197 * 1024 * sizeof(uint16_t), image = bytes_on_gpu("vit_large", 2) - bytes_on_gpu("vit_large", 1);
    assert_true(image > 23 * 10 * row && image < 25 * 10 * row);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(announced_gradients_are_final),
        cmocka_unit_test(gradient_matches_central_differences),
        cmocka_unit_test(recomputation_changes_no_bit),
        cmocka_unit_test(every_step_begins_with_a_new_gradient),
        cmocka_unit_test(first_nonfinite_tensor_is_named),
        cmocka_unit_test(an_overflow_in_gelu_is_found_there),
        cmocka_unit_test(vit_large_trains_750_images_on_80_gb),
        cmocka_unit_test(plan_grows_with_the_batch_and_shrinks_by_recomputation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
