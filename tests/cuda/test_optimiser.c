/* AdamW, SGD, the gradient's norm, rounding and the search for numbers that are not finite, on CUDA beside the CPU. */
#include "tests/cuda/twins.h"

#include <math.h>
#include <stdlib.h>

static struct twin *random_flags(struct twins *t, size_t count)
{
    uint8_t *flags = malloc(count);
    assert_non_null(flags);
    for (size_t i = 0; i < count; i++)
        flags[i] = (uint8_t)random_between(t, 0, 1);
    struct twin *twin = twin_raw(t, flags, count);
    free(flags);
    return twin;
}

/* What the learning rate is multiplied by: 0, or up to 1. */
static struct twin *random_scales(struct twins *t, size_t count)
{
    float *scales = malloc(count * sizeof *scales);
    assert_non_null(scales);
    for (size_t i = 0; i < count; i++)
        scales[i] = (float)fmax(random_number(t), 0);
    struct twin *twin = twin_raw(t, scales, count * sizeof *scales);
    free(scales);
    return twin;
}

static void adamw_trial(struct twins *t)
{
    size_t count = 64 * random_between(t, 1, 300);
    struct twin *master = twin_random(t, count, DTYPE_FLOAT32, 1), *m = twin_random(t, count, DTYPE_FLOAT32, 0),
                *v = twin_random(t, count, DTYPE_FLOAT32, 0), *decay = random_flags(t, count / 64),
                *working = twin_random(t, count, t->dtype, 1);
    struct twin *lr_scale = random_between(t, 0, 1) ? random_scales(t, count / 64) : NULL;
    double nothing = 0;
    struct twin *sum = twin_raw(t, &nothing, sizeof nothing);
    struct adamw adamw = {.lr = 1e-2f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.05f};
    adamw.clip_grad_norm = random_between(t, 0, 1) ? 1.0f : 0.0f;
    adamw.nesterov = random_between(t, 0, 1);
    for (adamw.step = 1; adamw.step <= 3; adamw.step++) {
        struct twin *gradient = twin_random(t, count, DTYPE_FLOAT32, adamw.step == 2 ? 1e-3 : 1);
        TWINS_RUN(t, sum_of_squares, SIDE(sum), SIDE(gradient), count);
        TWINS_RUN_OP(t, adamw_update, .master = SIDE(master), .m = SIDE(m), .v = SIDE(v), .working = SIDE(working),
                     .gradient = SIDE(gradient), .decay = SIDE(decay), .lr_scale = SIDE(lr_scale),
                     .gradient_sum_of_squares = SIDE(sum), .count = count, .adamw = &adamw);
        assert_twins_agree(t, "master", master, 1e-5);
        assert_twins_agree(t, "working", working, twins_bound(t));
        assert_twins_agree(t, "m", m, 1e-5);
        assert_twins_agree(t, "v", v, 1e-5);
    }
}

static void sgd_trial(struct twins *t)
{
    size_t count = 64 * random_between(t, 1, 300);
    struct twin *master = twin_random(t, count, DTYPE_FLOAT32, 1), *m = twin_random(t, count, DTYPE_FLOAT32, 0),
                *decay = random_flags(t, count / 64), *working = twin_random(t, count, t->dtype, 1),
                *gradient = twin_random(t, count, DTYPE_FLOAT32, 1);
    struct twin *lr_scale = random_between(t, 0, 1) ? random_scales(t, count / 64) : NULL;
    double squares = 9, number = NAN;
    struct twin *sum = twin_raw(t, &squares, sizeof squares), *broken = twin_raw(t, &number, sizeof number);
    struct sgd sgd = {.lr = 0.1f, .momentum = 0.9f, .weight_decay = 0.05f, .nesterov = random_between(t, 0, 1)};
    sgd.clip_grad_norm = random_between(t, 0, 1) ? 1.0f : 0.0f;
    for (int step = 0; step < 5; step++)
        for (int side = step < 3 ? 0 : 1; side < SIDES; side++) { /* the last two are withheld: on CUDA's sides alone */
            struct error error;
            sgd.sum_of_squares_limit = step == 3 ? nextafter(squares, 0) : squares;
            sgd.earlier_sum_of_squares = step == 4 ? SIDE(broken) : NULL;
            struct sgd_update update = {.master = SIDE(master),
                                        .m = SIDE(m),
                                        .working = SIDE(working),
                                        .gradient = SIDE(gradient),
                                        .decay = SIDE(decay),
                                        .lr_scale = SIDE(lr_scale),
                                        .gradient_sum_of_squares = SIDE(sum),
                                        .count = count,
                                        .sgd = &sgd};
            assert_ok(t->sides[side].k->sgd_update(t->sides[side].ctx, &update, &error), &error);
        }
    assert_twins_agree(t, "master", master, 1e-5);
    assert_twins_agree(t, "working", working, twins_bound(t));
    assert_twins_agree(t, "m", m, 1e-5);
}

