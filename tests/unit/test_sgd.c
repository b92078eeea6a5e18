/* SGD with momentum on the CPU against float64: every option, a part of the buffers, withheld steps, the master as its
 * own working copy. */
#include "tests/unit/op_test.h"

/* PyTorch's SGD, written after torch.optim.SGD's documentation. */
static void reference_step(double *master, double *buffer, const double *gradient, const uint8_t *decay,
                           const float *lr_scale, size_t count, const struct sgd *sgd, bool first)
{
    double norm = 0, momentum = (double)sgd->momentum;
    for (size_t i = 0; i < count; i++)
        norm += gradient[i] * gradient[i];
    norm = sqrt(norm);
    double clip = sgd->clip_grad_norm > 0 ? fmin(1, (double)sgd->clip_grad_norm / (norm + 1e-6)) : 1;
    for (size_t i = 0; i < count; i++) {
        double g = gradient[i] * clip, lr = (double)sgd->lr * (lr_scale ? (double)lr_scale[i / 64] : 1);
        if (decay[i / 64])
            g += (double)sgd->weight_decay * master[i];
        buffer[i] = first ? g : momentum * buffer[i] + g;
        master[i] -= lr * (sgd->nesterov ? g + momentum * buffer[i] : buffer[i]);
    }
}

struct trial {
    struct tensor *master, *m, *working, *gradient, *scales;
    uint8_t *decay;
    size_t count;
    double sum;
};

static struct trial make(struct op_test *test)
{
    struct trial t = {.count = 64 * random_between(test, 2, 40)};
    t.master = tensor_random(test, t.count, DTYPE_FLOAT32, 1);
    t.m = tensor_zeros(test, t.count, DTYPE_FLOAT32);
    t.working = tensor_zeros(test, t.count, test->dtype);
    t.gradient = tensor_random(test, t.count, DTYPE_FLOAT32, 0.2);
    t.scales = tensor_random(test, t.count / 64, DTYPE_FLOAT32, 1);
    t.decay = malloc(t.count / 64);
    assert_non_null(t.decay);
    for (size_t i = 0; i < t.count / 64; i++) {
        t.decay[i] = (uint8_t)random_between(test, 0, 1);
        ((float *)t.scales->data)[i] = fmaxf(((float *)t.scales->data)[i], 0); /* half of them stand still */
    }
    return t;
}

static void step(struct op_test *test, struct trial *t, const struct sgd *sgd, const float *lr_scale)
{
    struct error error;
    struct sgd_update update = {.master = t->master->data,
                                .m = t->m->data,
                                .working = t->working->data,
                                .gradient = t->gradient->data,
                                .decay = t->decay,
                                .lr_scale = lr_scale,
                                .gradient_sum_of_squares = &t->sum,
                                .count = t->count,
                                .sgd = sgd};
    assert_ok(test->k->sgd_update(test->ctx, &update, &error), &error);
}

static void trial(struct op_test *test)
{
    struct error error;
    struct trial t = make(test);
    const float *lr_scale = random_between(test, 0, 1) ? t.scales->data : NULL;
    struct sgd sgd = {.lr = 0.05f, .momentum = 0.9f, .weight_decay = 0.1f, .nesterov = random_between(test, 0, 1)};
    sgd.clip_grad_norm = random_between(test, 0, 1) ? 1.0f : 0.0f;
    for (int i = 0; i < 5; i++) {
        for (size_t n = 0; n < t.count; n++)
            tensor_set(t.gradient, n, 0.2 * random_number(test));
        assert_ok(test->k->sum_of_squares(test->ctx, &t.sum, t.gradient->data, t.count, &error), &error);
        step(test, &t, &sgd, lr_scale);
        reference_step(t.master->exact, t.m->exact, t.gradient->exact, t.decay, lr_scale, t.count, &sgd, i == 0);
    }
    assert_close("master", t.master, t.master->exact, 2e-6);
    assert_close("m", t.m, t.m->exact, 2e-6);
    assert_close("working", t.working, t.master->exact, tolerance(test->dtype));
    free(t.decay);
}

/* Not finite, over the limit, or behind a step that was not finite: nothing changes. At the limit: a step as any. */
static void withheld_trial(struct op_test *test)
{
    struct trial t = make(test);
    double broken = random_between(test, 0, 1) ? (double)NAN : (double)INFINITY, whole = 4, sums[] = {broken, 4, 4};
    struct sgd sgd[3] = {{.lr = 0.05f, .momentum = 0.9f, .weight_decay = 0.1f, .nesterov = true}};
    sgd[1] = sgd[2] = sgd[0];
    sgd[1].sum_of_squares_limit = nextafter(4, 0);
    sgd[2].earlier_sum_of_squares = &broken;
    struct tensor *state[] = {t.master, t.m, t.working}, *before[3];
    for (int i = 0; i < 3; i++)
        before[i] = tensor_copy(test, state[i]);
    for (int bad = 0; bad < 3; bad++) {
        t.sum = sums[bad];
        step(test, &t, &sgd[bad], NULL);
    }
    for (int i = 0; i < 3; i++)
        assert_same_bits("state before and after steps that are withheld", state[i], before[i]);
    sgd[0].sum_of_squares_limit = 4;
    sgd[0].earlier_sum_of_squares = &whole;
    step(test, &t, &sgd[0], NULL);
    assert_true(memcmp(t.master->data, before[0]->data, t.count * sizeof(float)) != 0);
    free(t.decay);
}

/* Two parts, one after the other, and no working copy, or the master as it: the bits of one call. */
static void parts_trial(struct op_test *test)
{
    struct error error;
    struct trial t = make(test);
    struct tensor *master = tensor_copy(test, t.master), *m = tensor_copy(test, t.m);
    size_t cut = 64 * random_between(test, 1, t.count / 64 - 1);
    struct sgd sgd = {.lr = 0.05f, .momentum = 0.9f, .weight_decay = 0.1f, .nesterov = true, .clip_grad_norm = 1};
    t.sum = 9;
    step(test, &t, &sgd, t.scales->data);
    for (int part = 0; part < 2; part++) {
        size_t first = part ? cut : 0;
        float *weights = (float *)master->data + first;
        struct sgd_update update = {.master = weights,
                                    .m = (float *)m->data + first,
                                    .working = part && test->dtype == DTYPE_FLOAT32 ? weights : NULL,
                                    .gradient = (float *)t.gradient->data + first,
                                    .decay = t.decay + first / 64,
                                    .lr_scale = (float *)t.scales->data + first / 64,
                                    .gradient_sum_of_squares = &t.sum,
                                    .count = part ? t.count - cut : cut,
                                    .sgd = &sgd};
        assert_ok(test->k->sgd_update(test->ctx, &update, &error), &error);
    }
    assert_same_bits("the whole and in two parts", t.master, master);
    assert_same_bits("the whole's m and in two parts", t.m, m);
    free(t.decay);
}

static void matches_float64(void **state)
{
    (void)state;
    op_test_each(trial, 10);
}

static void withheld_steps_change_nothing(void **state)
{
    (void)state;
    op_test_each(withheld_trial, 3);
}

static void parts_give_the_bits_of_the_whole(void **state)
{
    (void)state;
    op_test_each(parts_trial, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_float64),
        cmocka_unit_test(withheld_steps_change_nothing),
        cmocka_unit_test(parts_give_the_bits_of_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
