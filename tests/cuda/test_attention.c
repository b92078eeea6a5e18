/* The CUDA attention against float64 loops: all kinds, forward, backward and statistics, in float32 and bfloat16. */
#include "tests/cuda/attention_trial.h"

/* ---- comparing ---- */

/* |a - b|^2 and |b|^2, summed up number by number. */
struct distance {
    double difference, size;
};

static void compare(struct distance *distance, double value, double expected)
{
    distance->difference += (value - expected) * (value - expected);
    distance->size += expected * expected;
}

static void assert_near(const struct trial *trial, const char *what, struct distance distance, double tolerance)
{
    const struct attention_shape *s = &trial->shape;
    if (!(sqrt(distance.difference) <= tolerance * sqrt(distance.size) + 1e-12))
        fail_msg("%s, batch %zu, tokens %zu, heads %zu, head_dim %zu, %s: %s is off by %g relative, %g allowed",
                 kind_names[s->kind], s->batch, s->tokens, s->heads, s->head_dim,
                 trial->ctx.dtype == DTYPE_FLOAT32 ? "float32" : "bfloat16", what,
                 sqrt(distance.difference / distance.size), tolerance);
}

static void check_forward(const struct trial *trial, double tolerance)
{
    const struct attention_shape *s = &trial->shape;
    struct distance out = {0}, logsumexp = {0};
    for (size_t image = 0; image < s->batch; image++)
        for (size_t h = 0; h < s->heads; h++) {
            const struct reference_head *head = &trial->heads[image * s->heads + h];
            for (size_t t = 0; t < s->tokens; t++) {
                size_t row = (image * s->heads + h) * s->tokens + t;
                compare(&logsumexp, tensor_get(&trial->logsumexp, row), head->logsumexp[t]);
                for (size_t i = 0; i < s->head_dim; i++)
                    compare(&out, tensor_get(&trial->out, out_index(s, image, t, h) + i),
                            head->out[t * s->head_dim + i]);
            }
        }
    assert_near(trial, "out", out, tolerance);
    assert_near(trial, "logsumexp", logsumexp, tolerance);
}

static void check_backward(const struct trial *trial, double tolerance)
{
    static const char *const names[3] = {"dQ", "dK", "dV"};
    const struct attention_shape *s = &trial->shape;
    struct distance gradient[3] = {{0}};
    for (size_t image = 0; image < s->batch; image++)
        for (size_t h = 0; h < s->heads; h++)
            for (size_t t = 0; t < s->tokens; t++)
                for (size_t i = 0; i < 3 * s->head_dim; i++) {
                    int part = (int)(i / s->head_dim);
                    size_t element = i % s->head_dim;
                    compare(&gradient[part],
                            tensor_get(&trial->qkv_gradient, qkv_index(s, image, t, part, h) + element),
                            trial->heads[image * s->heads + h].gradient[part][t * s->head_dim + element]);
                }
    /* One key has all the probability: the gradients of the logits are zero but for rounding. */
    for (int part = s->tokens == 1 ? 2 : 0; part < 3; part++)
        assert_near(trial, names[part], gradient[part], tolerance);
}

static void check_extras(const struct trial *trial, double tolerance)
{
    static const char *const names[WEIGHTS] = {"q weight gradient", "k weight gradient", "q bias gradient",
                                               "k bias gradient"};
    const struct attention_shape *s = &trial->shape;
    const double *expected[WEIGHTS] = {trial->extra_gradients.q_weight, trial->extra_gradients.k_weight,
                                       trial->extra_gradients.q_bias, trial->extra_gradients.k_bias};
    struct distance distance[WEIGHTS] = {{0}}, scale = {0};
    if (s->tokens == 1)
        return;
    for (int which = 0; which < WEIGHTS; which++)
        for (size_t i = 0; i < s->head_dim; i++)
            compare(&distance[which], tensor_get(&trial->weight_gradients[which], i), expected[which][i]);
    for (size_t head = 0; head < s->heads; head++)
        compare(&scale, tensor_get(&trial->scale_gradient, head), trial->extra_gradients.scale[head]);
    /* The bias of the keys shifts all logits of a query: its gradient is zero but for rounding. */
    distance[3].size = distance[2].size;
    for (int which = 0; which < WEIGHTS; which++)
        if (s->kind == ATTENTION_QKNORM || (s->kind == ATTENTION_QKNORM_DS && which < 2))
            assert_near(trial, names[which], distance[which], tolerance);
    if (s->kind == ATTENTION_QKNORM_HS)
        assert_near(trial, "scale gradient", scale, 3 * tolerance); /* one sum of all queries, which cancel */
}

static double row_norm(const double *x, size_t d)
{
    double squares = 0;
    for (size_t i = 0; i < d; i++)
        squares += x[i] * x[i];
    return sqrt(squares);
}

static void expect_norm(double *record, int first, double norm)
{
    record[first] += norm;
    record[first + 1] += norm * norm;
    record[first + 2] = fmin(record[first + 2], norm);
    record[first + 3] = fmax(record[first + 3], norm);
}

