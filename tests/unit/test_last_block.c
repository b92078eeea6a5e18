/* The last block of a model computes for CLS alone what nothing else reads: the same logits and gradients as a block
 * over all tokens, statistics of all tokens that change no bit, its memory, and the FLOP that are saved. */
#include <math.h>

#include "kernels/attention_kinds.h"
#include "src/config/load.h"
#include "src/model/blocks.h"
#include "tests/unit/model_test.h"

/* ---- beside a block over all tokens ---- */

/* |a - b| / |b| of one tensor; `floor` is added to |b|. */
static double distance(const float *a, const float *b, size_t count, double floor)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < count; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    return sqrt(difference) / (sqrt(size) + floor);
}

static const struct parameter *parameter_named(const struct model *model, const char *name)
{
    for (size_t i = 0; i < model->parameters.count; i++)
        if (strcmp(model->parameters.list[i].name, name) == 0)
            return &model->parameters.list[i];
    fail_msg("no parameter %s", name);
    return NULL;
}

/* Gives `deep` the parameters of `shallow`, and has both branches of its second block dropped for every image: then
 * that block hands on what the first one made of all tokens, and both models compute the same. */
static void make_equal(struct fixture *deep, const struct fixture *shallow)
{
    struct error error;
    for (size_t i = 0; i < shallow->model->parameters.count; i++) {
        const struct parameter *from = &shallow->model->parameters.list[i];
        memcpy(deep->master + parameter_named(deep->model, from->name)->offset, shallow->master + from->offset,
               from->count * sizeof(float));
    }
    assert_true(model_set_parameters(deep->model, deep->master, &error));
    for (size_t i = 0; i < (size_t)2 * BATCH; i++)
        deep->path_scale[2 * BATCH + i] = 0;
}

static void compare_with_all_tokens(enum attention_kind kind, double layer_scale)
{
    struct fixture shallow, deep;
    configure_fixture(&shallow, kind, 1, layer_scale);
    configure_fixture(&deep, kind, 2, layer_scale);
    open_configured(&shallow);
    open_configured(&deep);
    make_equal(&deep, &shallow);
    float *of_cls = gradient_of(&shallow, NULL, NULL), *of_all = gradient_of(&deep, NULL, NULL);
    double whole = 0;
    for (size_t i = 0; i < deep.model->parameters.total; i++)
        whole += (double)of_all[i] * of_all[i];
    double apart = distance(shallow.model->logits, deep.model->logits, (size_t)BATCH * CLASSES, 0);
    if (!(apart <= 2e-6))
        fail_msg("%s: logits are %g apart", attention_kind_names[kind], apart);
    for (size_t i = 0; i < shallow.model->parameters.count; i++) {
        const struct parameter *parameter = &shallow.model->parameters.list[i];
        const float *expected = of_all + parameter_named(deep.model, parameter->name)->offset;
        /* Some gradients are zero but for rounding (docs/mathematics.md): against the whole gradient's size. */
        apart = distance(of_cls + parameter->offset, expected, parameter->count, 1e-2 * sqrt(whole));
        if (!(apart <= 1e-5))
            fail_msg("%s: the gradient of %s is %g apart", attention_kind_names[kind], parameter->name, apart);
    }
    free(of_cls);
    free(of_all);
    close_fixture(&shallow);
    close_fixture(&deep);
}

static void the_same_as_a_block_over_all_tokens(void **state)
{
    (void)state;
    for (enum attention_kind kind = 0; kind < ATTENTION_KINDS; kind++)
        for (int layer_scale = 0; layer_scale < 2; layer_scale++)
            compare_with_all_tokens(kind, layer_scale ? 0.5 : 0);
}

/* ---- statistics ---- */

static void reset(struct model *model)
{
    for (size_t i = 0; i < model->depth * model->heads; i++) {
        double *record = model->statistics + i * ATTENTION_STATISTICS;
        memset(record, 0, ATTENTION_STATISTICS * sizeof *record);
        record[STATISTIC_Q_MIN] = record[STATISTIC_K_MIN] = record[STATISTIC_ENTROPY_MIN] = INFINITY;
        record[STATISTIC_LOGIT_MAX] = -INFINITY;
    }
}

/* The gradient of one step, with statistics or without. */
static float *step_gradient(struct fixture *fixture, bool with_statistics)
{
    struct error error;
    struct model *model = fixture->model;
    size_t bytes = model->parameters.total * sizeof(float);
    float *gradient = malloc(bytes);
    const struct model_targets targets = {fixture->labels, true, {.smoothing = 0.1f}};
    model->draws.path_scale = fixture->path_scale;
    reset(model);
    assert_true(model_zero_gradient(model, &error) &&
                model_forward(model, fixture->pixels, BATCH, true, with_statistics, &error) &&
                model_loss(model, &targets, BATCH, 1.0f, &error) &&
                model_backward(model, BATCH, true, NULL, NULL, &error));
    memcpy(gradient, model->gradient, bytes);
    return gradient;
}

