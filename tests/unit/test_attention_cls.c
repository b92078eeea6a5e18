/* Attention of the CLS query alone, on the CPU: all kinds, forward and backward, against the float64 loops of whole
 * attention, of whose output nothing but token 0 has a gradient. */
#include "tests/unit/attention_trial.h"
#include "tests/unit/brief.h"

/* A trial's numbers as the CLS ops want them, and what these write. */
struct cls {
    void *query, *key_value, *out, *out_gradient, *query_gradient, *key_value_gradient; /* T */
    float *logsumexp;
};

static size_t key_value_index(const struct attention_shape *s, size_t image, size_t token, int part, size_t head)
{
    return (((image * s->tokens + token) * 2 + (size_t)part) * s->heads + head) * s->head_dim;
}

static size_t cls_index(const struct attention_shape *s, size_t image, size_t head)
{
    return (image * s->heads + head) * s->head_dim;
}

/* Cuts the packed projection into query and key_value; in the reference only token 0 keeps its gradient. */
static void cls_new(struct cls *cls, struct trial *trial)
{
    const struct attention_shape *s = &trial->shape;
    enum dtype dtype = trial->ctx.dtype;
    size_t rows = s->batch * s->heads * s->head_dim, width = dtype_bytes(dtype), d = s->head_dim;
    *cls = (struct cls){.query = numbers(rows, width),
                        .key_value = numbers(2 * rows * s->tokens, width),
                        .out = numbers(rows, width),
                        .out_gradient = numbers(rows, width),
                        .query_gradient = numbers(rows, width),
                        .key_value_gradient = numbers(2 * rows * s->tokens, width),
                        .logsumexp = numbers(s->batch * s->heads, sizeof(float))};
    for (size_t image = 0; image < s->batch; image++)
        for (size_t h = 0; h < s->heads; h++) {
            struct reference_head *head = &trial->heads[image * s->heads + h];
            memset(head->out_gradient + d, 0, (s->tokens - 1) * d * sizeof(double));
            memcpy(at(cls->query, cls_index(s, image, h), dtype), at(trial->qkv, qkv_index(s, image, 0, 0, h), dtype),
                   d * width);
            memcpy(at(cls->out_gradient, cls_index(s, image, h), dtype),
                   at(trial->out_gradient, out_index(s, image, 0, h), dtype), d * width);
            for (size_t t = 0; t < s->tokens; t++)
                for (int part = 0; part < 2; part++)
                    memcpy(at(cls->key_value, key_value_index(s, image, t, part, h), dtype),
                           at(trial->qkv, qkv_index(s, image, t, 1 + part, h), dtype), d * width);
        }
}

static void cls_free(struct cls *cls)
{
    void *parts[] = {cls->query,          cls->key_value,          cls->out,      cls->out_gradient,
                     cls->query_gradient, cls->key_value_gradient, cls->logsumexp};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        free(parts[i]);
}

static void cls_run(struct cls *cls, struct trial *trial)
{
    struct error error = {0};
    struct attention_parameters parameters = parameters_of(trial);
    struct attention_gradients gradients = gradients_of(trial);
    struct attention_cls_forward forward = {.out = cls->out,
                                            .logsumexp = cls->logsumexp,
                                            .query = cls->query,
                                            .key_value = cls->key_value,
                                            .parameters = &parameters,
                                            .shape = &trial->shape};
    struct attention_cls_backward backward = {.query_gradient = cls->query_gradient,
                                              .key_value_gradient = cls->key_value_gradient,
                                              .gradients = &gradients,
                                              .out_gradient = cls->out_gradient,
                                              .out = cls->out,
                                              .logsumexp = cls->logsumexp,
                                              .query = cls->query,
                                              .key_value = cls->key_value,
                                              .parameters = &parameters,
                                              .shape = &trial->shape};
    assert_true(cpu_attention_cls_forward(&trial->ctx, &forward, &error));
    memset(trial->ctx.workspace, 0xff, trial->ctx.workspace_bytes); /* nothing in it may be relied upon */
    assert_true(cpu_attention_cls_backward(&trial->ctx, &backward, &error));
}

static void check_cls(const struct cls *cls, const struct trial *trial, double tolerance)
{
    static const char *const names[3] = {"dQ", "dK", "dV"};
    const struct attention_shape *s = &trial->shape;
    enum dtype dtype = trial->ctx.dtype;
    struct distance out = {0}, logsumexp = {0}, gradient[3] = {{0}};
    for (size_t image = 0; image < s->batch; image++)
        for (size_t h = 0; h < s->heads; h++) {
            const struct reference_head *head = &trial->heads[image * s->heads + h];
            compare(&logsumexp, cls->logsumexp[image * s->heads + h], head->logsumexp[0]);
            for (size_t i = 0; i < s->head_dim; i++) {
                size_t row = cls_index(s, image, h) + i;
                compare(&out, load(cls->out, row, dtype), head->out[i]);
                compare(&gradient[0], load(cls->query_gradient, row, dtype), head->gradient[0][i]);
                for (size_t t = 0; t < s->tokens; t++)
                    for (int part = 0; part < 2; part++)
                        compare(&gradient[1 + part],
                                load(cls->key_value_gradient, key_value_index(s, image, t, part, h) + i, dtype),
                                head->gradient[1 + part][t * s->head_dim + i]);
            }
        }
    assert_near(s, dtype, "out", out, tolerance);
    assert_near(s, dtype, "logsumexp", logsumexp, tolerance);
    /* One key has all the probability: the gradients of the logits are zero but for rounding. */
    for (int part = s->tokens == 1 ? 2 : 0; part < 3; part++)
        assert_near(s, dtype, names[part], gradient[part], tolerance);
}

