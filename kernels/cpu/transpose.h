#ifndef QUEST_KERNELS_CPU_TRANSPOSE_H
#define QUEST_KERNELS_CPU_TRANSPOSE_H

#include "kernels/cpu/cpu.h"

/* Columns are best divided in multiples of this. */
enum { TRANSPOSE_COLUMNS = 32 };

/* Columns [begin, end) of `in` [rows, in_stride] as rows of `out` [in_stride, out_stride]: out[c][r] = in[r][c], both
 * of the dtype; and, where sums is not NULL, sums[c] += the sum of column c, float32. */
void transpose_and_sum(void *out, size_t out_stride, float *sums, const void *in, size_t in_stride, size_t rows,
                       size_t begin, size_t end, enum dtype dtype);

#endif
