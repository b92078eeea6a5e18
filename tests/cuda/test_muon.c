/* Muon's ops on CUDA beside the CPU: standing, lying and square matrices, with sides that are no multiple of a tile. */
#include "tests/cuda/twins.h"

#include <math.h>

struct matrix {
    size_t rows, columns, n;
    struct twin *master, *working, *m, *gradient, *out, *sum;
};

static struct matrix random_matrix(struct twins *t)
{
    double nothing = 0;
    struct matrix x = {.rows = random_between(t, 1, 150), .columns = random_between(t, 1, 150)};
    if (random_between(t, 0, 2) == 0)
        x.columns = x.rows;
    size_t count = x.rows * x.columns;
    x.n = x.rows < x.columns ? x.rows : x.columns;
    x.master = twin_random(t, count, DTYPE_FLOAT32, 1);
    x.working = twin_random(t, count, t->dtype, 1);
    x.m = twin_random(t, count, DTYPE_FLOAT32, 1);
    x.gradient = twin_random(t, count, DTYPE_FLOAT32, 1);
    x.out = twin_random(t, count, t->dtype, 1);
    x.sum = twin_raw(t, &nothing, sizeof nothing);
    TWINS_RUN(t, sum_of_squares, SIDE(x.sum), SIDE(x.gradient), count);
    return x;
}

static void run_direction(struct twins *t, const struct matrix *x, const struct muon *muon)
{
    TWINS_RUN_OP(t, muon_direction, .m = SIDE(x->m), .out = SIDE(x->out), .gradient = SIDE(x->gradient),
                 .gradient_sum_of_squares = SIDE(x->sum), .rows = x->rows, .columns = x->columns, .muon = muon);
}

static void run_apply(struct twins *t, const struct matrix *x, const struct muon *muon)
{
    TWINS_RUN_OP(t, muon_apply, .master = SIDE(x->master), .working = SIDE(x->working), .direction = SIDE(x->out),
                 .gradient_sum_of_squares = SIDE(x->sum), .rows = x->rows, .columns = x->columns, .keep = 0.9f,
                 .step = 0.5f, .muon = muon);
}

static void step_trial(struct twins *t)
{
    struct matrix x = random_matrix(t);
    struct muon muon = {.momentum = 0.95f, .eps = 1e-7f, .nesterov = random_between(t, 0, 1)};
    muon.clip_grad_norm = random_between(t, 0, 1) ? 1.0f : 0.0f;
    run_direction(t, &x, &muon);
    assert_twins_agree(t, "m", x.m, 1e-5);
    assert_twins_agree(t, "direction", x.out, twins_bound(t));
    run_apply(t, &x, &muon);
    assert_twins_agree(t, "master", x.master, twins_bound(t)); /* of a direction in the dtype */
    assert_twins_agree(t, "working", x.working, twins_bound(t));
}

static void polynomial_trial(struct twins *t)
{
    size_t n = random_between(t, 1, 90);
    struct twin *x = twin_random(t, n * n, t->dtype, 1), *squared = twin_random(t, n * n, t->dtype, 1);
    TWINS_RUN_OP(t, muon_polynomial, .out = SIDE(squared), .x = SIDE(x), .x_squared = SIDE(squared), .n = n,
                 .identity = 4, .linear = -6.5f, .square = 2.75f);
    assert_twins_agree(t, "polynomial", squared, twins_bound(t));
}

/* From a weight's gradient to its step as src/optimiser/muon.c goes, once round. */
static void iteration_trial(struct twins *t)
{
    struct matrix x = random_matrix(t);
    size_t most = x.rows + x.columns - x.n;
    struct twin *square = twin_random(t, x.n * x.n, t->dtype, 1), *squared = twin_random(t, x.n * x.n, t->dtype, 1);
    struct twin *next = twin_random(t, x.n * most, t->dtype, 1);
    const struct muon muon = {.momentum = 0.5f, .eps = 1e-7f};
    run_direction(t, &x, &muon);
    TWINS_RUN_OP(t, linear_forward, .out = SIDE(square), .in = SIDE(x.out), .weight = SIDE(x.out), .rows = x.n,
                 .in_dim = most, .out_dim = x.n);
    TWINS_RUN_OP(t, linear_forward, .out = SIDE(squared), .in = SIDE(square), .weight = SIDE(square), .rows = x.n,
                 .in_dim = x.n, .out_dim = x.n);
    TWINS_RUN_OP(t, muon_polynomial, .out = SIDE(squared), .x = SIDE(square), .x_squared = SIDE(squared), .n = x.n,
                 .identity = 4.0848f, .linear = -6.8946f, .square = 2.9270f);
    TWINS_RUN_OP(t, linear_backward, .in_gradient = SIDE(next), .out_gradient = SIDE(squared), .weight = SIDE(x.out),
                 .rows = x.n, .in_dim = most, .out_dim = x.n);
    assert_twins_agree(t, "one iteration", next, 2 * twins_bound(t));
}

/* A step over the limit, behind a bad one or with a bad norm keeps every bit: all sides still hold the same. */
static void withheld_trial(struct twins *t)
{
    const double bad = random_between(t, 0, 1) ? (double)NAN : (double)INFINITY, good = 4;
    struct matrix x = random_matrix(t);
    struct twin *broken = twin_raw(t, &bad, sizeof bad);
    const struct muon plain = {.momentum = 0.9f, .eps = 1e-7f};
    struct muon behind = plain, over = plain;
    x.sum = twin_raw(t, &good, sizeof good);
    over.sum_of_squares_limit = 3;
    for (int side = 1; side < SIDES; side++) { /* the CPU's side keeps what was there before */
        struct error error;
        const struct muon *muons[] = {&plain, &over, &behind};
        for (int i = 0; i < 3; i++) {
            const double *sum = i == 0 ? SIDE(broken) : SIDE(x.sum);
            behind.earlier_sum_of_squares = SIDE(broken);
            struct muon_direction direction = {SIDE(x.m), SIDE(x.out), SIDE(x.gradient), sum,
                                               x.rows,    x.columns,   muons[i]};
            struct muon_apply apply = {.master = SIDE(x.master),
                                       .working = SIDE(x.working),
                                       .direction = SIDE(x.out),
                                       .gradient_sum_of_squares = sum,
                                       .rows = x.rows,
                                       .columns = x.columns,
                                       .keep = 0.5f,
                                       .step = 1,
                                       .muon = muons[i]};
            assert_ok(t->sides[side].k->muon_direction(t->sides[side].ctx, &direction, &error), &error);
            assert_ok(t->sides[side].k->muon_apply(t->sides[side].ctx, &apply, &error), &error);
        }
    }
    assert_twins_agree(t, "m", x.m, 0);
    assert_twins_agree(t, "master", x.master, 0);
    assert_twins_agree(t, "working", x.working, 0);
}

#define MATCHES(name, trials)                \
    static void name##_matches(void **state) \
    {                                        \
        (void)state;                         \
        twins_each(name##_trial, trials);    \
    }
MATCHES(step, 8)
MATCHES(polynomial, 4)
MATCHES(iteration, 4)
MATCHES(withheld, 3)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(step_matches),
        cmocka_unit_test(polynomial_matches),
        cmocka_unit_test(iteration_matches),
        cmocka_unit_test(withheld_matches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
