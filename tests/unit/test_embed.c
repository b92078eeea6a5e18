/* embed and the CLS rows on the CPU against float64, forward and backward. */
#include "tests/unit/op_test.h"

static void forward_trial(struct op_test *test)
{
    struct error error;
    size_t batch = random_between(test, 1, 8), patches = random_between(test, 1, 48),
           dim = random_between(test, 1, 320);
    size_t tokens = patches + 1;
    struct tensor *projected = tensor_random(test, batch * patches * dim, test->dtype, 1);
    struct tensor *cls = tensor_random(test, dim, DTYPE_FLOAT32, 1);
    struct tensor *position = tensor_random(test, tokens * dim, DTYPE_FLOAT32, 1);
    struct tensor *out = tensor_zeros(test, batch * tokens * dim, test->dtype);
    struct embed_forward forward = {.out = out->data,
                                    .projected = projected->data,
                                    .cls = cls->data,
                                    .position = position->data,
                                    .batch = batch,
                                    .patches = patches,
                                    .dim = dim};
    assert_ok(test->k->embed_forward(test->ctx, &forward, &error), &error);
    for (size_t b = 0; b < batch; b++)
        for (size_t t = 0; t < tokens; t++)
            for (size_t i = 0; i < dim; i++) {
                double from = t == 0 ? cls->exact[i] : projected->exact[(b * patches + t - 1) * dim + i];
                out->exact[(b * tokens + t) * dim + i] = from + position->exact[t * dim + i];
            }
    assert_close("out", out, out->exact, tolerance(test->dtype));
}

/* The op is linear: its gradients are the transposed sums, and loss = <out_gradient, out> checks them without a step.
 */
static void backward_trial(struct op_test *test)
{
    struct error error;
    size_t batch = random_between(test, 1, 8), patches = random_between(test, 1, 48),
           dim = random_between(test, 1, 320);
    size_t tokens = patches + 1;
    struct tensor *out_gradient = tensor_random(test, batch * tokens * dim, test->dtype, 1);
    struct tensor *projected = tensor_zeros(test, batch * patches * dim, test->dtype);
    struct tensor *cls = tensor_random(test, dim, DTYPE_FLOAT32, 1), *cls_again = tensor_copy(test, cls);
    struct tensor *position = tensor_random(test, tokens * dim, DTYPE_FLOAT32, 1);
    struct tensor *position_again = tensor_copy(test, position);
    struct embed_backward backward = {.projected_gradient = projected->data,
                                      .cls_gradient = cls->data,
                                      .position_gradient = position->data,
                                      .out_gradient = out_gradient->data,
                                      .batch = batch,
                                      .patches = patches,
                                      .dim = dim};
    assert_ok(test->k->embed_backward(test->ctx, &backward, &error), &error);
    backward.cls_gradient = cls_again->data;
    backward.position_gradient = position_again->data;
    assert_ok(test->k->embed_backward(test->ctx, &backward, &error), &error);
    for (size_t b = 0; b < batch; b++)
        for (size_t t = 0; t < tokens; t++)
            for (size_t i = 0; i < dim; i++) {
                double gradient = out_gradient->exact[(b * tokens + t) * dim + i];
                position->exact[t * dim + i] += gradient;
                if (t == 0)
                    cls->exact[i] += gradient;
                else
                    projected->exact[(b * patches + t - 1) * dim + i] = gradient;
            }
    assert_close("projected_gradient", projected, projected->exact, 0); /* copied, not rounded */
    assert_close("cls_gradient", cls, cls->exact, 2e-6);
    assert_close("position_gradient", position, position->exact, 2e-6);
    assert_same_bits("cls_gradient", cls, cls_again);
    assert_same_bits("position_gradient", position, position_again);
}

static void cls_trial(struct op_test *test)
{
    struct error error;
    size_t batch = random_between(test, 1, 8), tokens = random_between(test, 1, 49), dim = random_between(test, 1, 320);
    struct tensor *all = tensor_random(test, batch * tokens * dim, test->dtype, 1);
    struct tensor *rows = tensor_zeros(test, batch * dim, test->dtype);
    struct tensor *scattered = tensor_random(test, batch * tokens * dim, test->dtype, 1);
    assert_ok(test->k->cls_gather(test->ctx, rows->data, all->data, batch, tokens, dim, &error), &error);
    assert_ok(test->k->cls_scatter(test->ctx, scattered->data, rows->data, batch, tokens, dim, &error), &error);
    for (size_t i = 0; i < all->count; i++) {
        bool first = i / dim % tokens == 0;
        scattered->exact[i] = first ? all->exact[i] : 0;
        if (first)
            rows->exact[i / (dim * tokens) * dim + i % dim] = all->exact[i];
    }
    struct tensor *sum = tensor_copy(test, all), *added = tensor_random(test, batch * dim, test->dtype, 1);
    assert_ok(test->k->cls_add(test->ctx, sum->data, added->data, batch, tokens, dim, &error), &error);
    for (size_t i = 0; i < all->count; i++)
        if (i / dim % tokens == 0)
            sum->exact[i] += added->exact[i / (dim * tokens) * dim + i % dim];
    assert_close("added", sum, sum->exact, tolerance(test->dtype));
    assert_close("gathered", rows, rows->exact, 0);
    assert_close("scattered", scattered, scattered->exact, 0);
}

static void forward_matches_float64(void **state)
{
    (void)state;
    op_test_each(forward_trial, 10);
}

static void backward_matches_float64(void **state)
{
    (void)state;
    op_test_each(backward_trial, 10);
}

static void cls_rows_go_out_and_back(void **state)
{
    (void)state;
    op_test_each(cls_trial, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_matches_float64),
        cmocka_unit_test(backward_matches_float64),
        cmocka_unit_test(cls_rows_go_out_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