/* A NaN or an infinite norm must leave everything as it is. */
static void refuses_trial(struct twins *t)
{
    size_t count = 64 * random_between(t, 1, 40);
    struct twin *master = twin_random(t, count, DTYPE_FLOAT32, 1), *m = twin_random(t, count, DTYPE_FLOAT32, 1),
                *v = twin_random(t, count, DTYPE_FLOAT32, 1), *decay = random_flags(t, count / 64),
                *working = twin_random(t, count, t->dtype, 1), *gradient = twin_random(t, count, DTYPE_FLOAT32, 1);
    double bad = random_between(t, 0, 1) ? (double)NAN : (double)INFINITY;
    struct twin *sum = twin_raw(t, &bad, sizeof bad);
    struct adamw adamw = {.lr = 1, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.5f, .step = 1};
    /* Only on the CUDA sides: the CPU's copy keeps what was there before. */
    for (int side = 1; side < SIDES; side++) {
        struct error error;
        struct adamw_update update = {.master = SIDE(master),
                                      .m = SIDE(m),
                                      .v = SIDE(v),
                                      .working = SIDE(working),
                                      .gradient = SIDE(gradient),
                                      .decay = SIDE(decay),
                                      .gradient_sum_of_squares = SIDE(sum),
                                      .count = count,
                                      .adamw = &adamw};
        assert_ok(t->sides[side].k->adamw_update(t->sides[side].ctx, &update, &error), &error);
    }
    assert_twins_agree(t, "master", master, 0);
    assert_twins_agree(t, "m", m, 0);
    assert_twins_agree(t, "v", v, 0);
    assert_twins_agree(t, "working", working, 0);
}

/* Over the limit, or behind a step that was not finite: nothing is changed on the device. At the limit: a step. */
static void withheld_trial(struct twins *t)
{
    size_t count = 64 * random_between(t, 1, 40);
    struct twin *master = twin_random(t, count, DTYPE_FLOAT32, 1), *m = twin_random(t, count, DTYPE_FLOAT32, 1),
                *v = twin_random(t, count, DTYPE_FLOAT32, 0), *decay = random_flags(t, count / 64),
                *working = twin_random(t, count, t->dtype, 1), *gradient = twin_random(t, count, DTYPE_FLOAT32, 1);
    double squares = 2.25, number = random_between(t, 0, 1) ? (double)NAN : (double)INFINITY, whole = 1;
    struct twin *sum = twin_raw(t, &squares, sizeof squares), *broken = twin_raw(t, &number, sizeof number),
                *finite = twin_raw(t, &whole, sizeof whole);
    struct adamw adamw = {.lr = 1, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.5f, .step = 1};
    /* Only on the CUDA sides: the CPU's copy keeps what was there before. */
    for (int trial = 0; trial < 2; trial++)
        for (int side = 1; side < SIDES; side++) {
            struct error error;
            adamw.sum_of_squares_limit = trial == 0 ? nextafter(squares, 0) : 0;
            adamw.earlier_sum_of_squares = trial == 0 ? NULL : SIDE(broken);
            struct adamw_update update = {.master = SIDE(master),
                                          .m = SIDE(m),
                                          .v = SIDE(v),
                                          .working = SIDE(working),
                                          .gradient = SIDE(gradient),
                                          .decay = SIDE(decay),
                                          .gradient_sum_of_squares = SIDE(sum),
                                          .count = count,
                                          .adamw = &adamw};
            assert_ok(t->sides[side].k->adamw_update(t->sides[side].ctx, &update, &error), &error);
        }
    assert_twins_agree(t, "master", master, 0);
    assert_twins_agree(t, "m", m, 0);
    assert_twins_agree(t, "v", v, 0);
    assert_twins_agree(t, "working", working, 0);
    for (int side = 0; side < SIDES; side++) { /* on all sides, the CPU's too */
        struct error error;
        adamw.sum_of_squares_limit = squares;
        adamw.earlier_sum_of_squares = SIDE(finite);
        struct adamw_update update = {.master = SIDE(master),
                                      .m = SIDE(m),
                                      .v = SIDE(v),
                                      .working = SIDE(working),
                                      .gradient = SIDE(gradient),
                                      .decay = SIDE(decay),
                                      .gradient_sum_of_squares = SIDE(sum),
                                      .count = count,
                                      .adamw = &adamw};
        assert_ok(t->sides[side].k->adamw_update(t->sides[side].ctx, &update, &error), &error);
    }
    assert_twins_agree(t, "master", master, 1e-5);
    assert_twins_agree(t, "m", m, 1e-5);
}

