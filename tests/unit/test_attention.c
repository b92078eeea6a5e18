/* The CPU's attention against float64 loops: all kinds, forward, backward and statistics, in float32 and bfloat16. */
#include "tests/unit/attention_trial.h"
#include "tests/unit/brief.h"

/* ---- comparing ---- */

static void check_activations(const struct trial *trial, double tolerance)
{
    const struct attention_shape *s = &trial->shape;
    struct distance out = {0}, logsumexp = {0}, gradient[3] = {{0}};
    for (size_t image = 0; image < s->batch; image++)
        for (size_t h = 0; h < s->heads; h++) {
            const struct reference_head *head = &trial->heads[image * s->heads + h];
            for (size_t t = 0; t < s->tokens; t++) {
                compare(&logsumexp, trial->logsumexp[(image * s->heads + h) * s->tokens + t], head->logsumexp[t]);
                for (size_t i = 0; i < s->head_dim; i++) {
                    size_t at_out = out_index(s, image, t, h) + i, in_head = t * s->head_dim + i;
                    compare(&out, load(trial->out, at_out, trial->ctx.dtype), head->out[in_head]);
                    for (int part = 0; part < 3; part++)
                        compare(&gradient[part],
                                load(trial->qkv_gradient, qkv_index(s, image, t, part, h) + i, trial->ctx.dtype),
                                head->gradient[part][in_head]);
                }
            }
        }
    assert_near(s, trial->ctx.dtype, "out", out, tolerance);
    assert_near(s, trial->ctx.dtype, "logsumexp", logsumexp, tolerance);
    /* One key has all the probability: the gradients of the logits are zero but for rounding. */
    for (int part = s->tokens == 1 ? 2 : 0; part < 3; part++)
        assert_near(s, trial->ctx.dtype, part == 0 ? "dQ" : part == 1 ? "dK" : "dV", gradient[part], tolerance);
}

/* ---- the tests ---- */

static const size_t token_choices[] = {1, 2, 17, 50, 65, 197, 257};
static const size_t head_dim_choices[] = {8, 16, 24, 32, 40, 48, 64, 72, 80, 88, 96, 104, 112, 128, 136, 200, 256};
enum { HEAD_DIMS = sizeof head_dim_choices / sizeof *head_dim_choices };

static struct attention_shape random_shape(enum attention_kind kind, size_t tokens)
{
    size_t budget = tokens > 100 ? 2 : 6;
    return (struct attention_shape){.kind = kind,
                                    .batch = 1 + (size_t)(uniform() * (tokens > 100 ? 1 : 3)),
                                    .tokens = tokens,
                                    .heads = 1 + (size_t)(uniform() * (double)budget),
                                    .head_dim = head_dim_choices[(size_t)(uniform() * HEAD_DIMS)]};
}

static void matches_float64(enum dtype dtype, double tolerance, double statistics_tolerance)
{
    for (int kind = 0; kind < ATTENTION_KINDS; kind++) {
        for (size_t i = 0; i < sizeof token_choices / sizeof *token_choices; i++) {
            struct trial trial;
            trial_new(&trial, random_shape(kind, token_choices[i]), dtype, 2, 1);
            trial_run(&trial, true);
            run_reference(trial.heads, &trial.extras, &trial.extra_gradients, &trial.shape);
            check_activations(&trial, tolerance);
            check_extras(&trial, tolerance);
            assert_statistics(trial.statistics, trial.heads, &trial.shape, statistics_tolerance);
            trial_free(&trial);
        }
    }
}

static void float32_matches_float64(void **state)
{
    (void)state;
    matches_float64(DTYPE_FLOAT32, 1e-5, 1e-5);
}

static void bfloat16_matches_float64(void **state)
{
    (void)state;
    matches_float64(DTYPE_BFLOAT16, 2e-2, 2e-2);
}

static void every_head_dim_matches_float64(void **state)
{
    (void)state;
    size_t stride = test_is_brief() ? 7 : 1;
    for (size_t i = 0; i < (size_t)HEAD_DIMS * ATTENTION_KINDS * 2; i += stride) {
        enum dtype dtype = i % 2;
        double tolerance = dtype == DTYPE_FLOAT32 ? 1e-5 : 2e-2;
        struct attention_shape shape = {i / 2 % ATTENTION_KINDS, 2, 37, 3, head_dim_choices[i / 2 / ATTENTION_KINDS]};
        struct trial trial;
        trial_new(&trial, shape, dtype, 1, 1);
        trial_run(&trial, true);
        run_reference(trial.heads, &trial.extras, &trial.extra_gradients, &trial.shape);
        check_activations(&trial, tolerance);
        check_extras(&trial, tolerance);
        assert_statistics(trial.statistics, trial.heads, &trial.shape, tolerance);
        trial_free(&trial);
    }
}

/* The sum that is differentiated: out . out_gradient. */
static double objective(struct reference_head *head, const struct reference_extras *extras,
                        const struct attention_shape *shape)
{
    double sum = 0;
    reference_forward(head, extras, shape, 0);
    for (size_t i = 0; i < shape->tokens * shape->head_dim; i++)
        sum += head->out[i] * head->out_gradient[i];
    return sum;
}

