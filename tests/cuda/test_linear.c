/* linear on CUDA beside the CPU: sizes that cuBLASLt takes and sizes that only the fallback does. */
#include "tests/cuda/twins.h"

static size_t random_dim(struct twins *t)
{
    return random_between(t, 0, 2) ? 8 * random_between(t, 1, 40) : random_between(t, 1, 70);
}

static void forward_trial(struct twins *t)
{
    size_t rows = random_between(t, 0, 4) ? random_between(t, 2, 200) : 1, in_dim = random_dim(t),
           out_dim = random_dim(t);
    struct twin *in = twin_random(t, rows * in_dim, t->dtype, 1);
    struct twin *weight = twin_random(t, out_dim * in_dim, t->dtype, 1);
    struct twin *bias = random_between(t, 0, 3) ? twin_random(t, out_dim, t->dtype, 1) : NULL;
    struct twin *out = twin_random(t, rows * out_dim, t->dtype, 1);
    TWINS_RUN_OP(t, linear_forward, .out = SIDE(out), .in = SIDE(in), .weight = SIDE(weight), .bias = SIDE(bias),
                 .rows = rows, .in_dim = in_dim, .out_dim = out_dim);
    assert_twins_agree(t, "out", out, twins_bound(t));
}

static void backward_trial(struct twins *t)
{
    size_t rows = random_between(t, 0, 4) ? random_between(t, 2, 200) : 1, in_dim = random_dim(t),
           out_dim = random_dim(t);
    struct twin *in = twin_random(t, rows * in_dim, t->dtype, 1);
    struct twin *weight = twin_random(t, out_dim * in_dim, t->dtype, 1);
    struct twin *out_gradient = twin_random(t, rows * out_dim, t->dtype, 1);
    struct twin *in_gradient = random_between(t, 0, 3) ? twin_random(t, rows * in_dim, t->dtype, 1) : NULL;
    struct twin *bias_gradient = random_between(t, 0, 3) ? twin_random(t, out_dim, DTYPE_FLOAT32, 3) : NULL;
    bool overwrite = random_between(t, 0, 1);
    struct twin *weight_gradient = twin_random(t, out_dim * in_dim, DTYPE_FLOAT32, 3);
    TWINS_RUN_OP(t, linear_backward, .in_gradient = SIDE(in_gradient), .weight_gradient = SIDE(weight_gradient),
                 .bias_gradient = SIDE(bias_gradient), .out_gradient = SIDE(out_gradient), .in = SIDE(in),
                 .weight = SIDE(weight), .rows = rows, .in_dim = in_dim, .out_dim = out_dim, .overwrite = overwrite);
    if (in_gradient)
        assert_twins_agree(t, "in_gradient", in_gradient, twins_bound(t));
    if (bias_gradient)
        assert_twins_agree(t, "bias_gradient", bias_gradient, 1e-5);
    assert_twins_agree(t, "weight_gradient", weight_gradient, 1e-5);
}

static void forward_matches_cpu(void **state)
{
    (void)state;
    twins_each(forward_trial, 20);
}

static void backward_matches_cpu(void **state)
{
    (void)state;
    twins_each(backward_trial, 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_matches_cpu),
        cmocka_unit_test(backward_matches_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
