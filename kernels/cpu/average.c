/* The running average of the parameters: one pass, 12 bytes a number. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

/* As in adamw.c: the average does not follow a step that changed nothing. */
static bool is_withheld(const struct average_update *op)
{
    const double *earlier = op->earlier_sum_of_squares;
    double sum_of_squares = *op->gradient_sum_of_squares;
    return !isfinite(sum_of_squares) || (earlier && !isfinite(*earlier)) ||
           (op->sum_of_squares_limit > 0 && sum_of_squares > op->sum_of_squares_limit);
}

bool cpu_average_update(struct context *ctx, const struct average_update *op, struct error *error)
{
    (void)error;
    if (is_withheld(op))
        return true;
    float take = (float)(1.0 - op->decay);
#pragma omp parallel for schedule(static) num_threads(ctx->threads) if (ctx->threads > 1)
    for (size_t block = 0; block < op->count / 64; block++) {
        float *restrict average = op->average + block * 64;
        const float *restrict master = op->master + block * 64;
        if (op->decay == 0) {
            memcpy(average, master, 64 * sizeof *average);
            continue;
        }
#pragma omp simd
        for (int i = 0; i < 64; i++)
            average[i] = fmaf(take, master[i] - average[i], average[i]);
    }
    return true;
}
