/* Which algorithm a product is computed by: refused and failing ones, the fastest, and choices out and in. cuBLASLt is
 * pretend_products.c's, whose offer i multiplies by PRETENDED_SCALE(i). */
#include "tests/cuda/pretend_products.h"
#include "tests/cuda/twins.h"

#include <cuda_runtime.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/products.h"

enum { ROWS = 24, IN = 16, OUT = 32 };

/* One linear layer of small whole numbers, so that every result is exact, and what it should come to. */
struct layer {
    struct context *ctx;
    float *in, *weight, *bias, *out, *out_gradient, *in_gradient, *weight_gradient, *bias_gradient; /* on the device */
};

static const struct kernels *k;

static float number(size_t i)
{
    return (float)((int)(i * 7 % 11) - 5);
}

/* Numbers that begin with `seed`, `offset` bytes behind the allocation's start. */
static float *numbers(struct context *ctx, size_t count, size_t seed, size_t offset)
{
    struct error error;
    void *device;
    float *host = malloc(count * sizeof *host);
    assert_non_null(host);
    for (size_t i = 0; i < count; i++)
        host[i] = number(i + seed);
    assert_ok(k->allocate(ctx, &device, count * sizeof *host + offset, "a test", &error), &error);
    assert_ok(k->upload(ctx, (char *)device + offset, host, count * sizeof *host, &error) &&
                  k->synchronise(ctx, &error),
              &error);
    free(host);
    return (float *)(void *)((char *)device + offset);
}

static struct layer open_layer(enum products_mode mode)
{
    struct error error;
    struct context_options options = {
        .workload = {
            .batch = 1, .patches = ROWS, .patch_dim = IN, .dim = OUT, .hidden = OUT, .heads = 1, .classes = IN}};
    struct layer layer;
    k = kernels_cuda();
    assert_ok(k->open(&layer.ctx, &options, &error), &error);
    k->products->set_mode(layer.ctx, mode);
    layer.in = numbers(layer.ctx, (size_t)ROWS * IN, 0, 0);
    layer.weight = numbers(layer.ctx, (size_t)OUT * IN, 1, 0);
    layer.bias = numbers(layer.ctx, OUT, 2, 0);
    layer.out = numbers(layer.ctx, (size_t)ROWS * OUT, 3, 0);
    layer.out_gradient = numbers(layer.ctx, (size_t)ROWS * OUT, 4, 0);
    layer.in_gradient = numbers(layer.ctx, (size_t)ROWS * IN, 5, 0);
    layer.weight_gradient = numbers(layer.ctx, (size_t)OUT * IN, 6, 0);
    layer.bias_gradient = numbers(layer.ctx, OUT, 7, 0);
    return layer;
}

static void close_layer(struct layer *layer)
{
    void *all[] = {layer->in,          layer->weight,          layer->bias,         layer->out, layer->out_gradient,
                   layer->in_gradient, layer->weight_gradient, layer->bias_gradient};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        k->release(layer->ctx, all[i]);
    k->close(layer->ctx);
    pretended = (struct pretended_products){.fast = -1};
}

static bool forward(const struct layer *layer, struct error *error)
{
    struct linear_forward op = {.out = layer->out,
                                .in = layer->in,
                                .weight = layer->weight,
                                .bias = layer->bias,
                                .rows = ROWS,
                                .in_dim = IN,
                                .out_dim = OUT};
    return k->linear_forward(layer->ctx, &op, error) && k->synchronise(layer->ctx, error);
}

static bool backward(const struct layer *layer, struct error *error)
{
    struct linear_backward op = {.in_gradient = layer->in_gradient,
                                 .weight_gradient = layer->weight_gradient,
                                 .bias_gradient = layer->bias_gradient,
                                 .out_gradient = layer->out_gradient,
                                 .in = layer->in,
                                 .weight = layer->weight,
                                 .rows = ROWS,
                                 .in_dim = IN,
                                 .out_dim = OUT};
    return k->linear_backward(layer->ctx, &op, error) && k->synchronise(layer->ctx, error);
}

