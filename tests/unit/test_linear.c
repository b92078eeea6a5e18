/* linear on the CPU against float64: forward, backward, the cache of primitives, and signals that arrive meanwhile. */
#include <signal.h>
#include <sys/time.h>

#include "tests/unit/op_test.h"

struct shape {
    size_t rows, in_dim, out_dim;
};

static struct shape random_shape(struct op_test *test)
{
    struct shape shape = {
        .rows = random_between(test, 0, 4) == 0 ? 1 : random_between(test, 2, 300),
        .in_dim = random_between(test, 1, 320),
        .out_dim = random_between(test, 1, 320),
    };
    return shape;
}

static double *reference_forward(const double *in, const double *weight, const double *bias, const struct shape *shape)
{
    double *out = calloc(shape->rows * shape->out_dim, sizeof *out);
    for (size_t row = 0; row < shape->rows; row++)
        for (size_t o = 0; o < shape->out_dim; o++) {
            double sum = bias ? bias[o] : 0;
            for (size_t i = 0; i < shape->in_dim; i++)
                sum += in[row * shape->in_dim + i] * weight[o * shape->in_dim + i];
            out[row * shape->out_dim + o] = sum;
        }
    return out;
}

static void forward_trial(struct op_test *test)
{
    struct error error;
    struct shape shape = random_shape(test);
    bool with_bias = random_between(test, 0, 1);
    struct tensor *in = tensor_random(test, shape.rows * shape.in_dim, test->dtype, 1);
    struct tensor *weight = tensor_random(test, shape.out_dim * shape.in_dim, test->dtype, 1);
    struct tensor *bias = tensor_random(test, shape.out_dim, test->dtype, 1);
    struct tensor *out = tensor_zeros(test, shape.rows * shape.out_dim, test->dtype);
    struct tensor *again = tensor_zeros(test, shape.rows * shape.out_dim, test->dtype);
    struct linear_forward forward = {.out = out->data,
                                     .in = in->data,
                                     .weight = weight->data,
                                     .bias = with_bias ? bias->data : NULL,
                                     .rows = shape.rows,
                                     .in_dim = shape.in_dim,
                                     .out_dim = shape.out_dim};
    assert_ok(test->k->linear_forward(test->ctx, &forward, &error), &error);
    forward.out = again->data;
    assert_ok(test->k->linear_forward(test->ctx, &forward, &error), &error);
    double *expected = reference_forward(in->exact, weight->exact, with_bias ? bias->exact : NULL, &shape);
    assert_close("out", out, expected, tolerance(test->dtype));
    assert_same_bits("out", out, again);
    free(expected);
}

/* Adds to the parameters' gradients, writes the input's. */
static void reference_backward(double *in_gradient, double *weight_gradient, double *bias_gradient,
                               const double *out_gradient, const double *in, const double *weight,
                               const struct shape *shape)
{
    size_t in_dim = shape->in_dim, out_dim = shape->out_dim;
    memset(in_gradient, 0, shape->rows * in_dim * sizeof *in_gradient);
    for (size_t row = 0; row < shape->rows; row++)
        for (size_t o = 0; o < out_dim; o++) {
            double gradient = out_gradient[row * out_dim + o];
            bias_gradient[o] += gradient;
            for (size_t i = 0; i < in_dim; i++) {
                in_gradient[row * in_dim + i] += gradient * weight[o * in_dim + i];
                weight_gradient[o * in_dim + i] += gradient * in[row * in_dim + i];
            }
        }
}

