/* residual_layernorm on CUDA beside the CPU: rows that fit in registers, and any other length; with and without each of
 * branch, gamma and path scale. */
#include "tests/cuda/twins.h"

struct shape {
    size_t batch, tokens, dim;
};

static struct shape random_shape(struct twins *t)
{
    struct shape shape = {random_between(t, 1, 4), random_between(t, 1, 70), 0};
    switch (random_between(t, 0, 3)) {
    case 0:
        shape.dim = random_between(t, 1, 70);
        break;
    case 1:
        shape.dim = 48;
        break;
    default:
        shape.dim = 8 * random_between(t, 1, 170);
    }
    return shape;
}

/* So many rows that each warp takes several turns. */
static struct shape long_shape(struct twins *t)
{
    return (struct shape){2, random_between(t, 14000, 20000), 8 * random_between(t, 1, 5)};
}

static void forward_of(struct twins *t, struct shape s)
{
    size_t rows = s.batch * s.tokens, count = rows * s.dim;
    struct twin *residual = twin_random(t, count, t->dtype, 2), *weight = twin_random(t, s.dim, DTYPE_FLOAT32, 1),
                *bias = twin_random(t, s.dim, DTYPE_FLOAT32, 1), *branch = NULL, *gamma = NULL, *path_scale = NULL,
                *out = NULL;
    if (random_between(t, 0, 3)) {
        branch = twin_random(t, count, t->dtype, 2);
        gamma = random_between(t, 0, 1) ? twin_random(t, s.dim, DTYPE_FLOAT32, 1) : NULL;
        path_scale = random_between(t, 0, 1) ? twin_random(t, s.batch, DTYPE_FLOAT32, 1) : NULL;
        out = random_between(t, 0, 1) ? residual : twin_random(t, count, t->dtype, 1);
    }
    struct twin *normed = twin_random(t, count, t->dtype, 1), *mean = twin_random(t, rows, DTYPE_FLOAT32, 1),
                *rstd = twin_random(t, rows, DTYPE_FLOAT32, 1);
    TWINS_RUN_OP(t, residual_layernorm_forward, .residual_out = SIDE(out), .normed = SIDE(normed), .mean = SIDE(mean),
                 .rstd = SIDE(rstd), .residual_in = SIDE(residual), .branch = SIDE(branch), .gamma = SIDE(gamma),
                 .path_scale = SIDE(path_scale), .weight = SIDE(weight), .bias = SIDE(bias), .rows = rows,
                 .tokens = s.tokens, .dim = s.dim);
    if (out)
        assert_twins_agree(t, "residual_out", out, twins_bound(t));
    /* Of one number the LayerNorm is rounding errors alone. */
    if (s.dim > 2) {
        assert_twins_agree(t, "normed", normed, twins_bound(t));
        assert_twins_agree(t, "mean", mean, twins_bound(t));
        assert_twins_agree(t, "rstd", rstd, twins_bound(t));
    }
}

static void backward_of(struct twins *t, struct shape s)
{
    size_t rows = s.batch * s.tokens, count = rows * s.dim;
    struct twin *x = twin_random(t, count, t->dtype, 2), *weight = twin_random(t, s.dim, DTYPE_FLOAT32, 1),
                *bias = twin_random(t, s.dim, DTYPE_FLOAT32, 1), *normed = twin_random(t, count, t->dtype, 1),
                *mean = twin_random(t, rows, DTYPE_FLOAT32, 1), *rstd = twin_random(t, rows, DTYPE_FLOAT32, 1);
    TWINS_RUN_OP(t, residual_layernorm_forward, .normed = SIDE(normed), .mean = SIDE(mean), .rstd = SIDE(rstd),
                 .residual_in = SIDE(x), .weight = SIDE(weight), .bias = SIDE(bias), .rows = rows, .tokens = s.tokens,
                 .dim = s.dim);
    struct twin *branch = NULL, *gamma = NULL, *gamma_gradient = NULL, *path_scale = NULL, *branch_gradient = NULL;
    if (random_between(t, 0, 1)) {
        branch = twin_random(t, count, t->dtype, 2);
        gamma = twin_random(t, s.dim, DTYPE_FLOAT32, 1);
        gamma_gradient = twin_random(t, s.dim, DTYPE_FLOAT32, 3);
    }
    if (random_between(t, 0, 1))
        path_scale = twin_random(t, s.batch, DTYPE_FLOAT32, 1);
    if (gamma || path_scale)
        branch_gradient = twin_random(t, count, t->dtype, 1);
    struct twin *again = random_between(t, 0, 2) ? twin_random(t, count, t->dtype, 1) : NULL;
    struct twin *normed_gradient = twin_random(t, count, t->dtype, 1),
                *residual_gradient = twin_random(t, count, t->dtype, 1),
                *weight_gradient = twin_random(t, s.dim, DTYPE_FLOAT32, 3),
                *bias_gradient = twin_random(t, s.dim, DTYPE_FLOAT32, 3);
    TWINS_RUN_OP(t, residual_layernorm_backward, .residual_gradient = SIDE(residual_gradient),
                 .branch_gradient = SIDE(branch_gradient), .normed = SIDE(again),
                 .weight_gradient = SIDE(weight_gradient), .bias_gradient = SIDE(bias_gradient),
                 .gamma_gradient = SIDE(gamma_gradient), .normed_gradient = SIDE(normed_gradient),
                 .residual_out = SIDE(x), .branch = SIDE(branch), .mean = SIDE(mean), .rstd = SIDE(rstd),
                 .gamma = SIDE(gamma), .path_scale = SIDE(path_scale), .weight = SIDE(weight), .bias = SIDE(bias),
                 .rows = rows, .tokens = s.tokens, .dim = s.dim);
    if (again)
        assert_twins_same_bits(t, "normed again", normed, again);
    assert_twins_agree(t, "residual_gradient", residual_gradient, twins_bound(t));
    assert_twins_agree(t, "weight_gradient", weight_gradient, 1e-4);
    assert_twins_agree(t, "bias_gradient", bias_gradient, 1e-5);
    if (branch_gradient)
        assert_twins_agree(t, "branch_gradient", branch_gradient, twins_bound(t));
    if (gamma_gradient)
        assert_twins_agree(t, "gamma_gradient", gamma_gradient, twins_bound(t));
}

static void short_trial(struct twins *t)
{
    forward_of(t, random_shape(t));
    struct shape shape = random_shape(t);
    shape.dim = shape.dim < 3 ? 3 : shape.dim;
    backward_of(t, shape);
}

static void long_trial(struct twins *t)
{
    forward_of(t, long_shape(t));
    backward_of(t, long_shape(t));
}

static void matches_cpu(void **state)
{
    (void)state;
    twins_each(short_trial, 20);
}

static void matches_cpu_on_many_rows(void **state)
{
    (void)state;
    twins_each(long_trial, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_cpu),
        cmocka_unit_test(matches_cpu_on_many_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
