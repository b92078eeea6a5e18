/* LAMB on CUDA beside the CPU: whole buffers and a rank's part of them, and steps that change nothing. */
#include "tests/cuda/twins.h"

#include <math.h>
#include <stdlib.h>

enum { MOST_TENSORS = 12, MOST_GROUPS = 700 };

struct lamb_twins {
    struct twin *master, *m, *v, *working, *gradient, *decay, *lr_scale, *tensor_first, *tensor_of;
    struct twin *group_sums, *tensor_factors, *tensor_sums, *sum;
    size_t tensors, groups;
};

/* Tensors of few and of many groups; one is zero. A tensor has one decay flag and one scale. */
static struct lamb_twins make(struct twins *t)
{
    static uint32_t first[MOST_TENSORS + 1];
    static uint16_t of[MOST_TENSORS * MOST_GROUPS];
    static uint8_t decay[MOST_TENSORS * MOST_GROUPS];
    static float scales[MOST_TENSORS * MOST_GROUPS], weights[64 * MOST_TENSORS * MOST_GROUPS];
    struct lamb_twins l = {.tensors = random_between(t, 2, MOST_TENSORS)};
    for (size_t tensor = 0; tensor < l.tensors; tensor++) {
        size_t here = random_between(t, 0, 3) ? random_between(t, 1, 20) : random_between(t, 1, MOST_GROUPS);
        uint8_t flag = (uint8_t)random_between(t, 0, 1);
        double size = random_between(t, 0, 4) ? 1 : 0;
        float scale = (float)fmax(random_number(t), 0);
        first[tensor] = (uint32_t)l.groups;
        for (; here > 0; here--, l.groups++) {
            of[l.groups] = (uint16_t)tensor;
            decay[l.groups] = flag;
            scales[l.groups] = scale;
            for (size_t i = 64 * l.groups; i < 64 * l.groups + 64; i++)
                weights[i] = (float)(size * random_number(t));
        }
    }
    first[l.tensors] = (uint32_t)l.groups;
    size_t count = 64 * l.groups;
    double nothing = 0, zeros[2 * MOST_TENSORS] = {0};
    l.master = twin_random(t, count, DTYPE_FLOAT32, 0);
    TWINS_RUN(t, upload, SIDE(l.master), weights, count * sizeof(float));
    l.m = twin_random(t, count, DTYPE_FLOAT32, 0);
    l.v = twin_random(t, count, DTYPE_FLOAT32, 0);
    l.working = twin_random(t, count, t->dtype, 1);
    l.gradient = twin_random(t, count, DTYPE_FLOAT32, 1);
    l.decay = twin_raw(t, decay, l.groups);
    l.lr_scale = twin_raw(t, scales, l.groups * sizeof(float));
    l.tensor_first = twin_raw(t, first, (l.tensors + 1) * sizeof *first);
    l.tensor_of = twin_raw(t, of, l.groups * sizeof *of);
    l.group_sums = twin_random(t, 2 * l.groups, DTYPE_FLOAT32, 0);
    l.tensor_factors = twin_random(t, 2 * l.tensors, DTYPE_FLOAT32, 0);
    l.tensor_sums = twin_raw(t, zeros, 2 * l.tensors * sizeof(double));
    l.sum = twin_raw(t, &nothing, sizeof nothing);
    TWINS_RUN(t, sum_of_squares, SIDE(l.sum), SIDE(l.gradient), count);
    return l;
}

static struct lamb_update update_of(const struct lamb_twins *l, int side, const struct adamw *adamw)
{
    return (struct lamb_update){.master = SIDE(l->master),
                                .m = SIDE(l->m),
                                .v = SIDE(l->v),
                                .working = SIDE(l->working),
                                .gradient = SIDE(l->gradient),
                                .decay = SIDE(l->decay),
                                .lr_scale = SIDE(l->lr_scale),
                                .gradient_sum_of_squares = SIDE(l->sum),
                                .count = 64 * l->groups,
                                .tensor_first = SIDE(l->tensor_first),
                                .tensor_of = SIDE(l->tensor_of),
                                .tensors = l->tensors,
                                .group_sums = SIDE(l->group_sums),
                                .tensor_factors = SIDE(l->tensor_factors),
                                .tensor_sums = SIDE(l->tensor_sums),
                                .adamw = adamw};
}

static void run(struct twins *t, int side, const struct lamb_update *update)
{
    struct error error;
    assert_ok(t->sides[side].k->lamb_moments(t->sides[side].ctx, update, &error), &error);
    assert_ok(t->sides[side].k->lamb_apply(t->sides[side].ctx, update, &error), &error);
}

