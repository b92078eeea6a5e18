/* Muon's ops on the CPU against float64: standing, lying and square matrices, clipping, Nesterov, withheld steps. */
#include "tests/unit/op_test.h"

struct matrix {
    size_t rows, columns, n, most;
    struct tensor *master, *working, *m, *gradient, *out;
};

static struct matrix random_matrix(struct op_test *test)
{
    struct matrix x = {.rows = random_between(test, 1, 70), .columns = random_between(test, 1, 70)};
    if (random_between(test, 0, 3) == 0)
        x.columns = x.rows;
    x.n = x.rows < x.columns ? x.rows : x.columns;
    x.most = x.rows + x.columns - x.n;
    x.master = tensor_random(test, x.rows * x.columns, DTYPE_FLOAT32, 1);
    x.working = tensor_random(test, x.rows * x.columns, test->dtype, 1);
    x.m = tensor_random(test, x.rows * x.columns, DTYPE_FLOAT32, 1);
    x.gradient = tensor_random(test, x.rows * x.columns, DTYPE_FLOAT32, 1);
    x.out = tensor_zeros(test, x.rows * x.columns, test->dtype);
    return x;
}

static size_t lying(const struct matrix *x, size_t i)
{
    size_t row = i / x->columns, column = i % x->columns;
    return x->rows > x->columns ? column * x->rows + row : i;
}

static bool run_direction(struct op_test *test, const struct matrix *x, const struct muon *muon, const double *sum)
{
    struct error error;
    struct muon_direction op = {.m = x->m->data,
                                .out = x->out->data,
                                .gradient = x->gradient->data,
                                .gradient_sum_of_squares = sum,
                                .rows = x->rows,
                                .columns = x->columns,
                                .muon = muon};
    return test->k->muon_direction(test->ctx, &op, &error);
}

static void direction_trial(struct op_test *test)
{
    struct matrix x = random_matrix(test);
    size_t count = x.rows * x.columns;
    struct muon muon = {.momentum = 0.95f, .eps = 1e-7f, .nesterov = random_between(test, 0, 1)};
    muon.clip_grad_norm = random_between(test, 0, 1) ? 0.5f : 0;
    double squares = 0, norm = 0, *u = calloc(count, sizeof *u), *out = calloc(count, sizeof *out);
    for (size_t i = 0; i < count; i++)
        squares += x.gradient->exact[i] * x.gradient->exact[i];
    double clip = muon.clip_grad_norm > 0 ? fmin(1, (double)muon.clip_grad_norm / (sqrt(squares) + 1e-6)) : 1;
    for (size_t i = 0; i < count; i++) {
        double g = clip * x.gradient->exact[i], momentum = (double)muon.momentum;
        x.m->exact[i] = momentum * x.m->exact[i] + (1 - momentum) * g;
        u[i] = muon.nesterov ? (1 - momentum) * g + momentum * x.m->exact[i] : x.m->exact[i];
        norm += u[i] * u[i];
    }
    for (size_t i = 0; i < count; i++)
        out[lying(&x, i)] = u[i] / sqrt(norm);
    assert_true(run_direction(test, &x, &muon, &squares));
    assert_close("m", x.m, x.m->exact, 2e-6);
    assert_close("direction", x.out, out, tolerance(test->dtype));
    free(u);
    free(out);
}

/* A gradient of zeros has no direction, and one below eps is not blown up to a whole step. */
static void small_trial(struct op_test *test)
{
    struct matrix x = random_matrix(test);
    size_t count = x.rows * x.columns;
    const struct muon muon = {.momentum = 0.5f, .eps = 1e-7f};
    double squares = 0;
    for (size_t i = 0; i < count; i++) {
        tensor_set(x.m, i, 0);
        tensor_set(x.gradient, i, 0);
    }
    assert_true(run_direction(test, &x, &muon, &squares));
    for (size_t i = 0; i < count; i++)
        assert_true(tensor_get(x.out, i) == 0);
    tensor_set(x.gradient, 0, 1e-8);
    squares = 1e-16;
    assert_true(run_direction(test, &x, &muon, &squares));
    assert_true(fabs(tensor_get(x.out, 0) - 0.05) < 1e-3); /* 0.5e-8 / 1e-7 */
}

