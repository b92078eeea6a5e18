/* The CUDA attention against float64 loops: all kinds, forward, backward and statistics, in float32 and bfloat16. */
#include "tests/cuda/device_attention.h"

/* ---- comparing ---- */

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
    assert_near(s, trial->ctx.dtype, "out", out, tolerance);
    assert_near(s, trial->ctx.dtype, "logsumexp", logsumexp, tolerance);
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
    for (int part = 0; part < 2 && s->tokens > 1; part++)
        assert_near(s, trial->ctx.dtype, names[part], gradient[part], tolerance);
    assert_near(s, trial->ctx.dtype, names[2], gradient[2], tolerance);
}

/* ---- the tests ---- */

static void check_forward_passes(struct trial *trial, double tolerance)
{
    run_reference(trial->heads, &trial->extras, &trial->extra_gradients, &trial->shape);
    size_t bytes = trial->out.count * dtype_bytes(trial->ctx.dtype);
    void *without = malloc(bytes);
    assert_non_null(without);
    trial_forward(trial, false);
    check_forward(trial, tolerance);
    memcpy(without, trial->out.host, bytes);
    trial_forward(trial, true);
    assert_memory_equal(without, trial->out.host, bytes);
    free(without);
    assert_statistics(&trial->statistics[0][0], trial->heads, &trial->shape, tolerance);
}

static void check_trial(struct trial *trial)
{
    double tolerance = trial->ctx.dtype == DTYPE_FLOAT32 ? 1e-5 : 2e-2;
    check_forward_passes(trial, tolerance);
    trial_backward(trial);
    check_backward(trial, tolerance);
    check_extras(trial, tolerance);
    trial_free(trial);
}

static void check_shape(struct attention_shape shape, enum dtype dtype, double spread)
{
    struct trial trial;
    trial_new(&trial, shape, dtype, spread);
    check_trial(&trial);
}

static const size_t token_choices[] = {1, 2, 17, 50, 65, 197, 257};
static const size_t head_dim_choices[] = {16, 32, 64, 80, 96, 128};

