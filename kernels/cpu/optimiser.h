/* What the optimisers of the CPU backend share. */
#ifndef QUEST_KERNELS_CPU_OPTIMISER_H
#define QUEST_KERNELS_CPU_OPTIMISER_H

#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows.h"

/* As the CUDA kernels decide it: on the number in the device's memory, without asking the host. */
static inline bool optimiser_withholds(double sum_of_squares, double limit, const double *earlier_sum_of_squares)
{
    return !isfinite(sum_of_squares) || (earlier_sum_of_squares && !isfinite(*earlier_sum_of_squares)) ||
           (limit > 0 && sum_of_squares > limit);
}

/* torch's clip_grad_norm_. */
static inline float optimiser_clip(float clip_grad_norm, double sum_of_squares)
{
    double scale = clip_grad_norm > 0 ? (double)clip_grad_norm / (sqrt(sum_of_squares) + 1e-6) : 1.0;
    return (float)(scale < 1.0 ? scale : 1.0);
}

static inline void optimiser_round(void *restrict working, const float *restrict master, size_t count, enum dtype dtype)
{
    if (dtype == DTYPE_FLOAT32)
        memcpy(working, master, count * sizeof *master);
    else
        rows_round(working, master, count);
}

#endif
