#ifndef QUEST_KERNELS_CPU_TRANSPOSE_H
#define QUEST_KERNELS_CPU_TRANSPOSE_H

#include "kernels/cpu/cpu.h"

/* Columns are best divided in multiples of this. */
enum { TRANSPOSE_COLUMNS = 32 };

/* `in` [rows, in_stride] and `out` [in_stride, out_stride], both of the dtype; sums float32 [in_stride] or NULL. */
struct transposition {
    void *out;
    size_t out_stride;
    float *sums;
    const void *in;
    size_t in_stride;
};

/* Columns [begin, end) of `in` as rows of `out`: out[c][r] = in[r][c]; and sums[c] += the sum of column c. */
void transpose_and_sum(struct transposition of, size_t rows, size_t begin, size_t end, enum dtype dtype);

#endif