static void matches_float64(enum dtype dtype)
{
    for (int kind = 0; kind < ATTENTION_KINDS; kind++) {
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

/* Rows that kernels fill up, and those of the kernels above 128; all kinds. */
static void other_head_dims_match_float64(void **state)
{
    (void)state;
    static const size_t head_dims[] = {8, 24, 40, 48, 56, 72, 88, 104, 112, 120, 136, 168, 200, 256};
    for (size_t i = 0; i < sizeof head_dims / sizeof *head_dims; i++)
        for (int kind = 0; kind < ATTENTION_KINDS; kind++) {
            check_shape((struct attention_shape){kind, 2, 37, 3, head_dims[i]}, DTYPE_BFLOAT16, 1);
            if (head_dims[i] % 32 == 8)
                check_shape((struct attention_shape){kind, 1, 37, 2, head_dims[i]}, DTYPE_FLOAT32, 1);
        }
    check_shape((struct attention_shape){ATTENTION_QKNORM, 1, 37, 2, 256}, DTYPE_FLOAT32, 1);
}

/* Of several blocks a head. */
static void long_sequences_of_other_head_dims_match_float64(void **state)
{
    (void)state;
    static const size_t head_dims[] = {8, 40, 56, 72, 104, 136};
    for (size_t i = 0; i < sizeof head_dims / sizeof *head_dims; i++)
        check_shape((struct attention_shape){ATTENTION_QUEST, 1, 300, 1, head_dims[i]}, DTYPE_BFLOAT16, 1);
}

static void other_head_dims_are_refused(void **state)
{
    (void)state;
    static const size_t unfit[] = {4, 12, 264};
    struct trial trial;
    struct attention_parameters none = {{NULL}};
    trial_new(&trial, (struct attention_shape){ATTENTION_QUEST, 1, 17, 1, 64}, DTYPE_BFLOAT16, 1);
    for (size_t i = 0; i < sizeof unfit / sizeof *unfit; i++) {
        struct error error = {0};
        char expected[64];
        snprintf(expected, sizeof expected, "head dimension of %zu; multiples of 8 up to 256", unfit[i]);
        trial.shape.head_dim = unfit[i];
        assert_false(cuda_attention_forward(&trial.ctx, trial.out.device, trial.logsumexp.device, trial.qkv.device,
                                            &none, NULL, &trial.shape, &error));
        assert_non_null(strstr(error.message, expected));
    }
    trial_free(&trial);
}

/* Steep logits: neither the bound on QUEST's logits nor the first reference of the exponentials holds. */
static void steep_logits_match_float64(void **state)
{
    (void)state;
    check_shape((struct attention_shape){ATTENTION_QUEST, 1, 77, 2, 64}, DTYPE_BFLOAT16, 12);
    check_shape((struct attention_shape){ATTENTION_STANDARD, 1, 77, 2, 64}, DTYPE_BFLOAT16, 4);
}

/* Queries and keys of some tokens become longer. */
static void stretch(struct trial *trial, size_t first, size_t end, double factor)
{
    const struct attention_shape *s = &trial->shape;
    for (size_t h = 0; h < s->heads; h++)
        for (size_t t = first; t < end; t++)
            for (size_t i = 0; i < 2 * s->head_dim; i++) {
                int part = (int)(i / s->head_dim);
                double *x = &trial->heads[h].x[part][t * s->head_dim + i % s->head_dim];
                *x = tensor_put(&trial->qkv, qkv_index(s, 0, t, part, h) + i % s->head_dim, *x * factor);
            }
    tensor_up(&trial->qkv);
}

/* The bound on the logits holds for some chunks of keys and not for others, in each order; so references appear, move
 * and stay, and queries whose logits are small stand beside others in one warp. */
static void chunks_of_all_norms_match_float64(void **state)
{
    (void)state;
    static const struct {
        size_t first, end;
    } long_tokens[] = {{0, 50}, {70, 130}, {140, 200}, {0, 1}};
    static const enum attention_kind kinds[] = {ATTENTION_STANDARD, ATTENTION_QUEST, ATTENTION_QNORM};
    for (size_t i = 0; i < sizeof long_tokens / sizeof *long_tokens; i++)
        for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
            struct trial trial;
            trial_new(&trial, (struct attention_shape){kinds[kind], 1, 200, 2, i % 2 ? 80 : 64}, DTYPE_BFLOAT16, 1);
            stretch(&trial, long_tokens[i].first, long_tokens[i].end, 20);
            check_forward_passes(&trial, 2e-2);
            trial_free(&trial);
        }
}

/* One infinite query: its own row is lost, the others are not, and the statistics show it. */
static void an_infinite_query_shows(void **state)
{
    (void)state;
    static const enum attention_kind kinds[] = {ATTENTION_STANDARD, ATTENTION_QUEST};
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
        struct trial trial;
        struct attention_shape shape = {kinds[kind], 1, 150, 1, 64};
        trial_new(&trial, shape, DTYPE_BFLOAT16, 1);
        tensor_put(&trial.qkv, qkv_index(&shape, 0, 70, 0, 0) + 9, INFINITY);
        tensor_up(&trial.qkv);
        trial_forward(&trial, true);
        assert_true(isinf(trial.statistics[0][STATISTIC_LOGIT_MAX]));
        assert_true(isinf(trial.statistics[0][STATISTIC_Q_MAX]));
        for (size_t t = 0; t < shape.tokens; t++) {
            assert_true(isfinite(tensor_get(&trial.logsumexp, t)) == (t != 70));
            for (size_t i = 0; i < shape.head_dim; i++)
                assert_true(isfinite(tensor_get(&trial.out, out_index(&shape, 0, t, 0) + i)) == (t != 70));
        }
        trial_free(&trial);
    }
}

/* Backward, several blocks have the keys of a head and add to its dQ in turn. */
static void long_sequences_match_float64(void **state)
{
    (void)state;
    check_shape((struct attention_shape){ATTENTION_QUEST, 1, 577, 2, 64}, DTYPE_BFLOAT16, 1);
    check_shape((struct attention_shape){ATTENTION_STANDARD, 2, 289, 1, 32}, DTYPE_BFLOAT16, 1);
    check_shape((struct attention_shape){ATTENTION_QUEST, 1, 1100, 1, 16}, DTYPE_BFLOAT16, 1);
    check_shape((struct attention_shape){ATTENTION_STANDARD, 1, 1100, 1, 64}, DTYPE_BFLOAT16, 1);
    check_shape((struct attention_shape){ATTENTION_QUEST, 1, 300, 1, 128}, DTYPE_BFLOAT16, 1);
}

