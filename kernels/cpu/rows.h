/* What the ops over rows share: rows of T as rows of floats, and sums over rows that are the same bits for the same
 * number of threads.
 *
 * An op is written once, on floats. In float32 row_read and row_target give the row itself; in bfloat16 a thread's
 * buffer, which stays in the first-level cache, and row_write rounds it to where it belongs. (Loops over bfloat16 that
 * gcc vectorises spend more on rounding than this: 0.91 ms instead of 0.60 for the GELU of a vit_tiny block.) */
#ifndef QUEST_KERNELS_CPU_ROWS_H
#define QUEST_KERNELS_CPU_ROWS_H

#include "kernels/bfloat16.h"
#include "kernels/cpu/cpu.h"

enum { ROW_BUFFERS = 4 };

/* A thread's part of the workspace. */
struct row_scratch {
    float *sums;                 /* the thread's column sums, zeroed */
    float *buffers[ROW_BUFFERS]; /* a row each */
};

/* Whether rows of `columns` numbers fit; rows_scratch may be called then. */
bool rows_fit(const struct context *ctx, size_t columns, struct error *error);
struct row_scratch rows_scratch(const struct context *ctx, int thread, size_t columns);

/* sum[i] += the threads' sums of column first + i, in thread order, for i < count. */
void rows_add_sums(const struct context *ctx, float *sum, size_t first, size_t count);

void rows_widen(float *restrict out, const uint16_t *restrict in, size_t count);
void rows_round(uint16_t *restrict out, const float *restrict in, size_t count);

/* The `count` numbers from x + first on, as floats. */
static inline const float *row_read(const void *x, size_t first, float *buffer, size_t count, enum dtype dtype)
{
    if (dtype == DTYPE_FLOAT32)
        return (const float *)x + first;
    rows_widen(buffer, (const uint16_t *)x + first, count);
    return buffer;
}

/* Where to put the floats that row_write will write to x + first. */
static inline float *row_target(void *x, size_t first, float *buffer, enum dtype dtype)
{
    return dtype == DTYPE_FLOAT32 ? (float *)x + first : buffer;
}

static inline void row_write(void *x, size_t first, const float *target, size_t count, enum dtype dtype)
{
    if (dtype == DTYPE_BFLOAT16)
        rows_round((uint16_t *)x + first, target, count);
}

#endif
