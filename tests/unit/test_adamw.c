/* AdamW on the CPU against float64: every option, withheld and damaged steps, the master as its own working copy. */
#include "tests/unit/op_test.h"

/* PyTorch's AdamW, written after torch.optim.AdamW's documentation. */
static void reference_step(double *master, double *m, double *v, const double *gradient, const uint8_t *decay,
                           const float *lr_scale, size_t count, const struct adamw *adamw)
{
    double norm = 0, beta1 = (double)adamw->beta1, beta2 = (double)adamw->beta2;
    for (size_t i = 0; i < count; i++)
        norm += gradient[i] * gradient[i];
    norm = sqrt(norm);
    double clip = adamw->clip_grad_norm > 0 ? fmin(1, (double)adamw->clip_grad_norm / (norm + 1e-6)) : 1;
    for (size_t i = 0; i < count; i++) {
        double g = gradient[i] * clip, lr = (double)adamw->lr * (lr_scale ? (double)lr_scale[i / 64] : 1);
        if (decay[i / 64])
            master[i] -= lr * (double)adamw->weight_decay * master[i];
        m[i] = beta1 * m[i] + (1 - beta1) * g;
        v[i] = beta2 * v[i] + (1 - beta2) * g * g;
        double mean = adamw->nesterov ? beta1 * m[i] + (1 - beta1) * g : m[i];
        double m_hat = mean / (1 - pow(beta1, (double)adamw->step)),
               v_hat = v[i] / (1 - pow(beta2, (double)adamw->step));
        master[i] -= lr * m_hat / (sqrt(v_hat) + (double)adamw->eps);
    }
}

static void trial(struct op_test *test)
{
    struct error error;
    size_t count = 64 * random_between(test, 1, 40);
    struct tensor *master = tensor_random(test, count, DTYPE_FLOAT32, 1),
                  *working = tensor_zeros(test, count, test->dtype);
    struct tensor *m = tensor_zeros(test, count, DTYPE_FLOAT32), *v = tensor_zeros(test, count, DTYPE_FLOAT32);
    uint8_t *decay = malloc(count / 64);
    struct tensor *scales = tensor_random(test, count / 64, DTYPE_FLOAT32, 1); /* negative: the tensor is frozen */
    float *lr_scale = random_between(test, 0, 1) ? scales->data : NULL;
    for (size_t i = 0; i < count / 64; i++) {
        decay[i] = (uint8_t)random_between(test, 0, 1);
        ((float *)scales->data)[i] = fmaxf(((float *)scales->data)[i], 0);
    }
    struct adamw adamw = {.lr = 0.01f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.1f};
    adamw.clip_grad_norm = random_between(test, 0, 1) ? 1.0f : 0.0f;
    adamw.nesterov = random_between(test, 0, 1);
    for (adamw.step = 1; adamw.step <= 5; adamw.step++) {
        struct tensor *gradient = tensor_random(test, count, DTYPE_FLOAT32, 0.2);
        double sum, exact = 0;
        assert_ok(test->k->sum_of_squares(test->ctx, &sum, gradient->data, count, &error), &error);
        for (size_t i = 0; i < count; i++)
            exact += gradient->exact[i] * gradient->exact[i];
        assert_true(fabs(sum - exact) <= 1e-12 * exact);
        struct adamw_update update = {.master = master->data,
                                      .m = m->data,
                                      .v = v->data,
                                      .working = working->data,
                                      .gradient = gradient->data,
                                      .decay = decay,
                                      .lr_scale = lr_scale,
                                      .gradient_sum_of_squares = &sum,
                                      .count = count,
                                      .adamw = &adamw};
        assert_ok(test->k->adamw_update(test->ctx, &update, &error), &error);
        reference_step(master->exact, m->exact, v->exact, gradient->exact, decay, lr_scale, count, &adamw);
    }
    assert_close("master", master, master->exact, 2e-6);
    assert_close("m", m, m->exact, 2e-6);
    assert_close("v", v, v->exact, 2e-6);
    assert_close("working", working, master->exact, tolerance(test->dtype));
    struct tensor *rounded = tensor_zeros(test, count, test->dtype);
    assert_ok(test->k->round_parameters(test->ctx, rounded->data, master->data, count, &error), &error);
    assert_same_bits("round_parameters and adamw_update", rounded, working);
    free(decay);
}

