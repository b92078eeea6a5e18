/* The running average of the parameters (kernels.h). */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/vector.cuh"

enum { AVERAGE_THREADS = 256, AVERAGE_BLOCKS_A_MULTIPROCESSOR = 8 };

/* A thread takes four numbers at a time with a stride of the whole grid; nothing is changed where the optimiser's step
 * changed nothing. Traffic: 12 bytes a number. Limit on an A100: 2.0 TB/s. */
__global__ void __launch_bounds__(AVERAGE_THREADS)
    average_kernel(float *average, const float *master, const double *sum_of_squares, const double *earlier,
                   double limit, float take, bool copy, size_t packs)
{
    if (!isfinite(*sum_of_squares) || *sum_of_squares > limit || (earlier && !isfinite(*earlier)))
        return;
    for (size_t p = blockIdx.x * (size_t)AVERAGE_THREADS + threadIdx.x; p < packs;
         p += gridDim.x * (size_t)AVERAGE_THREADS) {
        pack<float, 4> w = load_pack<4>(master, p);
        if (!copy) {
            pack<float, 4> old = load_pack<4>(average, p);
#pragma unroll
            for (int i = 0; i < 4; i++)
                w.value[i] = fmaf(take, w.value[i] - old.value[i], old.value[i]);
        }
        store_pack<4>(average, p, w);
    }
}

bool cuda_average_update(struct context *ctx, const struct average_update *op, struct error *error)
{
    size_t packs = op->count / 4;
    double limit = op->sum_of_squares_limit > 0 ? op->sum_of_squares_limit : (double)INFINITY;
    if (packs == 0)
        return true;
    unsigned blocks = (unsigned)minimum(div_up(packs, AVERAGE_THREADS),
                                        AVERAGE_BLOCKS_A_MULTIPROCESSOR * (size_t)ctx->properties.multiprocessors);
    average_kernel<<<blocks, AVERAGE_THREADS, 0, ctx->compute>>>(op->average, op->master, op->gradient_sum_of_squares,
                                                                 op->earlier_sum_of_squares, limit,
                                                                 (float)(1.0 - op->decay), op->decay == 0, packs);
    return cuda_launched(ctx, "average", error);
}