static void check_shape(struct attention_shape shape, enum dtype dtype, double spread)
{
    double tolerance = dtype == DTYPE_FLOAT32 ? 1e-5 : 2e-2;
    struct trial trial;
    struct cls cls;
    trial_new(&trial, shape, dtype, 2, spread);
    cls_new(&cls, &trial);
    cls_run(&cls, &trial);
    run_reference(trial.heads, &trial.extras, &trial.extra_gradients, &trial.shape);
    check_cls(&cls, &trial, tolerance);
    check_extras(&trial, tolerance);
    cls_free(&cls);
    trial_free(&trial);
}

static void every_kind_matches_float64(void **state)
{
    static const size_t tokens[] = {1, 2, 17, 65, 197, 577}, head_dims[] = {8, 16, 24, 64, 72, 88, 128, 136, 256};
    (void)state;
    for (int dtype = 0; dtype < 2; dtype++)
        for (int kind = 0; kind < ATTENTION_KINDS; kind++)
            for (size_t i = 0; i < (test_is_brief() ? 3 : sizeof tokens / sizeof *tokens); i++) {
                struct attention_shape shape = {kind, 1 + (size_t)(uniform() * 3), tokens[i],
                                                1 + (size_t)(uniform() * 4), head_dims[(size_t)(uniform() * 9)]};
                check_shape(shape, dtype, 1);
            }
}

static void steep_logits_match_float64(void **state)
{
    (void)state;
    check_shape((struct attention_shape){ATTENTION_QUEST, 1, 77, 2, 64}, DTYPE_FLOAT32, 12);
    check_shape((struct attention_shape){ATTENTION_STANDARD, 1, 77, 2, 64}, DTYPE_FLOAT32, 4);
}

static void zero_rows_are_clamped(void **state)
{
    (void)state;
    for (int kind = 0; kind < ATTENTION_KINDS; kind++) {
        struct trial trial;
        struct cls cls;
        trial_new(&trial, (struct attention_shape){kind, 1, 20, 1, 32}, DTYPE_FLOAT32, 1, 1);
        for (size_t i = 0; i < 32; i++) {
            struct reference_head *head = &trial.heads[0];
            head->x[0][i] = put(&trial, trial.qkv, qkv_index(&trial.shape, 0, 0, 0, 0) + i, 1e-9); /* below the clamp */
            head->x[1][i] = put(&trial, trial.qkv, qkv_index(&trial.shape, 0, 0, 1, 0) + i, 1e-9);
            head->x[1][5 * 32 + i] = put(&trial, trial.qkv, qkv_index(&trial.shape, 0, 5, 1, 0) + i, 0);
        }
        cls_new(&cls, &trial);
        cls_run(&cls, &trial);
        run_reference(trial.heads, &trial.extras, &trial.extra_gradients, &trial.shape);
        check_cls(&cls, &trial, 1e-5);
        check_extras(&trial, 1e-5);
        cls_free(&cls);
        trial_free(&trial);
    }
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    for (int dtype = 0; dtype < 2; dtype++)
        for (int kind = 0; kind < ATTENTION_KINDS; kind++) {
            struct attention_shape shape = {kind, 3, 50, 3, 48};
            size_t bytes = 9 * 48 * dtype_bytes(dtype);
            struct trial trials[2];
            struct cls cls[2];
            for (int i = 0; i < 2; i++) {
                random_state = 77;
                trial_new(&trials[i], shape, dtype, i == 0 ? 1 : 3, 1);
                cls_new(&cls[i], &trials[i]);
                cls_run(&cls[i], &trials[i]);
            }
            assert_memory_equal(cls[0].out, cls[1].out, bytes);
            assert_memory_equal(cls[0].query_gradient, cls[1].query_gradient, bytes);
            assert_memory_equal(cls[0].key_value_gradient, cls[1].key_value_gradient, 2 * 50 * bytes);
            assert_memory_equal(trials[0].weight_gradients, trials[1].weight_gradients,
                                sizeof trials[0].weight_gradients);
            assert_memory_equal(trials[0].scale_gradient, trials[1].scale_gradient, sizeof trials[0].scale_gradient);
            for (int i = 0; i < 2; i++) {
                cls_free(&cls[i]);
                trial_free(&trials[i]);
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_matches_float64),
        cmocka_unit_test(steep_logits_match_float64),
        cmocka_unit_test(zero_rows_are_clamped),
        cmocka_unit_test(threads_change_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