static void assert_derivative(struct reference_head *head, const struct reference_extras *extras,
                              const struct attention_shape *shape, double *x, double expected, double scale)
{
    const double step = 1e-5, before = *x;
    *x = before + step;
    double above = objective(head, extras, shape);
    *x = before - step;
    double below = objective(head, extras, shape);
    *x = before;
    double slope = (above - below) / (2 * step);
    if (fabs(slope - expected) > 1e-7 * (scale + 1))
        fail_msg("%s: derivative %.9g, central difference %.9g", attention_kind_names[shape->kind], expected, slope);
}

/* The reference's gradients, which all else is compared with, against central differences of its forward pass. */
static void reference_matches_differences(void **state)
{
    (void)state;
    for (int kind = 0; kind < ATTENTION_KINDS; kind++) {
        struct attention_shape shape = {kind, 1, 7, 1, 16};
        size_t count = shape.tokens * shape.head_dim;
        struct trial trial;
        trial_new(&trial, shape, DTYPE_FLOAT32, 1, 1);
        run_reference(trial.heads, &trial.extras, &trial.extra_gradients, &trial.shape);
        struct reference_extras *extras = &trial.extras, *g = &trial.extra_gradients;
        for (int part = 0; part < 3; part++)
            for (size_t i = 0; i < count; i++)
                assert_derivative(trial.heads, extras, &shape, &trial.heads->x[part][i], trial.heads->gradient[part][i],
                                  10);
        for (size_t i = 0; i < shape.head_dim; i++) {
            if (attention_learns(kind, EXTRA_Q_WEIGHT))
                assert_derivative(trial.heads, extras, &shape, &extras->q_weight[i], g->q_weight[i], 10);
            if (attention_learns(kind, EXTRA_K_WEIGHT))
                assert_derivative(trial.heads, extras, &shape, &extras->k_weight[i], g->k_weight[i], 10);
            if (attention_learns(kind, EXTRA_Q_BIAS))
                assert_derivative(trial.heads, extras, &shape, &extras->q_bias[i], g->q_bias[i], 10);
        }
        if (attention_learns(kind, EXTRA_SCALE))
            assert_derivative(trial.heads, extras, &shape, &extras->scale[0], g->scale[0], 10);
        trial_free(&trial);
    }
}

/* Sets a row of queries or keys, in T and in the reference. */
static void set_row(struct trial *trial, size_t token, int part, double value)
{
    size_t d = trial->shape.head_dim;
    for (size_t i = 0; i < d; i++)
        trial->heads[0].x[part][token * d + i] =
            put(trial, trial->qkv, qkv_index(&trial->shape, 0, token, part, 0) + i, value);
}

static void zero_rows_are_clamped(void **state)
{
    (void)state;
    for (int kind = 0; kind < ATTENTION_KINDS; kind++) {
        struct trial trial;
        trial_new(&trial, (struct attention_shape){kind, 1, 20, 1, 32}, DTYPE_FLOAT32, 1, 1);
        set_row(&trial, 3, 0, 0);
        set_row(&trial, 5, 1, 0);
        set_row(&trial, 19, 0, 1e-9); /* below the clamp */
        set_row(&trial, 0, 1, 1e-9);
        trial_run(&trial, true);
        run_reference(trial.heads, &trial.extras, &trial.extra_gradients, &trial.shape);
        check_activations(&trial, 1e-5);
        check_extras(&trial, 1e-5);
        assert_statistics(trial.statistics, trial.heads, &trial.shape, 1e-5);
        trial_free(&trial);
    }
}

static void huge_logits_stay_finite(void **state)
{
    (void)state;
    for (int dtype = 0; dtype < 2; dtype++)
        for (int kind = 0; kind < ATTENTION_KINDS; kind++) {
            struct attention_shape shape = {kind, 1, 50, 2, 64};
            struct trial trial;
            trial_new(&trial, shape, dtype, 1, kind == ATTENTION_STANDARD ? 100 : 3000);
            for (size_t head = 0; head < shape.heads; head++)
                trial.scale[head] = 1e4f;
            trial_run(&trial, true);
            double largest = trial.statistics[STATISTIC_LOGIT_MAX];
            const struct attention_kind_row *row = &attention_kinds[kind];
            bool bounded = row->query != NORM_NONE && row->key != NORM_NONE && !attention_learns(kind, EXTRA_SCALE);
            assert_true(bounded || largest > 3e3);
            for (size_t i = 0; i < 3 * shape.tokens * shape.heads * shape.head_dim; i++)
                assert_true(isfinite(load(trial.qkv_gradient, i, dtype)));
            for (size_t i = 0; i < shape.tokens * shape.heads * shape.head_dim; i++)
                assert_true(isfinite(load(trial.out, i, dtype)));
            for (size_t i = 0; i < shape.heads * ATTENTION_STATISTICS; i++)
                assert_true(isfinite(trial.statistics[i]));
            trial_free(&trial);
        }
}

