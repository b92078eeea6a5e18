/* What the CUDA tests share: every tensor exists on three sides, and every op runs on each.
 *   side 0  the CPU backend in float32, the reference
 *   side 1  the CUDA backend in the tested dtype; its inputs are the same numbers, rounded to the dtype before
 *   side 2  the CUDA backend again, in other memory: must give the same bits as side 1 */
#ifndef QUEST_TESTS_CUDA_TWINS_H
#define QUEST_TESTS_CUDA_TWINS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/kernels.h"

enum { SIDES = 3, MOST_TWINS = 32 };

struct twin {
    void *data[SIDES];
    size_t count;
    enum dtype dtype; /* on the CUDA sides; the CPU's is always float32 */
    size_t raw_bytes; /* not 0: bytes that are no floats, the same on all sides */
};

struct side {
    const struct kernels *k;
    struct context *ctx;
};

struct twins {
    struct side sides[SIDES];
    enum dtype dtype;
    uint64_t random;
    struct twin twins[MOST_TWINS];
    size_t count;
};

uint64_t random_word(struct twins *t);
size_t random_between(struct twins *t, size_t low, size_t high);
double random_number(struct twins *t); /* uniform in -1 ... 1 */

/* Released after the trial. `count` random numbers of -scale ... scale, or the given bytes. */
struct twin *twin_random(struct twins *t, size_t count, enum dtype dtype, double scale);
struct twin *twin_raw(struct twins *t, const void *bytes, size_t count);

/* Both CUDA sides have the same bits, and differ from the CPU's by at most bound * (|x| + rms(x)) in each number. */
void assert_twins_agree(struct twins *t, const char *what, const struct twin *twin, double bound);
/* On each side the two hold the same bits. */
void assert_twins_same_bits(struct twins *t, const char *what, const struct twin *a, const struct twin *b);
void assert_ok(bool ok, const struct error *error);
/* 1e-5 for float32, 2e-2 for bfloat16. */
double twins_bound(const struct twins *t);

void twins_release(struct twins *t);
/* Runs a trial `trials` times in float32 and in bfloat16, each with other random numbers. */
void twins_each(void (*trial)(struct twins *t), int trials);

/* One CUDA call and the same on the other sides: TWINS_RUN(t, gelu_forward, SIDE(out), SIDE(in), SIDE(bias), rows,
 * dim); TWINS_RUN_OP(t, gelu_backward, .in_gradient = SIDE(in_gradient), ...) where the op takes a struct. */
#define SIDE(twin) ((twin) ? (twin)->data[side] : NULL)
#define TWINS_RUN(t, op, ...)                                                                   \
    for (int side = 0; side < SIDES; side++) {                                                  \
        struct error error_;                                                                    \
        assert_ok((t)->sides[side].k->op((t)->sides[side].ctx, __VA_ARGS__, &error_), &error_); \
    }
#define TWINS_RUN_OP(t, op, ...) TWINS_RUN(t, op, &((struct op){__VA_ARGS__}))

#endif