static void broken_gradient_trial(struct op_test *test)
{
    struct error error;
    const double sums[] = {NAN, INFINITY};
    uint8_t decay = 1;
    struct adamw adamw = {.lr = 0.01f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .step = 1};
    struct tensor *gradient = tensor_random(test, 64, DTYPE_FLOAT32, 1);
    struct tensor *state[3], *before[3];
    for (int i = 0; i < 3; i++) {
        state[i] = tensor_random(test, 64, DTYPE_FLOAT32, 1);
        before[i] = tensor_copy(test, state[i]);
    }
    struct adamw_update update = {.master = state[0]->data,
                                  .m = state[1]->data,
                                  .v = state[2]->data,
                                  .gradient = gradient->data,
                                  .decay = &decay,
                                  .count = 64,
                                  .adamw = &adamw};
    for (int bad = 0; bad < 2; bad++) {
        update.gradient_sum_of_squares = &sums[bad];
        assert_ok(test->k->adamw_update(test->ctx, &update, &error), &error);
    }
    for (int i = 0; i < 3; i++)
        assert_same_bits("state before and after a gradient that is not finite", state[i], before[i]);
}

/* A step over the limit, or behind one that was not finite, changes nothing; at the limit it is a step as any other. */
static void withheld_trial(struct op_test *test)
{
    struct error error;
    size_t count = 64 * random_between(test, 1, 20);
    double sum, broken = random_between(test, 0, 1) ? (double)NAN : (double)INFINITY, whole = 4;
    uint8_t *decay = calloc(count / 64, 1);
    struct tensor *gradient = tensor_random(test, count, DTYPE_FLOAT32, 1);
    struct tensor *state[4], *before[4], *free_step[4];
    for (int i = 0; i < 4; i++) {
        state[i] = tensor_random(test, count, i == 3 ? test->dtype : DTYPE_FLOAT32, 1);
        for (size_t j = 0; i == 2 && j < count; j++)
            ((float *)state[2]->data)[j] = fabsf(((float *)state[2]->data)[j]); /* v */
        before[i] = tensor_copy(test, state[i]);
        free_step[i] = tensor_copy(test, state[i]);
    }
    assert_ok(test->k->sum_of_squares(test->ctx, &sum, gradient->data, count, &error), &error);
    struct adamw plain = {.lr = 0.01f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .step = 3};
    struct adamw over = plain, behind = plain, at_limit = plain;
    over.sum_of_squares_limit = nextafter(sum, 0);
    behind.earlier_sum_of_squares = &broken;
    at_limit.sum_of_squares_limit = sum;
    at_limit.earlier_sum_of_squares = &whole;
    const struct adamw *withheld[] = {&over, &behind};
    struct adamw_update update = {.master = state[0]->data,
                                  .m = state[1]->data,
                                  .v = state[2]->data,
                                  .working = state[3]->data,
                                  .gradient = gradient->data,
                                  .decay = decay,
                                  .gradient_sum_of_squares = &sum,
                                  .count = count};
    for (int i = 0; i < 2; i++) {
        update.adamw = withheld[i];
        assert_ok(test->k->adamw_update(test->ctx, &update, &error), &error);
    }
    for (int i = 0; i < 4; i++)
        assert_same_bits("state before and after a step that is withheld", state[i], before[i]);
    update.adamw = &at_limit;
    assert_ok(test->k->adamw_update(test->ctx, &update, &error), &error);
    struct adamw_update free_update = {.master = free_step[0]->data,
                                       .m = free_step[1]->data,
                                       .v = free_step[2]->data,
                                       .working = free_step[3]->data,
                                       .gradient = gradient->data,
                                       .decay = decay,
                                       .gradient_sum_of_squares = &sum,
                                       .count = count,
                                       .adamw = &plain};
    assert_ok(test->k->adamw_update(test->ctx, &free_update, &error), &error);
    for (int i = 0; i < 4; i++)
        assert_same_bits("a step at the limit and one without", state[i], free_step[i]);
    assert_true(memcmp(state[0]->data, before[0]->data, count * sizeof(float)) != 0);
    free(decay);
}

