/* The CPU backend's context: opening, memory, copies, limits, and the search for numbers that are not finite. */
#include <omp.h>
#include <signal.h>

#include "kernels/bfloat16.h"
#include "kernels/gemm_rate.h"
#include "tests/unit/op_test.h"

/* AddressSanitizer ends a program that asks for too much, unless told that NULL will do. */
const char *__asan_default_options(void); /* NOLINT(bugprone-reserved-identifier) */
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static void nonfinite_trial(struct op_test *test)
{
    const double bad[] = {NAN, INFINITY, -INFINITY};
    struct error error;
    size_t first, count = random_between(test, 1, 5000);
    struct tensor *x = tensor_random(test, count, test->dtype, 1e38);
    assert_ok(test->k->find_nonfinite(test->ctx, &first, x->data, test->dtype, count, &error), &error);
    assert_int_equal(first, count);
    size_t place = random_between(test, 0, count - 1);
    tensor_set(x, place, bad[random_between(test, 0, 2)]);
    tensor_set(x, random_between(test, place, count - 1), bad[random_between(test, 0, 2)]);
    assert_ok(test->k->find_nonfinite(test->ctx, &first, x->data, test->dtype, count, &error), &error);
    assert_int_equal(first, place);
}

static void first_nonfinite_is_found(void **state)
{
    (void)state;
    op_test_each(nonfinite_trial, 20);
}

static void bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    assert_int_equal(bf16_from_float(1.0f), 0x3f80);
    assert_int_equal(bf16_from_float(float_from_bits(0x3f808000)), 0x3f80); /* halfway, down to even */
    assert_int_equal(bf16_from_float(float_from_bits(0x3f818000)), 0x3f82); /* halfway, up to even */
    assert_int_equal(bf16_from_float(float_from_bits(0x3f808001)), 0x3f81);
    assert_int_equal(bf16_from_float(float_from_bits(0x7f7fffff)), 0x7f80); /* the largest float rounds to infinity */
    assert_int_equal(bf16_from_float(-INFINITY), 0xff80);
    assert_true(isnan(float_from_bf16(bf16_from_float(float_from_bits(0x7f800001)))));
    assert_true(isnan(float_from_bf16(bf16_from_float(float_from_bits(0xffffffff)))));
}

static void memory_is_zeroed_aligned_and_refused_by_name(void **state)
{
    (void)state;
    struct op_test test;
    struct error error;
    assert_true(op_test_open(&test, kernels_cpu(), DTYPE_FLOAT32, 1));
    const size_t sizes[] = {1, 4096, (3 << 20) + 5};
    for (size_t i = 0; i < 3; i++) {
        void *memory;
        assert_ok(test.k->allocate(test.ctx, &memory, sizes[i], "a test", &error), &error);
        assert_int_equal((uintptr_t)memory % 64, 0);
        for (size_t byte = 0; byte < sizes[i]; byte++)
            assert_int_equal(((char *)memory)[byte], 0);
        test.k->release(test.ctx, memory);
    }
    void *memory;
    assert_false(test.k->allocate(test.ctx, &memory, SIZE_MAX / 4, "the moon", &error));
    assert_non_null(strstr(error.message, "the moon"));
    test.k->close(test.ctx);
}

static void copies_arrive(void **state)
{
    (void)state;
    struct op_test test;
    struct error error;
    assert_true(op_test_open(&test, kernels_cpu(), DTYPE_FLOAT32, 1));
    struct tensor *a = tensor_random(&test, 100, DTYPE_FLOAT32, 1), *b = tensor_zeros(&test, 100, DTYPE_FLOAT32);
    assert_ok(test.k->prefetch_begin(test.ctx, &error), &error);
    assert_ok(test.k->prefetch(test.ctx, b->data, a->data, 400, &error), &error);
    assert_ok(test.k->prefetch_end(test.ctx, &error), &error);
    assert_ok(test.k->mark(test.ctx, 7, &error), &error);
    assert_ok(test.k->wait_mark(test.ctx, 7, &error), &error);
    assert_same_bits("prefetched", a, b);
    assert_ok(test.k->zero(test.ctx, b->data, 400, &error), &error);
    assert_true(tensor_get(b, 99) == 0);
    assert_ok(test.k->upload(test.ctx, b->data, a->data, 400, &error), &error);
    assert_same_bits("uploaded", a, b);
    assert_null(test.k->stream(test.ctx));
    op_test_release_tensors(&test);
    test.k->close(test.ctx);
}