static void assert_numbers(const struct layer *layer, const float *device, size_t count, const float *expected,
                           const char *what)
{
    struct error error;
    float *host = malloc(count * sizeof *host);
    assert_non_null(host);
    assert_ok(k->download(layer->ctx, host, device, count * sizeof *host, &error) && k->synchronise(layer->ctx, &error),
              &error);
    for (size_t i = 0; i < count; i++)
        if (host[i] != expected[i])
            fail_msg("%s[%zu] is %.9g, not %.9g", what, i, (double)host[i], (double)expected[i]);
    free(host);
}

/* out = scale * in weight^T + bias */
static void assert_out(const struct layer *layer, float scale)
{
    float expected[ROWS * OUT];
    for (size_t row = 0; row < ROWS; row++) {
        for (size_t column = 0; column < OUT; column++) {
            float sum = 0;
            for (size_t i = 0; i < IN; i++)
                sum += number(row * IN + i) * number(column * IN + i + 1);
            expected[row * OUT + column] = scale * sum + number(column + 2);
        }
    }
    assert_numbers(layer, layer->out, (size_t)ROWS * OUT, expected, "out");
}

static void assert_gradients(const struct layer *layer, float input_scale, float weight_scale, int times)
{
    float input[ROWS * IN], weight[OUT * IN], bias[OUT];
    for (size_t row = 0; row < ROWS; row++) {
        for (size_t i = 0; i < IN; i++) {
            float sum = 0;
            for (size_t column = 0; column < OUT; column++)
                sum += number(row * OUT + column + 4) * number(column * IN + i + 1);
            input[row * IN + i] = input_scale * sum;
        }
    }
    for (size_t column = 0; column < OUT; column++) {
        float sums = 0;
        for (size_t row = 0; row < ROWS; row++)
            sums += number(row * OUT + column + 4);
        bias[column] = number(column + 7) + (float)times * sums;
        for (size_t i = 0; i < IN; i++) {
            float sum = 0;
            for (size_t row = 0; row < ROWS; row++)
                sum += number(row * OUT + column + 4) * number(row * IN + i);
            weight[column * IN + i] = number(column * IN + i + 6) + (float)times * weight_scale * sum;
        }
    }
    assert_numbers(layer, layer->in_gradient, (size_t)ROWS * IN, input, "in_gradient");
    assert_numbers(layer, layer->weight_gradient, (size_t)OUT * IN, weight, "weight_gradient");
    assert_numbers(layer, layer->bias_gradient, OUT, bias, "bias_gradient");
}

/* The choice for the product with this epilogue and type of out (accumulating or not). */
static struct product_choice choice_of(const struct layer *layer, enum product_epilogue epilogue, bool accumulate)
{
    struct product_choice choice = {0};
    for (size_t i = 0; i < k->products->count(layer->ctx); i++) {
        k->products->get(layer->ctx, i, &choice);
        if (choice.product.epilogue == epilogue && choice.product.accumulate == accumulate)
            return choice;
    }
    fail_msg("no such product was met");
    return choice;
}

/* ---- refused ---- */

static void a_refused_offer_gives_way_to_the_next_for_good(void **state)
{
    (void)state;
    const cublasStatus_t refusals[] = {CUBLAS_STATUS_NOT_SUPPORTED, CUBLAS_STATUS_INVALID_VALUE,
                                       CUBLAS_STATUS_ARCH_MISMATCH};
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct error error;
        struct layer layer = open_layer(PRODUCTS_FIRST);
        pretended =
            (struct pretended_products){.offers = 4, .fast = -1, .refuse = 1 | 4, .refuse_with = (int)refusals[i]};
        for (int call = 0; call < 3; call++)
            assert_ok(forward(&layer, &error), &error);
        assert_out(&layer, PRETENDED_SCALE(1));
        assert_int_equal(pretended.runs[0], 1);
        assert_int_equal(pretended.runs[1], 3);
        assert_int_equal(k->products->refused(layer.ctx), 1);
        assert_int_equal(choice_of(&layer, PRODUCT_BIAS, false).refused, 1);
        close_layer(&layer);
    }
}