static void backward_of(struct op_test *test, struct shape shape)
{
    struct error error;
    size_t weights = shape.out_dim * shape.in_dim;
    struct tensor *in = tensor_random(test, shape.rows * shape.in_dim, test->dtype, 1);
    struct tensor *weight = tensor_random(test, weights, test->dtype, 1);
    struct tensor *out_gradient = tensor_random(test, shape.rows * shape.out_dim, test->dtype, 1);
    /* What is there already must be added to. */
    struct tensor *weight_gradient = tensor_random(test, weights, DTYPE_FLOAT32, 3);
    struct tensor *bias_gradient = tensor_random(test, shape.out_dim, DTYPE_FLOAT32, 3);
    struct tensor *weight_again = tensor_copy(test, weight_gradient);
    struct tensor *bias_again = tensor_copy(test, bias_gradient);
    struct tensor *in_gradient = tensor_zeros(test, in->count, test->dtype);

    struct linear_backward backward = {.in_gradient = in_gradient->data,
                                       .weight_gradient = weight_gradient->data,
                                       .bias_gradient = bias_gradient->data,
                                       .out_gradient = out_gradient->data,
                                       .in = in->data,
                                       .weight = weight->data,
                                       .rows = shape.rows,
                                       .in_dim = shape.in_dim,
                                       .out_dim = shape.out_dim};
    assert_ok(test->k->linear_backward(test->ctx, &backward, &error), &error);
    backward.in_gradient = NULL;
    backward.weight_gradient = weight_again->data;
    backward.bias_gradient = bias_again->data;
    assert_ok(test->k->linear_backward(test->ctx, &backward, &error), &error);
    assert_same_bits("weight_gradient", weight_gradient, weight_again);
    assert_same_bits("bias_gradient", bias_gradient, bias_again);

    /* The other half alone touches nothing else. */
    struct tensor *in_again = tensor_zeros(test, in->count, test->dtype);
    backward.in_gradient = in_again->data;
    backward.weight_gradient = NULL;
    assert_ok(test->k->linear_backward(test->ctx, &backward, &error), &error);
    assert_same_bits("in_gradient", in_gradient, in_again);
    assert_same_bits("bias_gradient", bias_gradient, bias_again);

    reference_backward(in_gradient->exact, weight_gradient->exact, bias_gradient->exact, out_gradient->exact, in->exact,
                       weight->exact, &shape);
    assert_close("in_gradient", in_gradient, in_gradient->exact, tolerance(test->dtype));
    /* Sums of bfloat16 products are kept in float32. */
    assert_close("weight_gradient", weight_gradient, weight_gradient->exact, 2e-6);
    assert_close("bias_gradient", bias_gradient, bias_gradient->exact, 2e-6);

    /* No bias: its gradient is not asked for. */
    backward.weight_gradient = weight_again->data;
    backward.bias_gradient = NULL;
    assert_ok(test->k->linear_backward(test->ctx, &backward, &error), &error);
    assert_same_bits("bias_gradient", bias_gradient, bias_again);
}

static void backward_trial(struct op_test *test)
{
    backward_of(test, random_shape(test));
}

/* A gradient that is overwritten has the bits of one that is added to zeros, whatever was there; the bias's is added
 * to. */
static void overwrite_trial(struct op_test *test)
{
    struct error error;
    struct shape shape = random_shape(test);
    size_t weights = shape.out_dim * shape.in_dim;
    shape.rows = random_between(test, 1, 600); /* up to three chunks */
    struct tensor *in = tensor_random(test, shape.rows * shape.in_dim, test->dtype, 1);
    struct tensor *weight = tensor_random(test, weights, test->dtype, 1);
    struct tensor *out_gradient = tensor_random(test, shape.rows * shape.out_dim, test->dtype, 1);
    struct tensor *added = tensor_zeros(test, weights, DTYPE_FLOAT32), *bias = tensor_zeros(test, shape.out_dim, 0);
    struct tensor *overwritten = tensor_zeros(test, weights, DTYPE_FLOAT32), *twice = tensor_copy(test, bias);
    memset(overwritten->data, 0xff, weights * sizeof(float)); /* NaN */
    struct linear_backward backward = {.weight_gradient = added->data,
                                       .bias_gradient = bias->data,
                                       .out_gradient = out_gradient->data,
                                       .in = in->data,
                                       .weight = weight->data,
                                       .rows = shape.rows,
                                       .in_dim = shape.in_dim,
                                       .out_dim = shape.out_dim};
    assert_ok(test->k->linear_backward(test->ctx, &backward, &error), &error);
    backward.weight_gradient = overwritten->data;
    backward.bias_gradient = twice->data;
    backward.overwrite = true;
    for (int i = 0; i < 2; i++)
        assert_ok(test->k->linear_backward(test->ctx, &backward, &error), &error);
    assert_same_bits("overwritten", added, overwritten);
    for (size_t i = 0; i < shape.out_dim; i++)
        bias->exact[i] = 2 * tensor_get(bias, i);
    assert_close("bias_gradient", twice, bias->exact, 2e-6);
}

