/* LAMB on the CPU against float64: every option, tensors of zeros and without decay, a rank's part, any number of
 * threads, withheld steps. */
#include "tests/unit/op_test.h"

enum { MOST_TENSORS = 12, MOST_GROUPS = 40 };

struct lamb_trial {
    struct tensor *master, *m, *v, *working, *gradient;
    uint32_t first[MOST_TENSORS + 1];
    uint16_t of[MOST_GROUPS * MOST_TENSORS];
    uint8_t decay[MOST_GROUPS * MOST_TENSORS];
    float scales[MOST_GROUPS * MOST_TENSORS], group_sums[2 * MOST_GROUPS * MOST_TENSORS], factors[2 * MOST_TENSORS];
    double tensor_sums[2 * MOST_TENSORS], sum;
    size_t tensors, count;
};

/* Tensors of random sizes, one of which is 0; some do not decay, some stand still. */
static void make(struct op_test *test, struct lamb_trial *t)
{
    size_t groups = 0;
    t->tensors = random_between(test, 2, MOST_TENSORS);
    for (size_t tensor = 0; tensor < t->tensors; tensor++) {
        size_t here = random_between(test, 1, MOST_GROUPS);
        uint8_t decay = (uint8_t)random_between(test, 0, 1);
        float scale = random_between(test, 0, 4) ? (float)fabs(random_number(test)) : 0.0f;
        t->first[tensor] = (uint32_t)groups;
        for (; here > 0; here--, groups++) {
            t->of[groups] = (uint16_t)tensor;
            t->decay[groups] = decay;
            t->scales[groups] = scale;
        }
    }
    t->first[t->tensors] = (uint32_t)groups;
    t->count = 64 * groups;
    t->master = tensor_random(test, t->count, DTYPE_FLOAT32, 1);
    t->m = tensor_zeros(test, t->count, DTYPE_FLOAT32);
    t->v = tensor_zeros(test, t->count, DTYPE_FLOAT32);
    t->working = tensor_zeros(test, t->count, test->dtype);
    t->gradient = tensor_zeros(test, t->count, DTYPE_FLOAT32);
    size_t zero = random_between(test, 0, t->tensors - 1);
    for (size_t i = (size_t)64 * t->first[zero]; i < (size_t)64 * t->first[zero + 1]; i++)
        tensor_set(t->master, i, 0);
}

static void draw_gradient(struct op_test *test, struct lamb_trial *t, double scale)
{
    struct error error;
    for (size_t i = 0; i < t->count; i++)
        tensor_set(t->gradient, i, scale * random_number(test));
    assert_ok(test->k->sum_of_squares(test->ctx, &t->sum, t->gradient->data, t->count, &error), &error);
}

static struct lamb_update update_of(struct lamb_trial *t, const struct adamw *adamw)
{
    return (struct lamb_update){.master = t->master->data,
                                .m = t->m->data,
                                .v = t->v->data,
                                .working = t->working->data,
                                .gradient = t->gradient->data,
                                .decay = t->decay,
                                .lr_scale = t->scales,
                                .gradient_sum_of_squares = &t->sum,
                                .count = t->count,
                                .tensor_first = t->first,
                                .tensor_of = t->of,
                                .tensors = t->tensors,
                                .group_sums = t->group_sums,
                                .tensor_factors = t->factors,
                                .tensor_sums = t->tensor_sums,
                                .adamw = adamw};
}

static void run(struct op_test *test, const struct lamb_update *update)
{
    struct error error;
    assert_ok(test->k->lamb_moments(test->ctx, update, &error), &error);
    assert_ok(test->k->lamb_apply(test->ctx, update, &error), &error);
}