static void where_all_offers_are_refused_cublas_multiplies(void **state)
{
    (void)state;
    struct error error;
    struct layer layer = open_layer(PRODUCTS_FIRST);
    pretended =
        (struct pretended_products){.offers = 2, .fast = -1, .refuse = 3, .refuse_with = CUBLAS_STATUS_NOT_SUPPORTED};
    for (int call = 0; call < 2; call++)
        assert_ok(forward(&layer, &error) && backward(&layer, &error), &error);
    assert_out(&layer, 1);
    assert_gradients(&layer, 1, 1, 2);
    /* forward and weights with their epilogues and without, input without: two offers each, asked once */
    assert_int_equal(pretended.calls, 10);
    assert_int_equal(pretended.general, 6);
    assert_int_equal(choice_of(&layer, PRODUCT_BIAS, false).way, PRODUCT_IN_PARTS);
    assert_int_equal(choice_of(&layer, PRODUCT_ALONE, true).way, PRODUCT_BY_GENERAL);
    close_layer(&layer);
}

static void where_nothing_is_offered_cublas_multiplies(void **state)
{
    (void)state;
    struct error error;
    for (int mode = PRODUCTS_TUNED; mode <= PRODUCTS_PLAIN; mode++) {
        struct layer layer = open_layer((enum products_mode)mode);
        pretended = (struct pretended_products){.nothing = mode != PRODUCTS_PLAIN, .offers = 2, .fast = -1};
        assert_ok(forward(&layer, &error) && backward(&layer, &error), &error);
        assert_out(&layer, 1);
        assert_gradients(&layer, 1, 1, 1);
        assert_int_equal(pretended.general, 3);
        assert_int_equal(pretended.calls, 0);
        assert_int_equal(pretended.asked, mode == PRODUCTS_PLAIN ? 0 : 5);
        close_layer(&layer);
    }
}

static void a_late_refusal_changes_the_offer_and_nothing_else(void **state)
{
    (void)state;
    struct error error;
    struct layer layer = open_layer(PRODUCTS_FIRST);
    pretended = (struct pretended_products){
        .offers = 2, .fast = -1, .refuse = 1, .refuse_with = CUBLAS_STATUS_INVALID_VALUE, .refuse_from = 30};
    for (int call = 0; call < 29; call++)
        assert_ok(forward(&layer, &error), &error);
    assert_out(&layer, 1);
    assert_int_equal(k->products->refused(layer.ctx), 0);
    assert_ok(forward(&layer, &error), &error);
    assert_out(&layer, PRETENDED_SCALE(1));
    assert_int_equal(k->products->refused(layer.ctx), 1);
    close_layer(&layer);
}

static void a_real_failure_is_one_line_that_names_the_product(void **state)
{
    (void)state;
    const cublasStatus_t failures[] = {CUBLAS_STATUS_EXECUTION_FAILED, CUBLAS_STATUS_ALLOC_FAILED,
                                       CUBLAS_STATUS_INTERNAL_ERROR, CUBLAS_STATUS_NOT_INITIALIZED};
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        struct error error;
        struct layer layer = open_layer(PRODUCTS_FIRST);
        pretended = (struct pretended_products){.fast = -1, .fail_at = 30, .fail_with = (int)failures[i]};
        for (int call = 0; call < 29; call++)
            assert_ok(forward(&layer, &error), &error);
        assert_false(forward(&layer, &error));
        assert_int_equal(error.status, ERROR_RUNTIME);
        assert_non_null(strstr(error.message, "GPU 0, the product of 32 x 24 x 16 (fp32 to fp32, with a bias)"));
        assert_non_null(strstr(error.message, "cublasLtMatmul: "));
        assert_null(strchr(error.message, '\n'));
        assert_int_equal(pretended.general, 0);
        close_layer(&layer);
    }
}

/* ---- tuned ---- */

