/* The benchmarks' input is no zeros: random numbers of variance 1 in both types, the same every time. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/bench/random.h"

static double number(const void *tensor, enum dtype dtype, size_t i)
{
    if (dtype == DTYPE_FLOAT32)
        return (double)((const float *)tensor)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)tensor)[i] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return (double)value;
}

static void numbers_have_mean_0_and_variance_1(void **state)
{
    (void)state;
    enum { COUNT = 600001 }; /* more than two pieces */
    const struct kernels *kernels = kernels_cpu();
    struct context_options options = {
        .threads = 1,
        .workload = {.batch = 1, .patches = 1, .patch_dim = 16, .dim = 16, .hidden = 16, .heads = 1, .classes = 1}};
    struct context *ctx;
    struct error error;
    assert_true(kernels->open(&ctx, &options, &error));
    for (int dtype = DTYPE_FLOAT32; dtype <= DTYPE_BFLOAT16; dtype++) {
        void *tensor = NULL;
        double sum = 0, squares = 0, last_squares = 0;
        assert_true(bench_random(kernels, ctx, &tensor, COUNT, (enum dtype)dtype, &error));
        for (size_t i = 0; i < COUNT; i++) {
            double x = number(tensor, (enum dtype)dtype, i);
            assert_true(fabs(x) <= 1.7 + 1e-6);
            sum += x;
            squares += x * x;
            last_squares += i >= COUNT - 1000 ? x * x : 0;
        }
        assert_true(fabs(sum / COUNT) < 0.02);
        assert_true(fabs(squares / COUNT - 1) < 0.05); /* 1.7^2 / 3, and bfloat16 is cut */
        assert_true(fabs(last_squares / 1000 - 1) < 0.2);
        kernels->release(ctx, tensor);
    }
    kernels->close(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(numbers_have_mean_0_and_variance_1)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
