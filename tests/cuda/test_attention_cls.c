/* The CUDA attention of the CLS query alone: all kinds, forward and backward, in float32 and bfloat16, against the
 * float64 loops of whole attention, of whose output nothing but token 0 has a gradient. */
#include "tests/cuda/device_attention.h"

/* A trial's numbers as the CLS ops want them, and what these write. */
struct cls {
    struct tensor query, key_value, out, out_gradient, query_gradient, key_value_gradient, logsumexp;
};

static size_t key_value_index(const struct attention_shape *s, size_t image, size_t token, int part, size_t head)
{
    return (((image * s->tokens + token) * 2 + (size_t)part) * s->heads + head) * s->head_dim;
}

static size_t cls_index(const struct attention_shape *s, size_t image, size_t head)
{
    return (image * s->heads + head) * s->head_dim;
}

static void cut_head(struct cls *cls, struct trial *trial, size_t image, size_t h)
{
    const struct attention_shape *s = &trial->shape;
    struct reference_head *head = &trial->heads[image * s->heads + h];
    memset(head->out_gradient + s->head_dim, 0, (s->tokens - 1) * s->head_dim * sizeof(double));
    for (size_t i = 0; i < s->head_dim; i++) {
        tensor_put(&cls->query, cls_index(s, image, h) + i, head->x[0][i]);
        tensor_put(&cls->out_gradient, cls_index(s, image, h) + i, head->out_gradient[i]);
        for (size_t t = 0; t < s->tokens; t++)
            for (int part = 0; part < 2; part++)
                tensor_put(&cls->key_value, key_value_index(s, image, t, part, h) + i,
                           head->x[1 + part][t * s->head_dim + i]);
    }
}

/* Cuts the packed projection into query and key_value; in the reference only token 0 keeps its gradient. */
static void cls_new(struct cls *cls, struct trial *trial)
{
    const struct attention_shape *s = &trial->shape;
    enum dtype dtype = trial->ctx.dtype;
    size_t rows = s->batch * s->heads * s->head_dim;
    *cls = (struct cls){.query = tensor_new(rows, dtype),
                        .key_value = tensor_new(2 * rows * s->tokens, dtype),
                        .out = tensor_new(rows, dtype),
                        .out_gradient = tensor_new(rows, dtype),
                        .query_gradient = tensor_new(rows, dtype),
                        .key_value_gradient = tensor_new(2 * rows * s->tokens, dtype),
                        .logsumexp = tensor_new(s->batch * s->heads, DTYPE_FLOAT32)};
    for (size_t image = 0; image < s->batch; image++)
        for (size_t h = 0; h < s->heads; h++)
            cut_head(cls, trial, image, h);
    tensor_up(&cls->query);
    tensor_up(&cls->key_value);
    tensor_up(&cls->out_gradient);
}

static void cls_free(struct cls *cls)
{
    struct tensor *tensors[] = {&cls->query,          &cls->key_value,          &cls->out,      &cls->out_gradient,
                                &cls->query_gradient, &cls->key_value_gradient, &cls->logsumexp};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        tensor_free(tensors[i]);
}

static void cls_run(struct cls *cls, struct trial *trial)
{
    struct error error = {0};
    struct attention_parameters parameters = parameters_of(trial);
    struct attention_gradients gradients = gradients_of(trial);
    struct attention_cls_forward forward = {.out = cls->out.device,
                                            .logsumexp = cls->logsumexp.device,
                                            .query = cls->query.device,
                                            .key_value = cls->key_value.device,
                                            .parameters = &parameters,
                                            .shape = &trial->shape};
    struct attention_cls_backward backward = {.query_gradient = cls->query_gradient.device,
                                              .key_value_gradient = cls->key_value_gradient.device,
                                              .gradients = &gradients,
                                              .out_gradient = cls->out_gradient.device,
                                              .out = cls->out.device,
                                              .logsumexp = cls->logsumexp.device,
                                              .query = cls->query.device,
                                              .key_value = cls->key_value.device,
                                              .parameters = &parameters,
                                              .shape = &trial->shape};
    if (!cuda_attention_cls_forward(&trial->ctx, &forward, &error) ||
        !cuda_attention_cls_backward(&trial->ctx, &backward, &error))
        fail_msg("%s", error.message);
    require(cudaStreamSynchronize(trial->ctx.compute));
    struct tensor *written[] = {&cls->out, &cls->logsumexp, &cls->query_gradient, &cls->key_value_gradient,
                                &trial->scale_gradient};
    for (size_t i = 0; i < sizeof written / sizeof *written; i++)
        tensor_down(written[i]);
    for (int which = 0; which < WEIGHTS; which++)
        tensor_down(&trial->weight_gradients[which]);
}