static void the_fastest_offer_is_taken_and_no_tensor_shows_it(void **state)
{
    (void)state;
    struct error error;
    for (int fast = 0; fast < 3; fast += 2) {
        struct layer layer = open_layer(PRODUCTS_TUNED);
        pretended = (struct pretended_products){.offers = 3, .fast = fast};
        for (int call = 0; call < 2; call++)
            assert_ok(forward(&layer, &error) && backward(&layer, &error), &error);
        assert_out(&layer, PRETENDED_SCALE(fast));
        assert_gradients(&layer, PRETENDED_SCALE(fast), PRETENDED_SCALE(fast), 2);
        struct product_choice choice = choice_of(&layer, PRODUCT_ALONE, false);
        assert_true(choice.tuned && choice.way == PRODUCT_BY_LIBRARY && choice.offered == 3);
        assert_true(choice.time_s > 0 && choice.time_s < PRETENDED_WAIT_S);
        assert_true(fast == 0 ? choice.first_s == choice.time_s : choice.first_s > PRETENDED_WAIT_S);
        int calls = pretended.calls;
        assert_ok(forward(&layer, &error), &error); /* one product, not timed again */
        assert_int_equal(pretended.calls, calls + 1);
        close_layer(&layer);
    }
}

static void an_epilogue_that_does_not_pay_is_done_apart(void **state)
{
    (void)state;
    struct error error;
    struct layer layer = open_layer(PRODUCTS_TUNED);
    pretended = (struct pretended_products){.offers = 2, .fast = -1, .epilogues_wait = 1};
    assert_ok(forward(&layer, &error) && backward(&layer, &error), &error);
    struct product_choice bias = choice_of(&layer, PRODUCT_BIAS, false),
                          sums = choice_of(&layer, PRODUCT_COLUMN_SUMS, true);
    assert_true(bias.way == PRODUCT_IN_PARTS && sums.way == PRODUCT_IN_PARTS);
    assert_true(bias.time_s > 0 && bias.first_s > PRETENDED_WAIT_S);
    assert_int_equal(choice_of(&layer, PRODUCT_ALONE, true).way, PRODUCT_BY_LIBRARY);
    assert_int_equal(pretended.general, 0);
    close_layer(&layer);
}

static void an_offer_that_fails_when_it_is_timed_is_out(void **state)
{
    (void)state;
    struct error error;
    struct layer layer = open_layer(PRODUCTS_TUNED);
    pretended = (struct pretended_products){
        .offers = 3, .fast = 0, .refuse = 1 | 2, .refuse_with = CUBLAS_STATUS_INTERNAL_ERROR};
    assert_ok(forward(&layer, &error) && backward(&layer, &error), &error);
    assert_gradients(&layer, PRETENDED_SCALE(2), PRETENDED_SCALE(2), 1);
    assert_int_equal(choice_of(&layer, PRODUCT_ALONE, false).refused, 2);
    close_layer(&layer);
}