/* One tensor by timm's Lamb, after its source. */
static void reference_tensor(const struct lamb_update *op, struct lamb_trial *t, size_t tensor, double norm)
{
    const struct adamw *a = op->adamw;
    double beta1 = (double)a->beta1, beta2 = (double)a->beta2, weights = 0, directions = 0;
    double clip = a->clip_grad_norm > 0 ? fmax(norm / (double)a->clip_grad_norm, 1) : 1;
    size_t begin = (size_t)64 * t->first[tensor], end = (size_t)64 * t->first[tensor + 1];
    double decay = t->decay[begin / 64] ? (double)a->weight_decay : 0;
    double *w = t->master->exact, *m = t->m->exact, *v = t->v->exact, *u = calloc(end, sizeof *u);
    assert_non_null(u);
    for (size_t i = begin; i < end; i++) {
        double g = t->gradient->exact[i] / clip;
        m[i] = beta1 * m[i] + (1 - beta1) * g;
        v[i] = beta2 * v[i] + (1 - beta2) * g * g;
        u[i] = m[i] / (1 - pow(beta1, (double)a->step)) /
               (sqrt(v[i]) / sqrt(1 - pow(beta2, (double)a->step)) + (double)a->eps);
        u[i] += decay * w[i];
        weights += w[i] * w[i];
        directions += u[i] * u[i];
    }
    double ratio = decay != 0 && weights > 0 && directions > 0 ? sqrt(weights / directions) : 1;
    if (op->trust_clip)
        ratio = fmin(ratio, 1);
    for (size_t i = begin; i < end; i++)
        w[i] -= (double)a->lr * (op->lr_scale ? (double)op->lr_scale[i / 64] : 1) * ratio * u[i];
    free(u);
}

static void trial(struct op_test *test)
{
    struct lamb_trial t;
    make(test, &t);
    struct adamw adamw = {.lr = 0.02f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.1f};
    adamw.clip_grad_norm = random_between(test, 0, 1) ? 1.0f : 0.0f;
    if (random_between(test, 0, 3) == 0)
        adamw.weight_decay = 0; /* then no tensor has a ratio */
    struct lamb_update update = update_of(&t, &adamw);
    update.lr_scale = random_between(test, 0, 1) ? t.scales : NULL;
    update.trust_clip = random_between(test, 0, 1);
    for (adamw.step = 1; adamw.step <= 4; adamw.step++) {
        draw_gradient(test, &t, adamw.step == 3 ? 1e-4 : 0.2); /* the third is not clipped */
        run(test, &update);
        for (size_t tensor = 0; tensor < t.tensors; tensor++)
            reference_tensor(&update, &t, tensor, sqrt(t.sum));
    }
    assert_close("master", t.master, t.master->exact, 3e-6);
    assert_close("m", t.m, t.m->exact, 2e-6);
    assert_close("v", t.v, t.v->exact, 2e-6);
    assert_close("working", t.working, t.master->exact, tolerance(test->dtype));
}

/* Ratios on both sides of 1, so that trust_clip has something to do. */
static void clipped_ratio_trial(struct op_test *test)
{
    struct lamb_trial t;
    make(test, &t);
    memset(t.decay, 1, sizeof t.decay);
    for (size_t i = 0; i < t.count; i++)
        tensor_set(t.master, i, (t.of[i / 64] % 2 ? 1e-2 : 10) * (1 + random_number(test)));
    struct adamw adamw = {.lr = 0.5f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.01f, .step = 1};
    struct lamb_update update = update_of(&t, &adamw);
    update.trust_clip = true;
    update.lr_scale = NULL;
    draw_gradient(test, &t, 1);
    run(test, &update);
    assert_true(t.factors[0] == 0.5f);                          /* |w| / |u| is about 11 */
    assert_true(t.factors[2] < 0.01f && t.factors[2] > 0.001f); /* and 0.01 */
    update.trust_clip = false;
    run(test, &update);
    assert_true(t.factors[0] > 1);
}

static void withheld_trial(struct op_test *test)
{
    struct lamb_trial t;
    make(test, &t);
    draw_gradient(test, &t, 1);
    double sum = t.sum, whole = 1, broken = random_between(test, 0, 1) ? (double)NAN : (double)INFINITY;
    struct adamw plain = {.lr = 0.02f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.1f, .step = 3};
    struct adamw over = plain, behind = plain, at_limit = plain;
    over.sum_of_squares_limit = nextafter(sum, 0);
    behind.earlier_sum_of_squares = &broken;
    at_limit.sum_of_squares_limit = sum;
    at_limit.earlier_sum_of_squares = &whole;
    const struct adamw *steps[] = {&plain, &over, &behind};
    struct tensor *state[] = {t.master, t.m, t.v, t.working}, *before[4];
    for (int i = 0; i < 4; i++)
        before[i] = tensor_copy(test, state[i]);
    for (int bad = 0; bad < 3; bad++) {
        struct lamb_update update = update_of(&t, steps[bad]);
        t.sum = bad == 0 ? broken : sum;
        run(test, &update);
    }
    for (int i = 0; i < 4; i++)
        assert_same_bits("state before and after steps that are withheld", state[i], before[i]);
    struct lamb_update update = update_of(&t, &at_limit);
    update.lr_scale = NULL;
    run(test, &update);
    assert_true(memcmp(t.master->data, before[0]->data, t.count * sizeof(float)) != 0);
}