/* What whole attention says of the last block's input. The projection is bfloat16's or float32's own. */
static void expect_last(double *expected, struct model *model)
{
    struct error error;
    const struct block_offsets *at = &model->parameters.blocks[model->depth - 1];
    struct attention_shape shape = model_attention_shape(model, BATCH);
    struct attention_parameters extras = model_attention_parameters(model, model->depth - 1);
    size_t rows = BATCH * model->tokens, width = dtype_bytes(model->dtype);
    void *qkv = NULL, *out = NULL, *logsumexp = NULL;
    assert_true(model->kernels->allocate(model->context, &qkv, 3 * rows * model->dim * width, "qkv", &error) &&
                model->kernels->allocate(model->context, &out, rows * model->dim * width, "out", &error) &&
                model->kernels->allocate(model->context, &logsumexp, rows * model->heads * 4, "logsumexp", &error));
    struct linear_forward product = {.out = qkv,
                                     .in = model->block_normed,
                                     .weight = model_working(model, at->qkv_weight),
                                     .bias = model_working(model, at->qkv_bias),
                                     .rows = rows,
                                     .in_dim = model->dim,
                                     .out_dim = 3 * model->dim};
    assert_true(
        block_norm1(model, model->depth - 1, BATCH, &error) &&
        model->kernels->linear_forward(model->context, &product, &error) &&
        model->kernels->attention_forward(model->context, out, logsumexp, qkv, &extras, expected, &shape, &error));
    model->kernels->release(model->context, qkv);
    model->kernels->release(model->context, out);
    model->kernels->release(model->context, logsumexp);
}

static void statistics_are_of_all_tokens_and_change_no_bit(void **state)
{
    (void)state;
    for (enum attention_kind kind = 0; kind < ATTENTION_KINDS; kind++)
        for (int recompute = 0; recompute < 2; recompute++) {
            struct fixture fixture;
            double expected[2 * ATTENTION_STATISTICS], *last;
            open_fixture(&fixture, kind, kind % 2 ? 0.3 : 0, recompute);
            float *without = step_gradient(&fixture, false), *with = step_gradient(&fixture, true);
            assert_memory_equal(with, without, fixture.model->parameters.total * sizeof(float));
            last = model_statistics(fixture.model, DEPTH - 1);
            double record[2 * ATTENTION_STATISTICS];
            memcpy(record, last, sizeof record);
            assert_true(record[STATISTIC_Q_MIN] < record[STATISTIC_Q_MAX]);
            loss_of(&fixture, true); /* under recomputation the backward pass has used the input for another block */
            reset(fixture.model);
            memcpy(expected, last, sizeof expected);
            expect_last(expected, fixture.model);
            assert_memory_equal(record, expected, sizeof record);
            free(with);
            free(without);
            close_fixture(&fixture);
        }
}

static void statistics_need_a_model_in_training(void **state)
{
    (void)state;
    struct fixture fixture;
    struct error error;
    struct model *model;
    configure_fixture(&fixture, ATTENTION_QUEST, DEPTH, 0);
    struct model_options options = model_options(&fixture);
    options.training = false;
    assert_true(model_open(&model, &options, &error));
    assert_true(model_forward(model, fixture.pixels, BATCH, false, false, &error));
    assert_false(model_forward(model, fixture.pixels, BATCH, false, true, &error));
    assert_non_null(strstr(error.message, "open for training"));
    model_close(model);
}

/* ---- memory ---- */

static size_t activation_bytes(struct fixture *fixture, int64_t depth)
{
    struct error error;
    struct memory_plan plan = {0};
    struct model_options options = model_options(fixture);
    fixture->config.model.depth = depth;
    assert_true(model_plan(&plan, &options, &error));
    assert_string_equal(plan.groups[2].name, "activations");
    return plan.groups[2].bytes;
}

/* Of the 10 numbers a token and channel that a block keeps, the last one keeps keys and values. */
static void the_last_block_keeps_little(void **state)
{
    (void)state;
    struct fixture fixture;
    configure_fixture(&fixture, ATTENTION_QUEST, 1, 0);
    fixture.config.model.image_size = 64;
    size_t one = activation_bytes(&fixture, 1), two = activation_bytes(&fixture, 2),
           three = activation_bytes(&fixture, 3);
    size_t block = three - two, row_bytes = BATCH * 257 * 32 * sizeof(float), pixels = BATCH * 256 * 48 * sizeof(float);
    assert_int_equal(two - one, block);
    assert_true(block > 10 * row_bytes && block < 21 * row_bytes / 2);
    size_t last = one - pixels - 3 * row_bytes; /* patches, projected, embedded, block_normed */
    assert_true(last > 2 * row_bytes && last < 5 * row_bytes / 2);
}

