/* GELU on the CPU against float64, and the vector math below it against libm. */
#include "kernels/cpu/vector_math.h"
#include "tests/unit/op_test.h"

static double normal_cdf(double x)
{
    return 0.5 * erfc(-x / sqrt(2));
}

static double gelu(double x)
{
    return x * normal_cdf(x);
}

static double gelu_slope(double x)
{
    return normal_cdf(x) + x * exp(-0.5 * x * x) / sqrt(2 * acos(-1));
}

static void forward_trial(struct op_test *test)
{
    struct error error;
    size_t rows = random_between(test, 1, 60), dim = random_between(test, 1, 1280);
    struct tensor *in = tensor_random(test, rows * dim, test->dtype, 6),
                  *bias = tensor_random(test, dim, test->dtype, 1);
    struct tensor *out = tensor_zeros(test, rows * dim, test->dtype), *in_place = tensor_copy(test, in);
    assert_ok(test->k->gelu_forward(test->ctx, out->data, in->data, bias->data, rows, dim, &error), &error);
    assert_ok(test->k->gelu_forward(test->ctx, in_place->data, in_place->data, bias->data, rows, dim, &error), &error);
    for (size_t i = 0; i < rows * dim; i++)
        out->exact[i] = gelu(in->exact[i] + bias->exact[i % dim]);
    assert_close("out", out, out->exact, tolerance(test->dtype));
    assert_same_bits("in place", out, in_place);
}

static void backward_trial(struct op_test *test)
{
    struct error error;
    size_t rows = random_between(test, 1, 60), dim = random_between(test, 1, 1280);
    struct tensor *in = tensor_random(test, rows * dim, test->dtype, 6),
                  *bias = tensor_random(test, dim, test->dtype, 1);
    struct tensor *out_gradient = tensor_random(test, rows * dim, test->dtype, 1);
    struct tensor *in_gradient = tensor_zeros(test, rows * dim, test->dtype),
                  *in_place = tensor_copy(test, out_gradient);
    struct tensor *bias_gradient = tensor_random(test, dim, DTYPE_FLOAT32, 1);
    struct tensor *bias_again = tensor_copy(test, bias_gradient);
    struct gelu_backward backward = {.in_gradient = in_gradient->data,
                                     .bias_gradient = bias_gradient->data,
                                     .out_gradient = out_gradient->data,
                                     .in = in->data,
                                     .bias = bias->data,
                                     .rows = rows,
                                     .dim = dim};
    assert_ok(test->k->gelu_backward(test->ctx, &backward, &error), &error);
    backward.in_gradient = in_place->data;
    backward.out_gradient = in_place->data;
    backward.bias_gradient = bias_again->data;
    assert_ok(test->k->gelu_backward(test->ctx, &backward, &error), &error);
    for (size_t i = 0; i < rows * dim; i++) {
        in_gradient->exact[i] = out_gradient->exact[i] * gelu_slope(in->exact[i] + bias->exact[i % dim]);
        bias_gradient->exact[i % dim] += in_gradient->exact[i];
    }
    assert_close("in_gradient", in_gradient, in_gradient->exact, tolerance(test->dtype));
    assert_close("bias_gradient", bias_gradient, bias_gradient->exact, 2e-6);
    assert_same_bits("in place", in_gradient, in_place);
    assert_same_bits("bias_gradient", bias_gradient, bias_again);
}

/* The backward pass makes the forward pass's result again, in memory of its own and in place, and its gradients do not
 * depend on it. */