/* The same bits as on the CPU: steps, a copy, and steps that are withheld. */
static void average_trial(struct twins *t)
{
    size_t count = 64 * random_between(t, 1, 300);
    const double sums[] = {1, 5, (double)NAN, (double)INFINITY}, bad = (double)NAN;
    struct twin *average = twin_random(t, count, DTYPE_FLOAT32, 1), *broken = twin_raw(t, &bad, sizeof bad);
    for (int step = 0; step < 8; step++) {
        struct twin *master = twin_random(t, count, DTYPE_FLOAT32, 1),
                    *sum = twin_raw(t, &sums[random_between(t, 0, 3)], sizeof *sums),
                    *earlier = random_between(t, 0, 3) ? sum : broken;
        double decay = random_between(t, 0, 3) ? 0.75 + 0.2 * random_number(t) : 0;
        TWINS_RUN_OP(t, average_update, .average = SIDE(average), .master = SIDE(master), .decay = decay,
                     .count = count, .gradient_sum_of_squares = SIDE(sum), .earlier_sum_of_squares = SIDE(earlier),
                     .sum_of_squares_limit = 4);
        assert_twins_agree(t, "average", average, 0);
    }
}

static void norm_trial(struct twins *t)
{
    size_t count = random_between(t, 0, 2) ? random_between(t, 1, 5000) : random_between(t, 600000, 700000);
    struct twin *x = twin_random(t, count, DTYPE_FLOAT32, 1);
    double nothing = 0, sums[SIDES];
    struct twin *sum = twin_raw(t, &nothing, sizeof nothing);
    TWINS_RUN(t, sum_of_squares, SIDE(sum), SIDE(x), count);
    TWINS_RUN(t, download, &sums[side], SIDE(sum), sizeof nothing);
    for (int side = 0; side < SIDES; side++) {
        struct error error;
        assert_ok(t->sides[side].k->synchronise(t->sides[side].ctx, &error), &error);
    }
    assert_true(sums[1] == sums[2]);
    assert_true(fabs(sums[0] - sums[1]) <= 1e-12 * sums[0]);
}

static void round_trial(struct twins *t)
{
    size_t count = 64 * random_between(t, 1, 100);
    struct twin *master = twin_random(t, count, DTYPE_FLOAT32, 1), *working = twin_random(t, count, t->dtype, 1);
    TWINS_RUN(t, round_parameters, SIDE(working), SIDE(master), count);
    assert_twins_agree(t, "working", working, twins_bound(t) / 4); /* half a last place is 2e-3 */
}

static void zero_trial(struct twins *t)
{
    size_t count = 64 * random_between(t, 1, 300);
    struct twin *x = twin_random(t, count, DTYPE_FLOAT32, 1), *keep = random_flags(t, count / 64);
    TWINS_RUN(t, zero_groups, SIDE(x), SIDE(keep), count);
    assert_twins_agree(t, "x", x, 0);
}

static void nonfinite_trial(struct twins *t)
{
    size_t count = random_between(t, 1, 3000), at = random_between(t, 0, count - 1), first;
    struct twin *x = twin_random(t, count, t->dtype, 1);
    const struct side *cuda = &t->sides[1];
    struct error error;
    assert_ok(cuda->k->find_nonfinite(cuda->ctx, &first, x->data[1], t->dtype, count, &error), &error);
    assert_int_equal(first, count);
    static const float infinity = INFINITY;
    size_t width = dtype_bytes(t->dtype);
    /* The upper half of a little-endian float32 is its bfloat16. */
    const char *bits = (const char *)&infinity + (4 - width);
    for (size_t i = at; i < count; i += 1 + count / 3)
        assert_ok(cuda->k->upload(cuda->ctx, (char *)x->data[1] + i * width, bits, width, &error), &error);
    assert_ok(cuda->k->find_nonfinite(cuda->ctx, &first, x->data[1], t->dtype, count, &error), &error);
    assert_int_equal(first, at);
}

#define MATCHES(name, trials)                \
    static void name##_matches(void **state) \
    {                                        \
        (void)state;                         \
        twins_each(name##_trial, trials);    \
    }
MATCHES(adamw, 8)
MATCHES(sgd, 8)
MATCHES(refuses, 4)
MATCHES(withheld, 4)
MATCHES(average, 12)
MATCHES(norm, 6)
MATCHES(round, 4)
MATCHES(nonfinite, 8)
MATCHES(zero, 8)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adamw_matches), cmocka_unit_test(refuses_matches),   cmocka_unit_test(norm_matches),
        cmocka_unit_test(round_matches), cmocka_unit_test(nonfinite_matches), cmocka_unit_test(withheld_matches),
        cmocka_unit_test(zero_matches),  cmocka_unit_test(average_matches),   cmocka_unit_test(sgd_matches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