/* The weight gradient takes 256 rows at a time at most: the last chunk full, of one row, one of several. */
static void many_rows_trial(struct op_test *test)
{
    const size_t rows[] = {255, 256, 257, 300, 512, 513, 600};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        backward_of(test, (struct shape){rows[i], 40, 24});
        op_test_release_tensors(test);
    }
}

struct loss {
    const struct shape *shape;
    const double *in, *weight, *bias, *out_gradient;
};

static double loss_of(void *argument)
{
    const struct loss *loss = argument;
    double *out = reference_forward(loss->in, loss->weight, loss->bias, loss->shape), sum = 0;
    for (size_t i = 0; i < loss->shape->rows * loss->shape->out_dim; i++)
        sum += out[i] * loss->out_gradient[i];
    free(out);
    return sum;
}

static void derivative_trial(struct op_test *test)
{
    struct shape shape = {random_between(test, 1, 5), random_between(test, 1, 6), random_between(test, 1, 7)};
    struct tensor *in = tensor_random(test, shape.rows * shape.in_dim, test->dtype, 1);
    struct tensor *weight = tensor_random(test, shape.out_dim * shape.in_dim, test->dtype, 1);
    struct tensor *bias = tensor_random(test, shape.out_dim, test->dtype, 1);
    struct tensor *out_gradient = tensor_random(test, shape.rows * shape.out_dim, test->dtype, 1);
    struct tensor *in_gradient = tensor_zeros(test, in->count, test->dtype);
    struct tensor *weight_gradient = tensor_zeros(test, weight->count, DTYPE_FLOAT32);
    struct tensor *bias_gradient = tensor_zeros(test, bias->count, DTYPE_FLOAT32);
    struct loss loss = {&shape, in->exact, weight->exact, bias->exact, out_gradient->exact};
    reference_backward(in_gradient->exact, weight_gradient->exact, bias_gradient->exact, out_gradient->exact, in->exact,
                       weight->exact, &shape);
    assert_derivative("in", loss_of, &loss, in->exact, in->count, in_gradient->exact);
    assert_derivative("weight", loss_of, &loss, weight->exact, weight->count, weight_gradient->exact);
    assert_derivative("bias", loss_of, &loss, bias->exact, bias->count, bias_gradient->exact);
}

static void forward_matches_float64(void **state)
{
    (void)state;
    op_test_each(forward_trial, 12);
}

static void backward_matches_float64(void **state)
{
    (void)state;
    op_test_each(backward_trial, 12);
}

static void overwriting_has_the_bits_of_adding_to_zeros(void **state)
{
    (void)state;
    op_test_each(overwrite_trial, 8);
}

static void backward_of_many_rows_matches_float64(void **state)
{
    (void)state;
    op_test_each(many_rows_trial, 1);
}

static void reference_matches_central_differences(void **state)
{
    (void)state;
    op_test_each(derivative_trial, 2);
}

/* More shapes than the cache of primitives holds, then the first again. */
static void many_shapes_are_remade(void **state)
{
    (void)state;
    struct op_test test;
    assert_true(op_test_open(&test, kernels_cpu(), DTYPE_FLOAT32, 1));
    for (size_t rows = 1; rows <= 280; rows++) {
        struct error error;
        struct shape shape = {rows <= 140 ? rows : rows - 140, 3, 2};
        struct tensor *in = tensor_random(&test, shape.rows * 3, DTYPE_FLOAT32, 1);
        struct tensor *weight = tensor_random(&test, 6, DTYPE_FLOAT32, 1);
        struct tensor *out = tensor_zeros(&test, shape.rows * 2, DTYPE_FLOAT32);
        struct linear_forward forward = {
            .out = out->data, .in = in->data, .weight = weight->data, .rows = shape.rows, .in_dim = 3, .out_dim = 2};
        assert_ok(test.k->linear_forward(test.ctx, &forward, &error), &error);
        double *expected = reference_forward(in->exact, weight->exact, NULL, &shape);
        assert_close("out", out, expected, 2e-6);
        free(expected);
        op_test_release_tensors(&test);
    }
    test.k->close(test.ctx);
}