/* Long rows of tokens: several tiles in the backward pass, and a last one that is not full. */
static void many_tiles_match_float64(void **state)
{
    (void)state;
    for (int dtype = 0; dtype < 2; dtype++) {
        struct trial trial;
        trial_new(&trial, (struct attention_shape){ATTENTION_QKNORM_HS, 1, 577, 1, 16}, dtype, 1, 1);
        trial_run(&trial, true);
        run_reference(trial.heads, &trial.extras, &trial.extra_gradients, &trial.shape);
        check_activations(&trial, dtype == DTYPE_FLOAT32 ? 1e-5 : 2e-2);
        check_extras(&trial, dtype == DTYPE_FLOAT32 ? 1e-5 : 2e-2);
        trial_free(&trial);
    }
}

static void threads_and_statistics_change_no_bit(void **state)
{
    (void)state;
    for (int dtype = 0; dtype < 2; dtype++)
        for (int kind = 0; kind < ATTENTION_KINDS; kind++) {
            struct attention_shape shape = {kind, 3, 50, 3, 72};
            struct trial one, three;
            random_state = 77;
            trial_new(&one, shape, dtype, 1, 1);
            random_state = 77;
            trial_new(&three, shape, dtype, 3, 1);
            trial_run(&one, true);
            trial_run(&three, true);
            size_t bytes = shape.batch * shape.tokens * shape.heads * shape.head_dim * dtype_bytes(dtype);
            assert_memory_equal(one.out, three.out, bytes);
            assert_memory_equal(one.qkv_gradient, three.qkv_gradient, 3 * bytes);
            assert_memory_equal(one.statistics, three.statistics, shape.heads * ATTENTION_STATISTICS * sizeof(double));
            assert_memory_equal(one.weight_gradients, three.weight_gradients, sizeof one.weight_gradients);
            assert_memory_equal(one.scale_gradient, three.scale_gradient, sizeof one.scale_gradient);
            trial_run(&three, false);
            assert_memory_equal(one.out, three.out, bytes);
            trial_free(&one);
            trial_free(&three);
        }
}

static void statistics_and_gradients_accumulate(void **state)
{
    (void)state;
    struct trial trial;
    trial_new(&trial, (struct attention_shape){ATTENTION_QKNORM_DS, 2, 17, 2, 32}, DTYPE_FLOAT32, 1, 1);
    trial_run(&trial, true);
    double sum = trial.statistics[STATISTIC_Q_SUM], smallest = trial.statistics[STATISTIC_ENTROPY_MIN];
    float gradient = trial.weight_gradients[1][5];
    trial_run(&trial, true);
    assert_true(trial.statistics[STATISTIC_Q_SUM] == 2 * sum);
    assert_true(trial.statistics[STATISTIC_ENTROPY_MIN] == smallest);
    assert_float_equal(trial.weight_gradients[1][5], 2 * gradient, 1e-5f * fabsf(gradient));
    trial_free(&trial);
}

static void unfit_shapes_are_refused(void **state)
{
    (void)state;
    struct trial trial;
    struct error error = {0};
    struct attention_parameters none = {0};
    trial_new(&trial, (struct attention_shape){ATTENTION_QUEST, 1, 17, 2, 32}, DTYPE_FLOAT32, 1, 1);
    struct attention_shape shape = trial.shape;
    shape.tokens = 4000;
    assert_false(cpu_attention_forward(&trial.ctx, trial.out, trial.logsumexp, trial.qkv, &none, NULL, &shape, &error));
    assert_non_null(strstr(error.message, "4000 tokens"));
    static const size_t unfit[] = {0, 4, 12, 20, 264};
    for (size_t i = 0; i < sizeof unfit / sizeof *unfit; i++) {
        char expected[64];
        snprintf(expected, sizeof expected, "head dimension of %zu; multiples of 8 up to 256", unfit[i]);
        shape = trial.shape;
        shape.head_dim = unfit[i];
        assert_false(
            cpu_attention_forward(&trial.ctx, trial.out, trial.logsumexp, trial.qkv, &none, NULL, &shape, &error));
        assert_non_null(strstr(error.message, expected));
    }
    trial_free(&trial);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_matches_differences),
        cmocka_unit_test(float32_matches_float64),
        cmocka_unit_test(bfloat16_matches_float64),
        cmocka_unit_test(every_head_dim_matches_float64),
        cmocka_unit_test(zero_rows_are_clamped),
        cmocka_unit_test(huge_logits_stay_finite),
        cmocka_unit_test(many_tiles_match_float64),
        cmocka_unit_test(threads_and_statistics_change_no_bit),
        cmocka_unit_test(statistics_and_gradients_accumulate),
        cmocka_unit_test(unfit_shapes_are_refused),
    };
    if (test_is_brief())
        cmocka_set_skip_filter("*float??_matches_float64"); /* more shapes of what every_head_dim does */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
