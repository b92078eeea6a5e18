/* Gradients rounded to bfloat16 before they go to the other ranks and widened when they are back (comm.dtype: bf16). A
 * thread a pack of four; 6 bytes a number each way. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/vector.cuh"

template <typename TO, typename FROM> __global__ void convert_kernel(TO *to, const FROM *from, size_t count)
{
    size_t p = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
    if ((p + 1) * 4 <= count) {
        pack<FROM, 4> value = load_pack<4>(from, p);
        pack<TO, 4> converted;
#pragma unroll
        for (int i = 0; i < 4; i++)
            converted.value[i] = from_float<TO>(to_float(value.value[i]));
        store_pack<4>(to, p, converted);
    } else {
        for (size_t i = p * 4; i < count; i++)
            to[i] = from_float<TO>(to_float(from[i]));
    }
}

bool cuda_wire_pack(struct context *ctx, void *wire, const float *gradient, size_t count, struct error *error)
{
    convert_kernel<<<div_up(count, 4 * 256), 256, 0, ctx->communication>>>((bfloat16 *)wire, gradient, count);
    return cuda_launched(ctx, "wire_pack", error);
}

bool cuda_wire_unpack(struct context *ctx, float *gradient, const void *wire, size_t count, struct error *error)
{
    convert_kernel<<<div_up(count, 4 * 256), 256, 0, ctx->communication>>>(gradient, (const bfloat16 *)wire, count);
    return cuda_launched(ctx, "wire_unpack", error);
}