/* ---- FLOP ---- */

static double counted; /* by the ops below, which compute nothing */

static bool count_forward(struct context *ctx, const struct linear_forward *op, struct error *error)
{
    (void)ctx, (void)error;
    counted += 2.0 * (double)(op->rows * op->in_dim * op->out_dim);
    return true;
}

static bool count_backward(struct context *ctx, const struct linear_backward *op, struct error *error)
{
    (void)ctx, (void)error;
    counted += (op->in_gradient && op->weight_gradient ? 4.0 : 2.0) * (double)(op->rows * op->in_dim * op->out_dim);
    return true;
}

static double pair_flops(const struct attention_shape *shape, size_t queries)
{
    return 2.0 * (double)(shape->batch * shape->heads * queries * shape->tokens * shape->head_dim);
}

static bool count_attention_forward(struct context *ctx, void *out, float *logsumexp, const void *qkv,
                                    const struct attention_parameters *parameters, double *statistics,
                                    const struct attention_shape *shape, struct error *error)
{
    (void)ctx, (void)out, (void)logsumexp, (void)qkv, (void)parameters, (void)statistics, (void)error;
    counted += 2 * pair_flops(shape, shape->tokens);
    return true;
}

/* The logits again, dP, dV, dQ and dK. */
static bool count_attention_backward(struct context *ctx, const struct attention_backward *op, struct error *error)
{
    (void)ctx, (void)error;
    counted += 5 * pair_flops(op->shape, op->shape->tokens);
    return true;
}

static bool count_cls_forward(struct context *ctx, const struct attention_cls_forward *op, struct error *error)
{
    (void)ctx, (void)error;
    counted += 2 * pair_flops(op->shape, 1);
    return true;
}

static bool count_cls_backward(struct context *ctx, const struct attention_cls_backward *op, struct error *error)
{
    (void)ctx, (void)error;
    counted += 5 * pair_flops(op->shape, 1);
    return true;
}

/* What one step would take with every block over all tokens: backward takes twice a product's forward, but once for the
 * patches, and five products of attention for two. */
static double whole_step_flops(const struct model *model)
{
    double n = (double)model->tokens, d = (double)model->dim, patches = (double)(model->patches * model->patch_dim) * d;
    double linear = 2 * n * (4 * d * d + 2 * d * (double)model->hidden), attention = 4 * n * n * d;
    return (double)model->depth * (3 * linear + 3.5 * attention) + 4 * patches + 6 * d * (double)model->classes;
}

/* Of one image's step; model_forward_flops must say the same of its forward pass. */
static void check_flops(const char *preset, double most)
{
    struct error error;
    struct config config;
    struct model *model;
    char text[128];
    struct kernels counting = *kernels_cpu();
    counting.linear_forward = count_forward;
    counting.linear_backward = count_backward;
    counting.attention_forward = count_attention_forward;
    counting.attention_backward = count_attention_backward;
    counting.attention_cls_forward = count_cls_forward;
    counting.attention_cls_backward = count_cls_backward;
    snprintf(text, sizeof text, "model: {preset: %s, classes: 1000}\n", preset);
    assert_true(config_parse_model(&config, text, strlen(text), "a test", &error));
    struct model_options options = {
        .kernels = &counting, .config = &config, .channels = 3, .batch = 1, .training = true, .threads = 1};
    assert_true(model_open(&model, &options, &error));
    uint8_t *pixels = calloc(model->patches, model->patch_dim);
    counted = 0;
    assert_true(model_forward(model, pixels, 1, false, false, &error));
    assert_true(counted == model_forward_flops(model));
    assert_true(model_backward(model, 1, false, NULL, NULL, &error));
    double share = counted / whole_step_flops(model);
    print_message("%s: %.4f of the FLOP\n", preset, share);
    assert_true(share <= most && share > 0.9);
    free(pixels);
    model_close(model);
}

static void six_percent_fewer_flop_at_depth_12(void **state)
{
    (void)state;
    check_flops("vit_tiny", 0.94);
    check_flops("vit_small", 0.94);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_as_a_block_over_all_tokens),
        cmocka_unit_test(statistics_are_of_all_tokens_and_change_no_bit),
        cmocka_unit_test(statistics_need_a_model_in_training),
        cmocka_unit_test(the_last_block_keeps_little),
        cmocka_unit_test(six_percent_fewer_flop_at_depth_12),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
