/* The CUDA backend beside its kernels: memory, copies and their order, marks, descriptions, errors. */
#include "tests/cuda/twins.h"

#include <stdlib.h>
#include <string.h>

static struct context *opened(enum dtype dtype)
{
    struct error error;
    struct context *ctx;
    struct context_options options = {
        .dtype = dtype,
        .workload = {.batch = 2, .patches = 16, .patch_dim = 48, .dim = 64, .hidden = 256, .heads = 2, .classes = 10}};
    assert_ok(kernels_cuda()->open(&ctx, &options, &error), &error);
    return ctx;
}

static void memory_starts_as_zeros(void **state)
{
    (void)state;
    const struct kernels *k = kernels_cuda();
    struct context *ctx = opened(DTYPE_FLOAT32);
    struct error error;
    void *device;
    unsigned char host[1000];
    memset(host, 1, sizeof host);
    assert_ok(k->allocate(ctx, &device, sizeof host, "a test", &error), &error);
    assert_int_equal((uintptr_t)device % 64, 0);
    assert_null(k->host_view(ctx, device));
    assert_ok(k->download(ctx, host, device, sizeof host, &error) && k->synchronise(ctx, &error), &error);
    for (size_t i = 0; i < sizeof host; i++)
        assert_int_equal(host[i], 0);
    k->release(ctx, device);
    k->close(ctx);
}

static void too_much_memory_is_an_error_that_names_it(void **state)
{
    (void)state;
    const struct kernels *k = kernels_cuda();
    struct context *ctx = opened(DTYPE_FLOAT32);
    struct error error;
    size_t available;
    void *device;
    assert_ok(k->memory_available(ctx, &available, &error), &error);
    assert_true(available > 0);
    assert_false(k->allocate(ctx, &device, 16 * available, "activations", &error));
    assert_int_equal(error.status, ERROR_RUNTIME);
    assert_non_null(strstr(error.message, "activations"));
    assert_non_null(strstr(error.message, "train.batch_size"));
    /* The context still works. */
    assert_ok(k->allocate(ctx, &device, 1000, "a test", &error), &error);
    k->release(ctx, device);
    k->close(ctx);
}

static void a_missing_gpu_is_an_input_error(void **state)
{
    (void)state;
    struct error error;
    struct context *ctx;
    struct context_options options = {.device = 4096};
    assert_false(kernels_cuda()->open(&ctx, &options, &error));
    assert_int_equal(error.status, ERROR_INPUT);
    assert_non_null(strstr(error.message, "GPU 4096"));
    assert_true(kernels_cuda()->device_count() > 0);
}

/* Batches come up on the copy stream while ops read the last one: neither may overtake the other. */
static void prefetch_keeps_the_order(void **state)
{
    (void)state;
    enum { COUNT = 1 << 18, STEPS = 6 };
    const struct kernels *k = kernels_cuda();
    struct context *ctx = opened(DTYPE_FLOAT32);
    struct error error;
    void *batch, *host[2], *sum;
    double found[STEPS];
    assert_ok(k->allocate(ctx, &batch, COUNT * sizeof(float), "a batch", &error), &error);
    assert_ok(k->allocate(ctx, &sum, STEPS * sizeof(double), "sums", &error), &error);
    for (int i = 0; i < 2; i++)
        assert_ok(k->allocate_host(ctx, &host[i], COUNT * sizeof(float), "a batch", &error), &error);
    for (int step = 0; step < STEPS; step++) {
        float *values = host[step % 2];
        if (step >= 2)
            assert_ok(k->wait_mark(ctx, step % 2, &error), &error);
        for (size_t i = 0; i < COUNT; i++)
            values[i] = (float)(1 + step);
        assert_ok(k->prefetch_begin(ctx, &error) && k->prefetch(ctx, batch, values, COUNT * sizeof(float), &error) &&
                      k->prefetch_end(ctx, &error) &&
                      k->sum_of_squares(ctx, (double *)sum + step, batch, COUNT, &error) &&
                      k->mark(ctx, step % 2, &error),
                  &error);
    }
    assert_ok(k->download(ctx, found, sum, sizeof found, &error) && k->synchronise(ctx, &error), &error);
    for (int step = 0; step < STEPS; step++)
        assert_true(found[step] == (double)COUNT * (1 + step) * (1 + step));
    for (int i = 0; i < 2; i++)
        k->release_host(ctx, host[i]);
    k->release(ctx, batch);
    k->release(ctx, sum);
    k->close(ctx);
}

static void limits_and_description_are_the_devices(void **state)
{
    (void)state;
    const struct kernels *k = kernels_cuda();
    double flops[2], bytes_per_s;
    for (int dtype = DTYPE_FLOAT32; dtype <= DTYPE_BFLOAT16; dtype++) {
        char text[512];
        struct context *ctx = opened((enum dtype)dtype);
        k->limits(ctx, &flops[dtype], &bytes_per_s);
        k->describe(ctx, text, sizeof text);
        assert_non_null(strstr(text, "compute capability"));
        assert_non_null(k->stream(ctx));
        k->close(ctx);
    }
    assert_true(flops[DTYPE_FLOAT32] > 1e12);
    assert_true(flops[DTYPE_BFLOAT16] > flops[DTYPE_FLOAT32]);
    assert_true(bytes_per_s > 1e11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_starts_as_zeros),
        cmocka_unit_test(too_much_memory_is_an_error_that_names_it),
        cmocka_unit_test(a_missing_gpu_is_an_input_error),
        cmocka_unit_test(prefetch_keeps_the_order),
        cmocka_unit_test(limits_and_description_are_the_devices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
