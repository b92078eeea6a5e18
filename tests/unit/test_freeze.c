/* Frozen parameters: what is trained beside them has the gradient of a model in which all is, bit for bit; they have
 * none, no product is computed for them, and an update leaves their bits. */
#include <math.h>
#include <stdio.h>

#include "src/optimiser/update.h"
#include "tests/unit/model_test.h"

static const char *const freezes[] = {"", "0", "1", "2", "all_but_head"};
enum { FREEZES = sizeof freezes / sizeof freezes[0] };

static bool is_frozen(const char *freeze, const char *name)
{
    int block = -1, blocks = atoi(freeze);
    (void)sscanf(name, "blocks.%d.", &block);
    if (strcmp(freeze, "all_but_head") == 0)
        return strncmp(name, "head.", 5) != 0;
    if (!freeze[0] || strncmp(name, "head.", 5) == 0 || strncmp(name, "norm.", 5) == 0)
        return false;
    return block < blocks;
}

static void open_frozen(struct fixture *fixture, const char *freeze, double layer_scale, bool recompute)
{
    configure_fixture(fixture, ATTENTION_QKNORM_DS, DEPTH, layer_scale);
    fixture->config.train.recompute = recompute;
    snprintf(fixture->config.model.freeze, sizeof fixture->config.model.freeze, "%s", freeze);
    open_configured(fixture);
}

static bool count_up(void *owner, size_t done, struct error *error)
{
    (void)error;
    size_t *last = owner;
    assert_true(done >= *last);
    *last = done;
    return true;
}

static void compare_tensors(const struct fixture *fixture, const char *freeze, const float *gradient,
                            const float *whole)
{
    size_t frozen = 0;
    for (size_t i = 0; i < fixture->model->parameters.count; i++) {
        const struct parameter *parameter = &fixture->model->parameters.list[i];
        const float *own = gradient + parameter->offset;
        size_t bytes = parameter->count * sizeof(float);
        bool none = is_frozen(freeze, parameter->name);
        frozen += none;
        assert_int_equal(none, parameter->offset >= fixture->model->parameters.trained);
        if (!none && memcmp(own, whole + parameter->offset, bytes) != 0)
            fail_msg("freeze '%s': the gradient of %s differs", freeze, parameter->name);
        for (size_t k = 0; none && k < parameter->count; k++)
            if (own[k] != 0)
                fail_msg("freeze '%s': %s has a gradient", freeze, parameter->name);
    }
    assert_int_equal(frozen > 0, freeze[0] != '\0');
}

static void the_rest_has_the_gradient_of_a_model_without_frozen_parts(void **state)
{
    (void)state;
    for (int variant = 0; variant < 4; variant++) {
        float *whole = NULL;
        for (size_t i = 0; i < FREEZES; i++) {
            struct fixture fixture;
            size_t announced = 0;
            open_frozen(&fixture, freezes[i], variant & 1 ? 0.3 : 0, variant & 2);
            float *gradient = gradient_of(&fixture, count_up, &announced);
            assert_int_equal(announced, fixture.model->parameters.trained);
            whole = whole ? whole : gradient;
            compare_tensors(&fixture, freezes[i], gradient, whole);
            if (gradient != whole)
                free(gradient);
            close_fixture(&fixture);
        }
        free(whole);
    }
}

/* Adam moves by the learning rate whatever the size of a gradient, and decay moves what has none. */
static void an_update_leaves_what_is_frozen(void **state)
{
    (void)state;
    for (size_t i = 0; i < FREEZES; i++) {
        struct fixture fixture;
        struct error error;
        open_frozen(&fixture, freezes[i], 0.3, false);
        struct model *model = fixture.model;
        fixture.config.optim.weight_decay = 0.5;
        fixture.config.optim.beta1 = 0.9;
        fixture.config.optim.beta2 = 0.999;
        fixture.config.optim.eps = 1e-8;
        for (uint64_t step = 1; step <= 3; step++) {
            struct update update = {.step = step, .lr = 0.1};
            double squares = 0;
            float *gradient = gradient_of(&fixture, NULL, NULL);
            for (size_t k = 0; k < model->parameters.trained; k++)
                squares += (double)gradient[k] * (double)gradient[k];
            free(gradient);
            assert_true(update_measure_gradient(model, step, true, &error) &&
                        update_parameters(model, &fixture.config, &update, &error));
            assert_true(fabs(update_sums(model, step)[0] - squares) < 1e-12 * squares);
            for (size_t block = 0; block < DEPTH; block++)
                assert_int_equal(update_sums(model, step)[1 + block] == 0, block < model->parameters.frozen_blocks);
        }
        for (size_t k = 0; k < model->parameters.count; k++) {
            const struct parameter *parameter = &model->parameters.list[k];
            bool same = memcmp(model->master + parameter->offset, fixture.master + parameter->offset,
                               parameter->count * sizeof(float)) == 0;
            if (same != is_frozen(freezes[i], parameter->name))
                fail_msg("freeze '%s': %s %s", freezes[i], parameter->name, same ? "stayed" : "changed");
        }
        close_fixture(&fixture);
    }
}

/* ---- what the backward pass computes ---- */

static size_t products;
static double product_flops;

static bool count_backward(struct context *ctx, const struct linear_backward *op, struct error *error)
{
    size_t halves = (op->in_gradient != NULL) + (op->weight_gradient != NULL);
    products += halves;
    product_flops += 2.0 * (double)(halves * op->rows * op->in_dim * op->out_dim);
    return kernels_cpu()->linear_backward(ctx, op, error);
}

static void no_product_is_computed_for_what_is_frozen(void **state)
{
    (void)state;
    /* head 2; a block 8, the last one 10 (query beside key and value); the patches' weights 1 */
    static const size_t expected[FREEZES] = {2 + 10 + 8 + 1, 2 + 10 + 8, 2 + 10, 2, 1};
    for (size_t i = 0; i < FREEZES; i++) {
        struct fixture fixture;
        struct error error;
        struct kernels counting = *kernels_cpu();
        counting.linear_backward = count_backward;
        open_frozen(&fixture, freezes[i], 0, false);
        fixture.model->kernels = &counting;
        products = 0;
        product_flops = 0;
        assert_true(model_zero_gradient(fixture.model, &error));
        loss_of(&fixture, true);
        assert_true(model_backward(fixture.model, BATCH, true, NULL, NULL, &error));
        assert_int_equal(products, expected[i]);
        double both = model_training_flops(fixture.model), forward = model_forward_flops(fixture.model);
        assert_true(freezes[i][0] ? both < 3 * forward && both > forward : both == 3 * forward);
        if (i == FREEZES - 1) /* of two halves of the head's product one is computed */
            assert_true((both - forward) * BATCH == 2 * product_flops);
        close_fixture(&fixture);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rest_has_the_gradient_of_a_model_without_frozen_parts),
        cmocka_unit_test(an_update_leaves_what_is_frozen),
        cmocka_unit_test(no_product_is_computed_for_what_is_frozen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