static void device_is_described(void **state)
{
    (void)state;
    struct op_test test;
    struct error error;
    char text[256], tiny[8];
    double flops, bytes_per_s, again;
    size_t available;
    assert_true(op_test_open(&test, kernels_cpu(), DTYPE_FLOAT32, 2));
    test.k->describe(test.ctx, text, sizeof text);
    assert_non_null(strstr(text, "2 threads"));
    test.k->describe(test.ctx, tiny, sizeof tiny); /* cut off, not written past */
    assert_true(strlen(tiny) < sizeof tiny);
    test.k->limits(test.ctx, &flops, &bytes_per_s);
    assert_true(flops > 1e8);
    test.k->limits(test.ctx, &again, &bytes_per_s);
    assert_true(again == flops); /* measured once */
    assert_ok(test.k->memory_available(test.ctx, &available, &error), &error);
    assert_true(available > 1 << 20);
    test.k->close(test.ctx);
}

/* A signal comes to the thread that trains; the others, which are in the middle of a product, take faults alone. */
static void threads_that_help_take_no_signals(void **state)
{
    (void)state;
    const int signals[] = {SIGTERM, SIGINT, SIGUSR1, SIGALRM}, faults[] = {SIGSEGV, SIGFPE, SIGABRT};
    int blocked[2] = {0}, blocked_faults[2] = {0};
    struct op_test test;
    assert_true(op_test_open(&test, kernels_cpu(), DTYPE_FLOAT32, 2));
#pragma omp parallel num_threads(2)
    {
        sigset_t now;
        int thread = omp_get_thread_num();
        pthread_sigmask(SIG_BLOCK, NULL, &now);
        for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
            blocked[thread] += sigismember(&now, signals[i]);
        for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
            blocked_faults[thread] += sigismember(&now, faults[i]);
    }
    assert_int_equal(blocked[0], 0);
    assert_int_equal(blocked[1], sizeof signals / sizeof *signals);
    assert_int_equal(blocked_faults[0] + blocked_faults[1], 0);
    test.k->close(test.ctx);
}

/* The workspace is what workspace_bytes says, and grows with the workload. */
static void workspace_is_planned(void **state)
{
    (void)state;
    struct context_options small = {.threads = 1, .workload = op_test_workload}, large = small;
    large.workload.batch *= 16;
    large.workload.dim *= 4;
    large.workload.hidden *= 4;
    assert_true(kernels_cpu()->workspace_bytes(&small) > 0);
    assert_true(kernels_cpu()->workspace_bytes(&large) > kernels_cpu()->workspace_bytes(&small));
}

static void gemm_rate_is_measured(void **state)
{
    (void)state;
    struct error error;
    double flops;
    int threads = 1;
    assert_ok(cpu_gemm_rate(&flops, 64, &threads, DTYPE_FLOAT32, 0.0, &error), &error);
    assert_true(flops > 1e7);
    assert_int_equal(threads, 1);
    threads = 0;
    assert_ok(cpu_gemm_rate(&flops, 64, &threads, DTYPE_FLOAT32, 0.0, &error), &error);
    assert_true(threads >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_nonfinite_is_found),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(memory_is_zeroed_aligned_and_refused_by_name),
        cmocka_unit_test(copies_arrive),
        cmocka_unit_test(device_is_described),
        cmocka_unit_test(threads_that_help_take_no_signals),
        cmocka_unit_test(workspace_is_planned),
        cmocka_unit_test(gemm_rate_is_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
