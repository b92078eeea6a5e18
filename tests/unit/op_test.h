/* What the tests of the ops share: a context, tensors whose values are also kept as float64, and comparisons.
 *
 * A trial is one call of an op on one random shape. op_test_each runs it for float32 and bfloat16, on 1 and on 3
 * threads; a reference is a plain float64 loop over the `exact` values, which are those that the op reads (rounded to
 * the dtype). */
#ifndef QUEST_TESTS_OP_TEST_H
#define QUEST_TESTS_OP_TEST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"
#include "tests/unit/brief.h"

struct tensor {
    void *data;
    double *exact;
    size_t count;
    enum dtype dtype;
};

enum { OP_TEST_TENSORS = 32 };

struct op_test {
    const struct kernels *k;
    struct context *ctx;
    enum dtype dtype;
    uint64_t random; /* state */
    struct tensor tensors[OP_TEST_TENSORS];
    size_t tensor_count;
};

/* SplitMix64. */
static inline uint64_t random_word(struct op_test *test)
{
    uint64_t z = test->random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline size_t random_between(struct op_test *test, size_t low, size_t high)
{
    return low + random_word(test) % (high - low + 1);
}

/* Uniform in -1 ... 1. */
static inline double random_number(struct op_test *test)
{
    return (double)(random_word(test) >> 11) * 0x1p-52 - 1.0;
}

static inline double tensor_get(const struct tensor *tensor, size_t i)
{
    if (tensor->dtype == DTYPE_FLOAT32)
        return (double)((const float *)tensor->data)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)tensor->data)[i] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return (double)value;
}

/* Bfloat16 by truncation: which neighbour the inputs are rounded to does not matter. */
static inline void tensor_set(struct tensor *tensor, size_t i, double value)
{
    float rounded = (float)value;
    if (tensor->dtype == DTYPE_FLOAT32) {
        ((float *)tensor->data)[i] = rounded;
    } else {
        uint32_t bits;
        memcpy(&bits, &rounded, sizeof bits);
        ((uint16_t *)tensor->data)[i] = (uint16_t)(bits >> 16);
    }
    tensor->exact[i] = tensor_get(tensor, i);
}

/* Released at the end of the trial; the context's dtype unless it is float32 that is asked for. */
static inline struct tensor *tensor_zeros(struct op_test *test, size_t count, enum dtype dtype)
{
    struct error error;
    assert_true(test->tensor_count < OP_TEST_TENSORS);
    struct tensor *tensor = &test->tensors[test->tensor_count++];
    *tensor = (struct tensor){.count = count, .dtype = dtype, .exact = calloc(count, sizeof(double))};
    assert_non_null(tensor->exact);
    assert_true(test->k->allocate(test->ctx, &tensor->data, count * dtype_bytes(dtype), "a test", &error));
    return tensor;
}

static inline struct tensor *tensor_random(struct op_test *test, size_t count, enum dtype dtype, double scale)
{
    struct tensor *tensor = tensor_zeros(test, count, dtype);
    for (size_t i = 0; i < count; i++)
        tensor_set(tensor, i, scale * random_number(test));
    return tensor;
}

static inline struct tensor *tensor_copy(struct op_test *test, const struct tensor *from)
{
    struct tensor *tensor = tensor_zeros(test, from->count, from->dtype);
    memcpy(tensor->data, from->data, from->count * dtype_bytes(from->dtype));
    memcpy(tensor->exact, from->exact, from->count * sizeof(double));
    return tensor;
}

/* The largest relative error in the norm that a tensor of the dtype may have after one op. */
static inline double tolerance(enum dtype dtype)
{
    return dtype == DTYPE_FLOAT32 ? 2e-6 : 4e-3;
}

/* |tensor - expected| <= bound * |expected|, in the Euclidean norm. */
static inline void assert_close(const char *what, const struct tensor *tensor, const double *expected, double bound)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < tensor->count; i++) {
        double d = tensor_get(tensor, i) - expected[i];
        difference += d * d;
        norm += expected[i] * expected[i];
    }
    if (!(difference <= bound * bound * norm))
        fail_msg("%s [%zu]: relative error %.3g, at most %.3g allowed", what, tensor->count, sqrt(difference / norm),
                 bound);
}

static inline void assert_same_bits(const char *what, const struct tensor *a, const struct tensor *b)
{
    if (memcmp(a->data, b->data, a->count * dtype_bytes(a->dtype)) != 0)
        fail_msg("%s: two runs of the same call differ", what);
}

static inline void assert_ok(bool ok, const struct error *error)
{
    if (!ok)
        fail_msg("%s", error->message);
}

/* analytic[i] against the central difference of `loss` in x[i], for each i: how the reference gradients are checked. */
static inline void assert_derivative(const char *what, double (*loss)(void *), void *argument, double *x, size_t count,
                                     const double *analytic)
{
    const double h = 1e-5;
    for (size_t i = 0; i < count; i++) {
        double before = x[i];
        x[i] = before + h;
        double above = loss(argument);
        x[i] = before - h;
        double below = loss(argument);
        x[i] = before;
        double numeric = (above - below) / (2 * h);
        if (!(fabs(numeric - analytic[i]) <= 1e-7 * (1 + fabs(numeric))))
            fail_msg("%s[%zu]: derivative %.10g, central difference %.10g", what, i, analytic[i], numeric);
    }
}

static const struct workload op_test_workload = {
    .batch = 8, .patches = 48, .patch_dim = 192, .dim = 320, .hidden = 1280, .heads = 4, .classes = 1000};

/* false where this CPU has no bfloat16; that open says so is tested in test_backend.c. */
static inline bool op_test_open(struct op_test *test, const struct kernels *k, enum dtype dtype, int threads)
{
    struct error error;
    struct context_options options = {.dtype = dtype, .threads = threads, .workload = op_test_workload};
    *test = (struct op_test){.k = k, .dtype = dtype, .random = 1234};
    if (k->open(&test->ctx, &options, &error))
        return true;
    assert_int_equal(error.status, ERROR_INPUT);
    assert_int_equal(dtype, DTYPE_BFLOAT16);
    print_message("bfloat16 not tested: %s\n", error.message);
    return false;
}

static inline void op_test_release_tensors(struct op_test *test)
{
    for (size_t i = 0; i < test->tensor_count; i++) {
        test->k->release(test->ctx, test->tensors[i].data);
        free(test->tensors[i].exact);
    }
    test->tensor_count = 0;
}

static inline void op_test_each(void (*trial)(struct op_test *), int trials)
{
    if (test_is_brief() && trials > 2)
        trials = 2;
    for (int dtype = DTYPE_FLOAT32; dtype <= DTYPE_BFLOAT16; dtype++)
        for (int threads = 1; threads <= 3; threads += 2) {
            struct op_test test;
            if (!op_test_open(&test, kernels_cpu(), (enum dtype)dtype, threads))
                continue;
            for (int i = 0; i < trials; i++) {
                trial(&test);
                op_test_release_tensors(&test);
            }
            test.k->close(test.ctx);
        }
}

#endif