/* The master may be its own working copy. */
static void shared_memory_trial(struct op_test *test)
{
    struct error error;
    uint8_t decay = 0;
    double sum = 1;
    struct adamw adamw = {.lr = 0.01f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .step = 1};
    struct tensor *gradient = tensor_random(test, 64, DTYPE_FLOAT32, 1);
    struct tensor *master = tensor_random(test, 64, DTYPE_FLOAT32, 1), *other = tensor_copy(test, master);
    struct tensor *zeros[4];
    for (int i = 0; i < 4; i++)
        zeros[i] = tensor_zeros(test, 64, DTYPE_FLOAT32);
    if (test->dtype != DTYPE_FLOAT32)
        return;
    struct adamw_update update = {.master = master->data,
                                  .m = zeros[0]->data,
                                  .v = zeros[1]->data,
                                  .working = master->data,
                                  .gradient = gradient->data,
                                  .decay = &decay,
                                  .gradient_sum_of_squares = &sum,
                                  .count = 64,
                                  .adamw = &adamw};
    assert_ok(test->k->adamw_update(test->ctx, &update, &error), &error);
    struct adamw_update other_update = {.master = other->data,
                                        .m = zeros[2]->data,
                                        .v = zeros[3]->data,
                                        .gradient = gradient->data,
                                        .decay = &decay,
                                        .gradient_sum_of_squares = &sum,
                                        .count = 64,
                                        .adamw = &adamw};
    assert_ok(test->k->adamw_update(test->ctx, &other_update, &error), &error);
    assert_same_bits("working equal to master and none", master, other);
    assert_ok(test->k->round_parameters(test->ctx, master->data, master->data, 64, &error), &error);
    assert_same_bits("round_parameters onto itself", master, other);
}

static void matches_float64(void **state)
{
    (void)state;
    op_test_each(trial, 10);
}

static void gradient_that_is_not_finite_changes_nothing(void **state)
{
    (void)state;
    op_test_each(broken_gradient_trial, 1);
}

static void withheld_steps_change_nothing(void **state)
{
    (void)state;
    op_test_each(withheld_trial, 5);
}

static void master_may_be_the_working_copy(void **state)
{
    (void)state;
    op_test_each(shared_memory_trial, 2);
}

static void zero_trial(struct op_test *test)
{
    struct error error;
    size_t groups = random_between(test, 1, 40);
    struct tensor *x = tensor_random(test, 64 * groups, DTYPE_FLOAT32, 1);
    uint8_t *keep = malloc(groups);
    for (size_t i = 0; i < 64 * groups; i++) {
        keep[i / 64] = i % 64 ? keep[i / 64] : (uint8_t)random_between(test, 0, 1);
        x->exact[i] *= keep[i / 64];
    }
    assert_ok(test->k->zero_groups(test->ctx, x->data, keep, 64 * groups, &error), &error);
    assert_close("zeroed but for what is kept", x, x->exact, 0);
    free(keep);
}

static void groups_are_zeroed_or_kept(void **state)
{
    (void)state;
    op_test_each(zero_trial, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_float64),
        cmocka_unit_test(gradient_that_is_not_finite_changes_nothing),
        cmocka_unit_test(withheld_steps_change_nothing),
        cmocka_unit_test(master_may_be_the_working_copy),
        cmocka_unit_test(groups_are_zeroed_or_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