static void polynomial_trial(struct op_test *test)
{
    struct error error;
    size_t n = random_between(test, 1, 40);
    struct tensor *x = tensor_random(test, n * n, test->dtype, 1),
                  *squared = tensor_random(test, n * n, test->dtype, 1);
    double *expected = calloc(n * n, sizeof *expected);
    for (size_t i = 0; i < n * n; i++)
        expected[i] = (i / n == i % n ? 4 : 0) - 6.5 * x->exact[i] + 2.75 * squared->exact[i];
    struct muon_polynomial op = {squared->data, x->data, squared->data, n, 4, -6.5f, 2.75f}; /* in place */
    assert_ok(test->k->muon_polynomial(test->ctx, &op, &error), &error);
    assert_close("polynomial", squared, expected, tolerance(test->dtype));
    free(expected);
}

static bool run_apply(struct op_test *test, const struct matrix *x, const struct muon *muon, const double *sum)
{
    struct error error;
    struct muon_apply op = {.master = x->master->data,
                            .working = x->working->data,
                            .direction = x->out->data,
                            .gradient_sum_of_squares = sum,
                            .rows = x->rows,
                            .columns = x->columns,
                            .keep = 0.75f,
                            .step = 0.5f,
                            .muon = muon};
    return test->k->muon_apply(test->ctx, &op, &error);
}

static void apply_trial(struct op_test *test)
{
    struct matrix x = random_matrix(test);
    const struct muon muon = {0};
    const double squares = 1;
    for (size_t i = 0; i < x.rows * x.columns; i++)
        tensor_set(x.out, i, random_number(test));
    for (size_t i = 0; i < x.rows * x.columns; i++)
        x.master->exact[i] = 0.75 * x.master->exact[i] - 0.5 * x.out->exact[lying(&x, i)];
    assert_true(run_apply(test, &x, &muon, &squares));
    assert_close("master", x.master, x.master->exact, 2e-6);
    assert_close("working", x.working, x.master->exact, tolerance(test->dtype));
}

/* As AdamW's: a step over the limit, behind a bad one, or with a bad norm changes nothing; at the limit it is a step.
 */
static void withheld_trial(struct op_test *test)
{
    struct matrix x = random_matrix(test);
    const double bad = random_between(test, 0, 1) ? (double)NAN : (double)INFINITY, good = 4;
    struct tensor *state[] = {x.master, x.working, x.m}, *before[3];
    for (int i = 0; i < 3; i++)
        before[i] = tensor_copy(test, state[i]);
    const struct muon plain = {.momentum = 0.9f, .eps = 1e-7f},
                      over = {.momentum = 0.9f, .eps = 1e-7f, .sum_of_squares_limit = 3},
                      behind = {.momentum = 0.9f, .eps = 1e-7f, .earlier_sum_of_squares = &bad},
                      at_limit = {
                          .momentum = 0.9f, .eps = 1e-7f, .sum_of_squares_limit = 4, .earlier_sum_of_squares = &good};
    assert_true(run_direction(test, &x, &plain, &bad) && run_apply(test, &x, &plain, &bad));
    assert_true(run_direction(test, &x, &over, &good) && run_apply(test, &x, &over, &good));
    assert_true(run_direction(test, &x, &behind, &good) && run_apply(test, &x, &behind, &good));
    for (int i = 0; i < 3; i++)
        assert_same_bits("state before and after a step that is withheld", state[i], before[i]);
    assert_true(run_direction(test, &x, &at_limit, &good) && run_apply(test, &x, &at_limit, &good));
    for (int i = 0; i < 3; i++)
        assert_true(memcmp(state[i]->data, before[i]->data, state[i]->count * dtype_bytes(state[i]->dtype)) != 0);
}

#define TRIALS(name, count)                \
    static void name(void **state)         \
    {                                      \
        (void)state;                       \
        op_test_each(name##_trial, count); \
    }
TRIALS(direction, 12)
TRIALS(small, 2)
TRIALS(polynomial, 6)
TRIALS(apply, 8)
TRIALS(withheld, 4)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(direction), cmocka_unit_test(small),    cmocka_unit_test(polynomial),
        cmocka_unit_test(apply),     cmocka_unit_test(withheld),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