/* Two ranks with a part each, cut within a tensor or not, whose sums are added up between the two ops. */
static void parts_trial(struct op_test *test)
{
    struct error error;
    struct lamb_trial t;
    make(test, &t);
    draw_gradient(test, &t, 1);
    struct tensor *master = tensor_copy(test, t.master), *m = tensor_copy(test, t.m), *v = tensor_copy(test, t.v);
    struct adamw adamw = {.lr = 0.5f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.1f, .step = 1};
    struct lamb_update whole = update_of(&t, &adamw), part[2];
    size_t cut = 64 * random_between(test, 1, t.count / 64 - 1);
    double sums[2][2 * MOST_TENSORS], added[2 * MOST_TENSORS];
    for (int i = 0; i < 2; i++) {
        size_t first = i ? cut : 0;
        part[i] = whole;
        part[i].first = first;
        part[i].count = i ? t.count - cut : cut;
        part[i].master = (float *)master->data + first;
        part[i].m = (float *)m->data + first;
        part[i].v = (float *)v->data + first;
        part[i].working = NULL;
        part[i].gradient = (float *)t.gradient->data + first;
        part[i].decay = t.decay + first / 64;
        part[i].lr_scale = t.scales + first / 64;
        part[i].tensor_of = t.of + first / 64;
        part[i].tensor_sums = sums[i];
        assert_ok(test->k->lamb_moments(test->ctx, &part[i], &error), &error);
    }
    for (size_t i = 0; i < 2 * t.tensors; i++)
        added[i] = sums[0][i] + sums[1][i];
    for (int i = 0; i < 2; i++) {
        part[i].tensor_sums = added;
        assert_ok(test->k->lamb_apply(test->ctx, &part[i], &error), &error);
    }
    run(test, &whole);
    assert_same_bits("m of the whole and of two parts", t.m, m);
    assert_same_bits("v of the whole and of two parts", t.v, v);
    for (size_t i = 0; i < 2 * t.tensors; i++)
        assert_true(fabs(added[i] - t.tensor_sums[i]) <= 1e-14 * added[i]);
    for (size_t i = 0; i < t.count; i++)
        master->exact[i] = tensor_get(master, i);
    assert_close("master of the whole and of two parts", t.master, master->exact, 1e-7);
}

/* The sums do not depend on the number of threads. */
static void threads_give_the_same_bits(void **state)
{
    (void)state;
    struct lamb_trial kept[2];
    struct op_test tests[2];
    for (int i = 0; i < 2; i++) {
        assert_true(op_test_open(&tests[i], kernels_cpu(), DTYPE_FLOAT32, i ? 3 : 1));
        make(&tests[i], &kept[i]);
        struct adamw adamw = {.lr = 0.1f, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-6f, .weight_decay = 1, .step = 1};
        struct lamb_update update = update_of(&kept[i], &adamw);
        draw_gradient(&tests[i], &kept[i], 1);
        kept[i].sum = 1;
        run(&tests[i], &update);
    }
    assert_same_bits("on one thread and on three", kept[0].master, kept[1].master);
    for (int i = 0; i < 2; i++) {
        op_test_release_tensors(&tests[i]);
        tests[i].k->close(tests[i].ctx);
    }
}

#define EACH(name, trial, trials)    \
    static void name(void **state)   \
    {                                \
        (void)state;                 \
        op_test_each(trial, trials); \
    }
EACH(matches_float64, trial, 12)
EACH(trust_clip_bounds_the_ratio, clipped_ratio_trial, 2)
EACH(withheld_steps_change_nothing, withheld_trial, 3)
EACH(parts_agree_with_the_whole, parts_trial, 6)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_float64),
        cmocka_unit_test(trust_clip_bounds_the_ratio),
        cmocka_unit_test(withheld_steps_change_nothing),
        cmocka_unit_test(parts_agree_with_the_whole),
        cmocka_unit_test(threads_give_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
