/* A CPU without bfloat16 instructions, played by telling oneDNN to use no more than AVX2: float32 works, bfloat16 is
 * refused with a line that says what to do. A program of its own, since oneDNN is told once. */
#include <oneapi/dnnl/dnnl.h>

#include "kernels/gemm_rate.h"
#include "tests/unit/op_test.h"

static void bf16_is_refused(void **state)
{
    (void)state;
    struct error error = {0};
    struct context *ctx = NULL;
    struct context_options options = {.dtype = DTYPE_BFLOAT16, .threads = 1, .workload = op_test_workload};
    assert_false(kernels_cpu()->open(&ctx, &options, &error));
    assert_null(ctx);
    assert_int_equal(error.status, ERROR_INPUT);
    assert_non_null(strstr(error.message, "bfloat16"));
    assert_non_null(strstr(error.message, "fp32"));
    double flops;
    int threads = 1;
    assert_false(cpu_gemm_rate(&flops, 64, &threads, DTYPE_BFLOAT16, 0, &error));
    assert_int_equal(error.status, ERROR_INPUT);
}

static void fp32_works(void **state)
{
    (void)state;
    struct op_test test;
    struct error error;
    assert_true(op_test_open(&test, kernels_cpu(), DTYPE_FLOAT32, 1));
    struct tensor *in = tensor_random(&test, 30, DTYPE_FLOAT32, 1),
                  *weight = tensor_random(&test, 10, DTYPE_FLOAT32, 1);
    struct tensor *out = tensor_zeros(&test, 3, DTYPE_FLOAT32);
    struct linear_forward forward = {
        .out = out->data, .in = in->data, .weight = weight->data, .rows = 3, .in_dim = 10, .out_dim = 1};
    assert_ok(test.k->linear_forward(test.ctx, &forward, &error), &error);
    for (size_t i = 0; i < 30; i++)
        out->exact[i / 10] += in->exact[i] * weight->exact[i % 10];
    assert_close("out", out, out->exact, 2e-6);
    op_test_release_tensors(&test);
    test.k->close(test.ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bf16_is_refused), cmocka_unit_test(fp32_works)};
    if (dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2) != dnnl_success)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
