/* Sums over rows, the same bits for the same number of threads. What the gradients of biases and LayerNorm need. */
#ifndef QUEST_KERNELS_CPU_COLUMNS_H
#define QUEST_KERNELS_CPU_COLUMNS_H

#include "kernels/cpu/cpu.h"

/* A thread's own sums, `columns` floats of the workspace, set to zero. */
float *column_partial(struct context *ctx, int thread, size_t columns);

/* sum[i] += the threads' sums of column first + i, for i < count. */
void column_add(struct context *ctx, float *sum, size_t first, size_t count, size_t columns);

/* sum [columns] float32 += the column sums of x [rows, columns] (the context's dtype). */
void column_sums(struct context *ctx, float *sum, const void *x, size_t rows, size_t columns);

#endif