static void nothing_is_timed_while_a_stream_is_captured(void **state)
{
    (void)state;
    struct error error;
    cudaGraph_t graph;
    struct layer layer = open_layer(PRODUCTS_TUNED);
    pretended = (struct pretended_products){.offers = 3, .fast = -1};
    cudaStream_t stream = k->stream(layer.ctx);
    struct linear_forward op = {
        .out = layer.out, .in = layer.in, .weight = layer.weight, .rows = ROWS, .in_dim = IN, .out_dim = OUT};
    assert_int_equal(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    assert_ok(k->linear_forward(layer.ctx, &op, &error), &error);
    assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    assert_int_equal(cudaGraphDestroy(graph), cudaSuccess);
    assert_int_equal(pretended.calls, 1);
    assert_false(choice_of(&layer, PRODUCT_ALONE, false).tuned);
    close_layer(&layer);
}

static void a_plan_does_not_depend_on_where_a_tensor_lies(void **state)
{
    (void)state;
    struct error error;
    struct layer layer = open_layer(PRODUCTS_FIRST);
    assert_ok(forward(&layer, &error), &error);
    size_t count = k->products->count(layer.ctx);
    for (size_t offset = 16; offset <= 256; offset *= 2) {
        float *in = numbers(layer.ctx, (size_t)ROWS * IN, 0, offset);
        struct layer other = layer;
        other.in = in;
        assert_ok(forward(&other, &error), &error);
        assert_int_equal(k->products->count(layer.ctx), count);
        k->release(layer.ctx, (char *)in - offset);
    }
    close_layer(&layer);
}

/* ---- out and in ---- */

static void a_choice_that_was_kept_is_taken_whatever_is_faster_now(void **state)
{
    (void)state;
    struct error error;
    struct product_choice choices[16];
    struct layer layer = open_layer(PRODUCTS_TUNED);
    char identity[PRODUCTS_IDENTITY_BYTES], read_identity[PRODUCTS_IDENTITY_BYTES];
    pretended = (struct pretended_products){.offers = 3, .fast = 2};
    assert_ok(forward(&layer, &error) && backward(&layer, &error), &error);
    size_t count = k->products->count(layer.ctx);
    k->products->identity(layer.ctx, identity, sizeof identity);
    assert_in_range(count, 1, 16);
    for (size_t i = 0; i < count; i++) {
        k->products->get(layer.ctx, i, &choices[i]);
        char *line = product_choice_format(&choices[i], identity);
        assert_ok(product_choice_read(&choices[i], read_identity, line, strlen(line), &error), &error);
        assert_string_equal(read_identity, identity);
        free(line);
    }
    close_layer(&layer);

    layer = open_layer(PRODUCTS_TUNED);
    pretended = (struct pretended_products){.offers = 3, .fast = 1};
    for (size_t i = 0; i < count; i++)
        assert_ok(k->products->take(layer.ctx, &choices[i], &error), &error);
    assert_ok(forward(&layer, &error) && backward(&layer, &error), &error);
    assert_out(&layer, PRETENDED_SCALE(2));
    assert_gradients(&layer, PRETENDED_SCALE(2), PRETENDED_SCALE(2), 1);
    assert_int_equal(pretended.calls, 3);
    close_layer(&layer);
}

static void what_is_no_choice_here_is_not_taken(void **state)
{
    (void)state;
    struct error error;
    struct layer layer = open_layer(PRODUCTS_FIRST);
    assert_ok(forward(&layer, &error), &error);
    struct product_choice bias = choice_of(&layer, PRODUCT_BIAS, false), alone = bias;
    alone.product.epilogue = PRODUCT_ALONE;
    struct product_choice bad[4] = {bias, bias, alone, bias};
    memset(bad[0].algorithm, 0x5a, sizeof bad[0].algorithm);
    memset(bad[1].algorithm, 0, sizeof bad[1].algorithm);
    bad[2].way = PRODUCT_IN_PARTS;
    bad[3].way = PRODUCT_BY_GENERAL;
    for (size_t i = 0; i < 4; i++) {
        assert_false(k->products->take(layer.ctx, &bad[i], &error));
        assert_int_equal(error.status, ERROR_RUNTIME);
        assert_non_null(strstr(error.message, "the product of 32 x 24 x 16"));
    }
    assert_ok(forward(&layer, &error), &error);
    assert_out(&layer, 1);
    assert_memory_equal(choice_of(&layer, PRODUCT_BIAS, false).algorithm, bias.algorithm, sizeof bias.algorithm);
    bias.way = PRODUCT_IN_PARTS;
    assert_ok(k->products->take(layer.ctx, &bias, &error), &error);
    assert_ok(forward(&layer, &error), &error);
    assert_out(&layer, 1);
    close_layer(&layer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refused_offer_gives_way_to_the_next_for_good),
        cmocka_unit_test(where_all_offers_are_refused_cublas_multiplies),
        cmocka_unit_test(where_nothing_is_offered_cublas_multiplies),
        cmocka_unit_test(a_late_refusal_changes_the_offer_and_nothing_else),
        cmocka_unit_test(a_real_failure_is_one_line_that_names_the_product),
        cmocka_unit_test(the_fastest_offer_is_taken_and_no_tensor_shows_it),
        cmocka_unit_test(an_epilogue_that_does_not_pay_is_done_apart),
        cmocka_unit_test(an_offer_that_fails_when_it_is_timed_is_out),
        cmocka_unit_test(nothing_is_timed_while_a_stream_is_captured),
        cmocka_unit_test(a_plan_does_not_depend_on_where_a_tensor_lies),
        cmocka_unit_test(a_choice_that_was_kept_is_taken_whatever_is_faster_now),
        cmocka_unit_test(what_is_no_choice_here_is_not_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