static void assert_agree(struct twins *t, const struct lamb_twins *l, double bound)
{
    assert_twins_agree(t, "master", l->master, bound);
    assert_twins_agree(t, "working", l->working, bound > 0 ? twins_bound(t) : 0);
    assert_twins_agree(t, "m", l->m, bound);
    assert_twins_agree(t, "v", l->v, bound);
}

static void lamb_trial(struct twins *t)
{
    struct lamb_twins l = make(t);
    bool scaled = random_between(t, 0, 1), trust_clip = random_between(t, 0, 1);
    struct adamw adamw = {.lr = 1e-2f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.05f};
    adamw.clip_grad_norm = random_between(t, 0, 1) ? 1.0f : 0.0f;
    for (adamw.step = 1; adamw.step <= 3; adamw.step++)
        for (int side = 0; side < SIDES; side++) {
            struct lamb_update update = update_of(&l, side, &adamw);
            update.lr_scale = scaled ? update.lr_scale : NULL;
            update.trust_clip = trust_clip;
            run(t, side, &update);
        }
    assert_agree(t, &l, 1e-5);
    assert_twins_agree(t, "factors", l.tensor_factors, 1e-5);
}

/* Only on the CUDA sides: the CPU's copy keeps what was there before. */
static void withheld_trial(struct twins *t)
{
    struct lamb_twins l = make(t);
    double sum[SIDES], number = random_between(t, 0, 1) ? (double)NAN : (double)INFINITY;
    struct twin *broken = twin_raw(t, &number, sizeof number);
    struct adamw adamw = {.lr = 1, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.5f, .step = 1};
    TWINS_RUN(t, round_parameters, SIDE(l.working), SIDE(l.master), 64 * l.groups);
    TWINS_RUN(t, download, &sum[side], SIDE(l.sum), sizeof *sum);
    for (int side = 1; side < SIDES; side++) {
        struct error error;
        assert_ok(t->sides[side].k->synchronise(t->sides[side].ctx, &error), &error);
        for (int way = 0; way < 3; way++) {
            struct adamw withheld = adamw;
            withheld.sum_of_squares_limit = way == 0 ? nextafter(sum[side], 0) : 0;
            withheld.earlier_sum_of_squares = way == 1 ? SIDE(broken) : NULL;
            struct lamb_update update = update_of(&l, side, &withheld);
            update.gradient_sum_of_squares = way == 2 ? SIDE(broken) : SIDE(l.sum);
            run(t, side, &update);
        }
    }
    assert_twins_agree(t, "master", l.master, 0);
    assert_twins_agree(t, "working", l.working, twins_bound(t) / 4); /* half a last place is 2e-3 */
    assert_twins_agree(t, "m", l.m, 0);
    assert_twins_agree(t, "v", l.v, 0);
}

/* A part that may begin and end within a tensor: its sums and its weights, by the tensors' sums of the part alone. */
static void part_trial(struct twins *t)
{
    struct lamb_twins l = make(t);
    size_t begin = random_between(t, 0, l.groups - 1), end = random_between(t, begin + 1, l.groups);
    struct adamw adamw = {.lr = 1e-2f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.05f, .step = 1};
    double sums[SIDES][2 * MOST_TENSORS];
    for (int side = 0; side < SIDES; side++) {
        struct error error;
        struct lamb_update update = update_of(&l, side, &adamw);
        update.master += 64 * begin;
        update.m += 64 * begin;
        update.v += 64 * begin;
        update.working = NULL;
        update.gradient += 64 * begin;
        update.decay += begin;
        update.lr_scale += begin;
        update.tensor_of += begin;
        update.first = 64 * begin;
        update.count = 64 * (end - begin);
        run(t, side, &update);
        assert_ok(t->sides[side].k->download(t->sides[side].ctx, sums[side], update.tensor_sums,
                                             2 * l.tensors * sizeof(double), &error) &&
                      t->sides[side].k->synchronise(t->sides[side].ctx, &error),
                  &error);
    }
    for (size_t i = 0; i < 2 * l.tensors; i++) {
        assert_true(sums[1][i] == sums[2][i]);
        assert_true(fabs(sums[0][i] - sums[1][i]) <= 1e-6 * sums[0][i]);
    }
    assert_twins_agree(t, "master", l.master, 1e-5);
    assert_twins_agree(t, "m", l.m, 1e-5);
    assert_twins_agree(t, "v", l.v, 1e-5);
}

#define MATCHES(name, trials)                \
    static void name##_matches(void **state) \
    {                                        \
        (void)state;                         \
        twins_each(name##_trial, trials);    \
    }
MATCHES(lamb, 6)
MATCHES(withheld, 3)
MATCHES(part, 6)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lamb_matches),
        cmocka_unit_test(withheld_matches),
        cmocka_unit_test(part_matches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