/* Kernels that are chosen where a block has 99 KiB of shared memory. */
static void little_shared_memory_matches_float64(void **state)
{
    (void)state;
    static const struct attention_shape shapes[] = {{ATTENTION_QUEST, 1, 197, 2, 64},
                                                    {ATTENTION_QUEST, 1, 321, 1, 32},
                                                    {ATTENTION_QUEST, 1, 65, 1, 40},
                                                    {ATTENTION_QUEST, 1, 150, 1, 120},
                                                    {ATTENTION_QUEST, 1, 150, 1, 256}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct trial trial;
        trial_new(&trial, shapes[i], DTYPE_BFLOAT16, 1);
        trial.ctx.properties.shared_bytes_per_block = 99 * 1024;
        check_trial(&trial);
    }
}

/* |k|^2 of one key is infinite: its logits and its part in dQ are 0, and nothing becomes infinite. A key of zeros, the
 * other extreme, has the largest factor. */
static void extreme_keys_stay_finite(void **state)
{
    (void)state;
    struct trial trial;
    struct attention_shape shape = {ATTENTION_QUEST, 1, 77, 1, 64};
    trial_new(&trial, shape, DTYPE_BFLOAT16, 1);
    for (size_t i = 0; i < shape.head_dim; i++) {
        tensor_put(&trial.qkv, qkv_index(&shape, 0, 5, 1, 0) + i, 1e25);
        tensor_put(&trial.qkv, qkv_index(&shape, 0, 40, 1, 0) + i, 0);
    }
    tensor_up(&trial.qkv);
    trial_forward(&trial, false);
    trial_backward(&trial);
    for (size_t i = 0; i < trial.qkv_gradient.count; i++)
        assert_true(fabs(tensor_get(&trial.qkv_gradient, i)) < 1e8);
    for (size_t i = 0; i < shape.head_dim; i++) {
        assert_true(tensor_get(&trial.qkv_gradient, qkv_index(&shape, 0, 5, 1, 0) + i) == 0);
        assert_true(tensor_get(&trial.qkv_gradient, qkv_index(&shape, 0, 5, 2, 0) + i) != 0);
    }
    trial_free(&trial);
}

static void check_same_bits(struct attention_shape shape)
{
    struct trial trial;
    trial_new(&trial, shape, DTYPE_BFLOAT16, 1);
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

static void same_bits_again(void **state)
{
    (void)state;
    check_same_bits((struct attention_shape){ATTENTION_QUEST, 2, 300, 2, 64});
    check_same_bits((struct attention_shape){ATTENTION_QUEST, 1, 800, 2, 64});
}

/* Addresses are 32-bit counts of elements, also those of rows past the last one, which are formed and not used. What
 * lies within them is refused only because this context's scratch is too small for it; no pointer is ever followed. */
static void a_batch_that_32_bits_cannot_count_is_refused(void **state)
{
    (void)state;
    struct trial trial;
    struct error error;
    const size_t row = 3 * 64, most = (INT32_MAX - 256 * row) / row;
    trial_new(&trial, (struct attention_shape){ATTENTION_QUEST, 1, 16, 1, 64}, DTYPE_BFLOAT16, 1);
    const struct kernels *k = kernels_cuda();
    const struct attention_parameters parameters = {{0}};
    for (int over = 0; over <= 1; over++) {
        const struct attention_shape shape = {ATTENTION_QUEST, 1, most + (size_t)over, 1, 64};
        const struct attention_backward backward = {.parameters = &parameters, .shape = &shape};
        const char *expected = over ? "numbers in q, k and v" : "scratch memory";
        assert_true(shape.tokens * row <= INT32_MAX);
        assert_false(k->attention_forward(&trial.ctx, NULL, NULL, NULL, &parameters, NULL, &shape, &error));
        assert_non_null(strstr(error.message, expected));
        assert_false(k->attention_backward(&trial.ctx, &backward, &error));
        assert_non_null(strstr(error.message, expected));
    }
    trial_free(&trial);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float32_matches_float64),
        cmocka_unit_test(bfloat16_matches_float64),
        cmocka_unit_test(every_head_dim_matches_float64),
        cmocka_unit_test(steep_logits_match_float64),
        cmocka_unit_test(long_sequences_match_float64),
        cmocka_unit_test(little_shared_memory_matches_float64),
        cmocka_unit_test(extreme_keys_stay_finite),
        cmocka_unit_test(same_bits_again),
        cmocka_unit_test(chunks_of_all_norms_match_float64),
        cmocka_unit_test(a_batch_that_32_bits_cannot_count_is_refused),
        cmocka_unit_test(other_head_dims_match_float64),
        cmocka_unit_test(long_sequences_of_other_head_dims_match_float64),
        cmocka_unit_test(other_head_dims_are_refused),
        cmocka_unit_test(an_infinite_query_shows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