static void check_cls(const struct cls *cls, const struct trial *trial, double tolerance)
{
    static const char *const names[3] = {"dQ", "dK", "dV"};
    const struct attention_shape *s = &trial->shape;
    struct distance out = {0}, logsumexp = {0}, gradient[3] = {{0}};
    for (size_t image = 0; image < s->batch; image++)
        for (size_t h = 0; h < s->heads; h++) {
            const struct reference_head *head = &trial->heads[image * s->heads + h];
            compare(&logsumexp, tensor_get(&cls->logsumexp, image * s->heads + h), head->logsumexp[0]);
            for (size_t i = 0; i < s->head_dim; i++) {
                size_t row = cls_index(s, image, h) + i;
                compare(&out, tensor_get(&cls->out, row), head->out[i]);
                compare(&gradient[0], tensor_get(&cls->query_gradient, row), head->gradient[0][i]);
                for (size_t t = 0; t < s->tokens; t++)
                    for (int part = 0; part < 2; part++)
                        compare(&gradient[1 + part],
                                tensor_get(&cls->key_value_gradient, key_value_index(s, image, t, part, h) + i),
                                head->gradient[1 + part][t * s->head_dim + i]);
            }
        }
    assert_near(s, trial->ctx.dtype, "out", out, tolerance);
    assert_near(s, trial->ctx.dtype, "logsumexp", logsumexp, tolerance);
    /* One key has all the probability: the gradients of the logits are zero but for rounding. */
    for (int part = s->tokens == 1 ? 2 : 0; part < 3; part++)
        assert_near(s, trial->ctx.dtype, names[part], gradient[part], tolerance);
}

static void check_shape(struct attention_shape shape, enum dtype dtype, double spread)
{
    double tolerance = dtype == DTYPE_FLOAT32 ? 1e-5 : 2e-2;
    struct trial trial;
    struct cls cls;
    trial_new(&trial, shape, dtype, spread);
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
    static const size_t tokens[] = {1, 2, 17, 65, 197, 577}, head_dims[] = {16, 24, 64, 72, 80, 128};
    (void)state;
    for (int dtype = 0; dtype < 2; dtype++)
        for (int kind = 0; kind < ATTENTION_KINDS; kind++)
            for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
                struct attention_shape shape = {kind, 1 + (size_t)(uniform() * 3), tokens[i],
                                                1 + (size_t)(uniform() * 4), head_dims[(size_t)(uniform() * 6)]};
                check_shape(shape, dtype, 1);
            }
}

static void steep_logits_match_float64(void **state)
{
    (void)state;
    check_shape((struct attention_shape){ATTENTION_QUEST, 1, 77, 2, 64}, DTYPE_FLOAT32, 12);
    check_shape((struct attention_shape){ATTENTION_STANDARD, 1, 77, 2, 64}, DTYPE_BFLOAT16, 4);
}

/* Queries and keys below the clamp of |x|, and zeros. */
static void zero_rows_are_clamped(void **state)
{
    (void)state;
    for (int kind = 0; kind < ATTENTION_KINDS; kind++) {
        struct trial trial;
        struct cls cls;
        trial_new(&trial, (struct attention_shape){kind, 1, 20, 1, 32}, DTYPE_FLOAT32, 1);
        for (size_t i = 0; i < 32; i++) {
            trial.heads[0].x[0][i] = trial.heads[0].x[1][i] = (double)1e-9f;
            trial.heads[0].x[1][5 * 32 + i] = 0;
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

static void same_bits_again(void **state)
{
    (void)state;
    for (int dtype = 0; dtype < 2; dtype++) {
        struct trial trial;
        struct cls cls;
        trial_new(&trial, (struct attention_shape){ATTENTION_QKNORM_DS, 2, 300, 2, 64}, dtype, 1);
        cls_new(&cls, &trial);
        cls_run(&cls, &trial);
        size_t bytes = cls.key_value_gradient.count * dtype_bytes(dtype);
        void *before = malloc(bytes);
        assert_non_null(before);
        memcpy(before, cls.key_value_gradient.host, bytes);
        cls_run(&cls, &trial);
        assert_memory_equal(before, cls.key_value_gradient.host, bytes);
        free(before);
        cls_free(&cls);
        trial_free(&trial);
    }
}

static void unfit_shapes_are_refused(void **state)
{
    (void)state;
    struct error error;
    struct context ctx = {.dtype = DTYPE_BFLOAT16};
    struct attention_parameters none = {0};
    struct attention_shape shape = {ATTENTION_QUEST, 1, 4, 1, 20};
    struct attention_cls_forward forward = {.parameters = &none, .shape = &shape};
    assert_false(cuda_attention_cls_forward(&ctx, &forward, &error));
    assert_non_null(strstr(error.message, "not 20"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_matches_float64), cmocka_unit_test(steep_logits_match_float64),
        cmocka_unit_test(zero_rows_are_clamped),      cmocka_unit_test(same_bits_again),
        cmocka_unit_test(unfit_shapes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
