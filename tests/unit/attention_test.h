/* What the tests of the CPU's and the GPU's attention share: random numbers, where a head's row lies, the reference's
 * run over all heads, and comparing with it. */
#ifndef QUEST_TESTS_ATTENTION_TEST_H
#define QUEST_TESTS_ATTENTION_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "tests/unit/attention_reference.h"

/* ---- random numbers: a fixed sequence ---- */

static uint64_t random_state = 1;

static inline double uniform(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) / 9007199254740992.0;
}

static inline double normal(void)
{
    return sqrt(-2 * log(1 - uniform())) * cos(6.283185307179586 * uniform());
}

/* ---- where the row of a token and head begins ---- */

static inline size_t qkv_index(const struct attention_shape *shape, size_t image, size_t token, int part, size_t head)
{
    return (((image * shape->tokens + token) * 3 + (size_t)part) * shape->heads + head) * shape->head_dim;
}

static inline size_t out_index(const struct attention_shape *shape, size_t image, size_t token, size_t head)
{
    return ((image * shape->tokens + token) * shape->heads + head) * shape->head_dim;
}

/* ---- comparing ---- */

/* |a - b|^2 and |b|^2, summed up number by number. */
struct distance {
    double difference, size;
};

static inline void compare(struct distance *distance, double value, double expected)
{
    distance->difference += (value - expected) * (value - expected);
    distance->size += expected * expected;
}

static inline void assert_near(const struct attention_shape *s, enum dtype dtype, const char *what,
                               struct distance distance, double tolerance)
{
    if (!(sqrt(distance.difference) <= tolerance * sqrt(distance.size) + 1e-12))
        fail_msg("%s, batch %zu, tokens %zu, heads %zu, head_dim %zu, %s: %s is off by %g relative, %g allowed",
                 attention_kind_names[s->kind], s->batch, s->tokens, s->heads, s->head_dim,
                 dtype == DTYPE_FLOAT32 ? "float32" : "bfloat16", what, sqrt(distance.difference / distance.size),
                 tolerance);
}

/* ---- the reference, over heads[batch][heads] ---- */

static inline void run_reference(struct reference_head *heads, const struct reference_extras *extras,
                                 struct reference_extras *extra_gradients, const struct attention_shape *shape)
{
    for (size_t i = 0; i < shape->batch * shape->heads; i++) {
        reference_forward(&heads[i], extras, shape, i % shape->heads);
        reference_backward(&heads[i], extra_gradients, extras, shape, i % shape->heads);
    }
}

static inline void expect_norm(double *record, int first, const double *row, size_t d)
{
    double squares = 0;
    for (size_t i = 0; i < d; i++)
        squares += row[i] * row[i];
    double norm = sqrt(squares);
    record[first] += norm;
    record[first + 1] += squares;
    record[first + 2] = fmin(record[first + 2], norm);
    record[first + 3] = fmax(record[first + 3], norm);
}

/* What head h's record of statistics should be. */
static inline void expect_statistics(double expected[ATTENTION_STATISTICS], const struct reference_head *heads,
                                     const struct attention_shape *s, size_t h)
{
    memset(expected, 0, ATTENTION_STATISTICS * sizeof *expected);
    expected[STATISTIC_Q_MIN] = expected[STATISTIC_K_MIN] = expected[STATISTIC_ENTROPY_MIN] = INFINITY;
    expected[STATISTIC_LOGIT_MAX] = -INFINITY;
    for (size_t image = 0; image < s->batch; image++) {
        const struct reference_head *head = &heads[image * s->heads + h];
        for (size_t t = 0; t < s->tokens; t++) {
            expect_norm(expected, STATISTIC_Q_SUM, head->x[0] + t * s->head_dim, s->head_dim);
            expect_norm(expected, STATISTIC_K_SUM, head->x[1] + t * s->head_dim, s->head_dim);
            expected[STATISTIC_ENTROPY_SUM] += head->entropy[t];
            expected[STATISTIC_ENTROPY_MIN] = fmin(expected[STATISTIC_ENTROPY_MIN], head->entropy[t]);
            for (size_t j = 0; j < s->tokens; j++)
                expected[STATISTIC_LOGIT_MAX] = fmax(expected[STATISTIC_LOGIT_MAX], head->logits[t * s->tokens + j]);
        }
    }
}

/* statistics [heads][ATTENTION_STATISTICS] */
static inline void assert_statistics(const double *statistics, const struct reference_head *heads,
                                     const struct attention_shape *s, double tolerance)
{
    for (size_t h = 0; h < s->heads; h++) {
        double expected[ATTENTION_STATISTICS];
        expect_statistics(expected, heads, s, h);
        for (int i = 0; i < ATTENTION_STATISTICS; i++) {
            double value = statistics[h * ATTENTION_STATISTICS + (size_t)i];
            if (!(fabs(value - expected[i]) <= tolerance * fmax(1, fabs(expected[i]))))
                fail_msg("%s, tokens %zu, head_dim %zu, head %zu: statistic %d is %.9g instead of %.9g",
                         attention_kind_names[s->kind], s->tokens, s->head_dim, h, i, value, expected[i]);
        }
    }
}

#endif