/* Where oneDNN wants scratch for such a product (with AVX-512 it does) it is more than this workspace has: that must be
 * said, and not be written past its end. */
static void a_shape_that_was_not_planned_is_refused_or_needs_nothing(void **state)
{
    (void)state;
    const struct context_options options = {
        .threads = 1,
        .workload = {.batch = 1, .patches = 4, .patch_dim = 16, .dim = 16, .hidden = 16, .heads = 1, .classes = 2}};
    struct op_test test = {.k = kernels_cpu(), .dtype = DTYPE_FLOAT32, .random = 1};
    struct error error;
    assert_ok(test.k->open(&test.ctx, &options, &error), &error);
    struct tensor *in = tensor_random(&test, 49 * 1280, DTYPE_FLOAT32, 1);
    struct tensor *weight = tensor_zeros(&test, 320 * 1280, DTYPE_FLOAT32),
                  *out = tensor_zeros(&test, 49 * 320, test.dtype);
    struct linear_forward forward = {
        .out = out->data, .in = in->data, .weight = weight->data, .rows = 49, .in_dim = 1280, .out_dim = 320};
    for (int time = 0; time < 3; time++)
        if (!test.k->linear_forward(test.ctx, &forward, &error))
            assert_non_null(strstr(error.message, "a 49 x 1280 x 320 product needs "));
    for (size_t i = 0; i < 49 * 320; i++)
        assert_true(tensor_get(out, i) == 0);
    op_test_release_tensors(&test);
    test.k->close(test.ctx);
}

/* The workspace is planned for whole batches; any smaller one must do with it. */
static void smaller_batches_fit(void **state)
{
    (void)state;
    for (int dtype = DTYPE_FLOAT32; dtype <= DTYPE_BFLOAT16; dtype++) {
        struct op_test test;
        const struct workload *load = &op_test_workload;
        if (!op_test_open(&test, kernels_cpu(), (enum dtype)dtype, 1))
            continue;
        size_t most = load->batch * (load->patches + 1);
        struct tensor *in = tensor_zeros(&test, most * load->hidden, test.dtype);
        struct tensor *out = tensor_zeros(&test, most * load->hidden, test.dtype);
        struct tensor *weight = tensor_zeros(&test, load->hidden * load->dim, test.dtype);
        struct tensor *gradient = tensor_zeros(&test, load->hidden * load->dim, DTYPE_FLOAT32);
        for (size_t rows = load->patches + 1; rows <= most; rows += load->patches + 1) {
            struct error error;
            struct linear_forward forward = {.out = out->data,
                                             .in = in->data,
                                             .weight = weight->data,
                                             .rows = rows,
                                             .in_dim = load->dim,
                                             .out_dim = load->hidden};
            struct linear_forward back = {.out = out->data,
                                          .in = in->data,
                                          .weight = weight->data,
                                          .rows = rows,
                                          .in_dim = load->hidden,
                                          .out_dim = load->dim};
            struct linear_backward backward = {.in_gradient = in->data,
                                               .weight_gradient = gradient->data,
                                               .out_gradient = out->data,
                                               .in = in->data,
                                               .weight = weight->data,
                                               .rows = rows,
                                               .in_dim = load->dim,
                                               .out_dim = load->hidden};
            assert_ok(test.k->linear_forward(test.ctx, &forward, &error) &&
                          test.k->linear_forward(test.ctx, &back, &error) &&
                          test.k->linear_backward(test.ctx, &backward, &error),
                      &error);
        }
        op_test_release_tensors(&test);
        test.k->close(test.ctx);
    }
}