static void again_trial(struct op_test *test)
{
    struct error error;
    size_t rows = random_between(test, 1, 60), dim = random_between(test, 1, 1280);
    struct tensor *in = tensor_random(test, rows * dim, test->dtype, 6),
                  *bias = tensor_random(test, dim, test->dtype, 1);
    struct tensor *gradient[3], *bias_gradient[3], *out = tensor_zeros(test, rows * dim, test->dtype);
    struct tensor *again[3] = {NULL, tensor_random(test, rows * dim, test->dtype, 1), tensor_copy(test, in)};
    assert_ok(test->k->gelu_forward(test->ctx, out->data, in->data, bias->data, rows, dim, &error), &error);
    gradient[0] = tensor_random(test, rows * dim, test->dtype, 1);
    bias_gradient[0] = tensor_random(test, dim, DTYPE_FLOAT32, 1);
    for (int run = 1; run < 3; run++) {
        gradient[run] = tensor_copy(test, gradient[0]);
        bias_gradient[run] = tensor_copy(test, bias_gradient[0]);
    }
    for (int run = 0; run < 3; run++) {
        struct gelu_backward backward = {.in_gradient = gradient[run]->data,
                                         .out = again[run] ? again[run]->data : NULL,
                                         .bias_gradient = bias_gradient[run]->data,
                                         .out_gradient = gradient[run]->data,
                                         .in = run == 2 ? again[2]->data : in->data,
                                         .bias = bias->data,
                                         .rows = rows,
                                         .dim = dim};
        assert_ok(test->k->gelu_backward(test->ctx, &backward, &error), &error);
        assert_same_bits("in_gradient", gradient[run], gradient[0]);
        assert_same_bits("bias_gradient", bias_gradient[run], bias_gradient[0]);
        if (again[run])
            assert_same_bits("out again", again[run], out);
    }
}

static void forward_matches_float64(void **state)
{
    (void)state;
    op_test_each(forward_trial, 20);
}

static void backward_matches_float64(void **state)
{
    (void)state;
    op_test_each(backward_trial, 20);
}

static void backward_makes_the_result_again(void **state)
{
    (void)state;
    op_test_each(again_trial, 20);
}

static void slope_is_the_derivative(void **state)
{
    (void)state;
    for (double x = -8; x < 8; x += 0.01) {
        double numeric = (gelu(x + 1e-5) - gelu(x - 1e-5)) / 2e-5;
        assert_true(fabs(numeric - gelu_slope(x)) < 1e-9);
    }
}

static void exp_is_accurate_over_its_range(void **state)
{
    (void)state;
    for (double x = -86.9; x < 88.72; x += 1e-3) {
        double exact = exp((double)(float)x);
        assert_true(fabs((double)vector_exp((float)x) - exact) <= 2.5e-7 * exact);
    }
    assert_true(vector_exp(-INFINITY) == 0 && vector_exp(-1e30f) == 0);
    assert_true(isinf(vector_exp(INFINITY)) && isinf(vector_exp(88.8f)));
    assert_true(isnan(vector_exp(NAN)));
    assert_true(vector_exp(0) == 1);
}

static void normal_cdf_is_accurate_over_its_range(void **state)
{
    (void)state;
    for (double x = -12; x < 12; x += 1e-4) {
        double exact = normal_cdf((double)(float)x), error = fabs((double)vector_normal_cdf((float)x) - exact);
        assert_true(error < 1e-7);
        assert_true(x < -5.5 || error < 3e-4 * exact);
    }
    assert_true(vector_normal_cdf(-1e30f) == 0 && vector_normal_cdf(1e30f) == 1);
}

static void slope_is_accurate_over_its_range(void **state)
{
    (void)state;
    for (double x = -12; x < 12; x += 1e-4)
        assert_true(fabs((double)vector_gelu_slope((float)x) - gelu_slope((double)(float)x)) <
                    (fabs(x) < 5.49 ? 1.5e-7 : 7e-7));
    assert_true(vector_gelu_slope(-INFINITY) == 0 && vector_gelu_slope(INFINITY) == 1);
    assert_true(isnan(vector_gelu_slope(NAN)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_matches_float64),          cmocka_unit_test(backward_matches_float64),
        cmocka_unit_test(backward_makes_the_result_again),  cmocka_unit_test(slope_is_the_derivative),
        cmocka_unit_test(exp_is_accurate_over_its_range),   cmocka_unit_test(normal_cdf_is_accurate_over_its_range),
        cmocka_unit_test(slope_is_accurate_over_its_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