static void check_statistics(const struct trial *trial, double tolerance)
{
    const struct attention_shape *s = &trial->shape;
    for (size_t h = 0; h < s->heads; h++) {
        double expected[ATTENTION_STATISTICS] = {[STATISTIC_Q_MIN] = INFINITY,
                                                 [STATISTIC_K_MIN] = INFINITY,
                                                 [STATISTIC_ENTROPY_MIN] = INFINITY,
                                                 [STATISTIC_LOGIT_MAX] = -INFINITY};
        for (size_t image = 0; image < s->batch; image++) {
            const struct reference_head *head = &trial->heads[image * s->heads + h];
            for (size_t t = 0; t < s->tokens; t++) {
                expect_norm(expected, STATISTIC_Q_SUM, row_norm(head->x[0] + t * s->head_dim, s->head_dim));
                expect_norm(expected, STATISTIC_K_SUM, row_norm(head->x[1] + t * s->head_dim, s->head_dim));
                expected[STATISTIC_ENTROPY_SUM] += head->entropy[t];
                expected[STATISTIC_ENTROPY_MIN] = fmin(expected[STATISTIC_ENTROPY_MIN], head->entropy[t]);
                for (size_t j = 0; j < s->tokens; j++)
                    expected[STATISTIC_LOGIT_MAX] =
                        fmax(expected[STATISTIC_LOGIT_MAX], head->logits[t * s->tokens + j]);
            }
        }
        for (int i = 0; i < ATTENTION_STATISTICS; i++) {
            double value = trial->statistics[h][i];
            if (!(fabs(value - expected[i]) <= tolerance * fmax(1, fabs(expected[i]))))
                fail_msg("%s, tokens %zu, head_dim %zu, head %zu: statistic %d is %.9g instead of %.9g",
                         kind_names[s->kind], s->tokens, s->head_dim, h, i, value, expected[i]);
        }
    }
}

static void run_reference(struct trial *trial)
{
    for (size_t i = 0; i < trial->shape.batch * trial->shape.heads; i++) {
        reference_forward(&trial->heads[i], &trial->extras, &trial->shape, i % trial->shape.heads);
        reference_backward(&trial->heads[i], &trial->extra_gradients, &trial->extras, &trial->shape,
                           i % trial->shape.heads);
    }
}

/* ---- the tests ---- */

static void check_shape(struct attention_shape shape, enum dtype dtype, double spread)
{
    double tolerance = dtype == DTYPE_FLOAT32 ? 1e-5 : 2e-2;
    struct trial trial;
    trial_new(&trial, shape, dtype, spread);
    trial_forward(&trial, true);
    run_reference(&trial);
    check_forward(&trial, tolerance);
    check_statistics(&trial, tolerance);
    trial_backward(&trial);
    check_backward(&trial, tolerance);
    check_extras(&trial, tolerance);
    trial_free(&trial);
}

static const size_t token_choices[] = {1, 2, 17, 50, 65, 197, 257};
static const size_t head_dim_choices[] = {16, 32, 64, 80, 96, 128};

static void matches_float64(enum dtype dtype)
{
    for (int kind = 0; kind < ATTENTION_KINDS; kind++)
        for (size_t i = 0; i < sizeof token_choices / sizeof *token_choices; i++) {
            size_t tokens = token_choices[i];
            struct attention_shape shape = {.kind = kind,
                                            .batch = 1 + (size_t)(uniform() * (tokens > 100 ? 1 : 3)),
                                            .tokens = tokens,
                                            .heads = 1 + (size_t)(uniform() * 3),
                                            .head_dim = head_dim_choices[(size_t)(uniform() * 6)]};
            check_shape(shape, dtype, 1);
        }
}

static void float32_matches_float64(void **state)
{
    (void)state;
    matches_float64(DTYPE_FLOAT32);
}

static void bfloat16_matches_float64(void **state)
{
    (void)state;
    matches_float64(DTYPE_BFLOAT16);
}

static void every_head_dim_matches_float64(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof head_dim_choices / sizeof *head_dim_choices; i++)
        check_shape((struct attention_shape){ATTENTION_QUEST, 2, 37, 3, head_dim_choices[i]}, DTYPE_BFLOAT16, 1);
}

/* Steep logits: neither the bound on QUEST's logits nor the first reference of the exponentials holds. */
static void steep_logits_match_float64(void **state)
{
    (void)state;
    check_shape((struct attention_shape){ATTENTION_QUEST, 1, 77, 2, 64}, DTYPE_BFLOAT16, 12);
    check_shape((struct attention_shape){ATTENTION_STANDARD, 1, 77, 2, 64}, DTYPE_BFLOAT16, 4);
}

static void same_bits_again(void **state)
{
    (void)state;
    struct trial trial;
    trial_new(&trial, (struct attention_shape){ATTENTION_QUEST, 2, 300, 2, 64}, DTYPE_BFLOAT16, 1);
    trial_forward(&trial, false);
    trial_backward(&trial);
    size_t bytes = trial.qkv_gradient.count * dtype_bytes(DTYPE_BFLOAT16);
    void *before = malloc(bytes);
    assert_non_null(before);
    memcpy(before, trial.qkv_gradient.host, bytes);
    trial_forward(&trial, false);
    trial_backward(&trial);
    assert_memory_equal(before, trial.qkv_gradient.host, bytes);
    free(before);
    trial_free(&trial);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float32_matches_float64),
        cmocka_unit_test(bfloat16_matches_float64),
        cmocka_unit_test(every_head_dim_matches_float64),
        cmocka_unit_test(steep_logits_match_float64),
        cmocka_unit_test(same_bits_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