static volatile sig_atomic_t signals_taken;

static void take_signal(int signal_number)
{
    (void)signal_number;
    signals_taken++;
}

static void ring_every(int microseconds)
{
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    assert_int_equal(setitimer(ITIMER_REAL, &timer, NULL), 0);
}

/* Forward and backward of one shape, at first in quiet, then while SIGALRM arrives all the time. */
static void rung_trial(struct op_test *test, const struct shape *shape)
{
    struct error error;
    struct tensor *in = tensor_random(test, shape->rows * shape->in_dim, test->dtype, 1);
    struct tensor *weight = tensor_random(test, shape->out_dim * shape->in_dim, test->dtype, 1);
    struct tensor *d_out = tensor_random(test, shape->rows * shape->out_dim, test->dtype, 1);
    struct tensor *results[2][3];
    for (int i = 0; i < 2; i++) {
        results[i][0] = tensor_zeros(test, d_out->count, test->dtype);
        results[i][1] = tensor_zeros(test, in->count, test->dtype);
        results[i][2] = tensor_zeros(test, weight->count, DTYPE_FLOAT32);
    }
    for (int i = 0; i < 20; i++) {
        struct tensor **to = results[i > 0];
        memset(to[2]->data, 0, to[2]->count * sizeof(float));
        ring_every(i > 0 ? 100 : 0);
        struct linear_forward forward = {.out = to[0]->data,
                                         .in = in->data,
                                         .weight = weight->data,
                                         .rows = shape->rows,
                                         .in_dim = shape->in_dim,
                                         .out_dim = shape->out_dim};
        struct linear_backward backward = {.in_gradient = to[1]->data,
                                           .weight_gradient = to[2]->data,
                                           .out_gradient = d_out->data,
                                           .in = in->data,
                                           .weight = weight->data,
                                           .rows = shape->rows,
                                           .in_dim = shape->in_dim,
                                           .out_dim = shape->out_dim};
        assert_ok(test->k->linear_forward(test->ctx, &forward, &error) &&
                      test->k->linear_backward(test->ctx, &backward, &error),
                  &error);
        ring_every(0);
        for (int result = 0; i > 0 && result < 3; result++)
            assert_same_bits("a product among signals", results[1][result], results[0][result]);
    }
    op_test_release_tensors(test);
}

/* oneDNN's kernels keep values where the frame of a signal handler goes (signal_shield.h): without the shield this test
 * ends in wrong numbers or a crash. SIGALRM goes to whichever thread takes it, as ctrl-C does. */
static void signals_do_not_spoil_products(void **state)
{
    (void)state;
    const struct shape shapes[] = {{392, 320, 320}, {392, 96, 288}, {392, 288, 96},
                                   {392, 48, 96},   {8, 96, 10},    {8, 320, 1000}};
    struct sigaction action = {.sa_handler = take_signal, .sa_flags = SA_RESTART}, before;
    sigemptyset(&action.sa_mask);
    assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
    signals_taken = 0;
    for (int variant = 0; variant < 4; variant++) {
        struct op_test test;
        if (!op_test_open(&test, kernels_cpu(), variant & 1 ? DTYPE_BFLOAT16 : DTYPE_FLOAT32, variant & 2 ? 2 : 1))
            continue;
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            rung_trial(&test, &shapes[i]);
        test.k->close(test.ctx);
    }
    assert_int_equal(sigaction(SIGALRM, &before, NULL), 0);
    print_message("%d signals\n", (int)signals_taken);
    assert_true(signals_taken > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_matches_float64),
        cmocka_unit_test(backward_matches_float64),
        cmocka_unit_test(backward_of_many_rows_matches_float64),
        cmocka_unit_test(overwriting_has_the_bits_of_adding_to_zeros),
        cmocka_unit_test(reference_matches_central_differences),
        cmocka_unit_test(many_shapes_are_remade),
        cmocka_unit_test(smaller_batches_fit),
        cmocka_unit_test(a_shape_that_was_not_planned_is_refused_or_needs_nothing),
        cmocka_unit_test(signals_do_not_spoil_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
