/* Attention backward in bfloat16. Up to head_dim 64 one kernel makes dQ, dK and dV, and delta too where one block has
 * all keys of a head (up to 256 tokens). Else delta has a kernel of its own; above head_dim 64 dK and dV follow, then
 * dQ from the logits once more. No sum depends on the order in which blocks run, so the bits are always the same. */
#include "kernels/cuda/attention/backward_sm80.cuh"

/* sum + the two products of two bfloat16 each. */
static __device__ __forceinline__ float add_products(float sum, uint32_t a, uint32_t b)
{
    sum = fmaf(__uint_as_float(a << 16), __uint_as_float(b << 16), sum);
    return fmaf(__uint_as_float(a & 0xffff0000u), __uint_as_float(b & 0xffff0000u), sum);
}

constexpr int DELTA_THREADS = 128, DELTA_LANES = 4;

/* delta[query] = dO . O. Four lanes a query, 16 bytes a lane and step. Reads 4 head_dim bytes a query, writes 4; bound
 * by memory. Also starts the turns of the next kernel, `turn_count` of them, if there are any. */
template <int HEAD_DIM>
__global__ void __launch_bounds__(DELTA_THREADS)
    attention_backward_delta(float *delta, const bfloat16 *out, const bfloat16 *out_gradient, int tokens,
                             unsigned *turns, size_t turn_count)
{
    size_t block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    for (size_t i = block * DELTA_THREADS + threadIdx.x; i < turn_count;
         i += (size_t)gridDim.x * gridDim.y * gridDim.z * DELTA_THREADS)
        turns[i] = 0;
    int token = (blockIdx.x * DELTA_THREADS + threadIdx.x) / DELTA_LANES, lane = threadIdx.x % DELTA_LANES;
    int head = blockIdx.y, heads = gridDim.y, image = blockIdx.z;
    int row = (image * tokens + min(token, tokens - 1)) * heads + head;
    const uint4 *left = reinterpret_cast<const uint4 *>(out) + row * (HEAD_DIM / 8) + lane;
    const uint4 *right = reinterpret_cast<const uint4 *>(out_gradient) + row * (HEAD_DIM / 8) + lane;
    float sum = 0;
#pragma unroll
    for (int unit = 0; unit < HEAD_DIM / 8; unit += DELTA_LANES) {
        if (HEAD_DIM % 32 && unit + lane >= HEAD_DIM / 8)
            break;
        uint4 a = left[unit], b = right[unit];
        sum = add_products(sum, a.x, b.x);
        sum = add_products(sum, a.y, b.y);
        sum = add_products(sum, a.z, b.z);
        sum = add_products(sum, a.w, b.w);
    }
    sum = row_sum(sum);
    if (token < tokens && lane == 0)
        delta[(image * heads + head) * tokens + token] = sum;
}

template <int HEAD_DIM>
static bool launch_delta(struct context *ctx, const attention_derivatives<bfloat16> *derivatives,
                         const struct attention_shape *shape, struct error *error)
{
    dim3 grid(div_up(shape->tokens * DELTA_LANES, DELTA_THREADS), shape->heads, shape->batch);
    attention_backward_delta<HEAD_DIM><<<grid, DELTA_THREADS, 0, ctx->compute>>>(
        derivatives->delta, derivatives->out, derivatives->out_gradient, (int)shape->tokens, derivatives->turns,
        attention_backward_scratch_bf16(shape).turns);
    return cuda_launched(ctx, "attention_backward_delta", error);
}

struct attention_backward_scratch attention_backward_scratch_bf16(const struct attention_shape *shape)
{
    unsigned blocks = fused_blocks(shape->tokens);
    if (!backward_is_fused(shape->head_dim) || blocks == 1)
        return {0, 0};
    size_t sequences = shape->batch * shape->heads, rows = div_up(shape->tokens, 64) * 64;
    size_t width = div_up(shape->head_dim, 16) * 16;
    return {sequences * rows * width, 1 + sequences * blocks * fused_warps(shape->tokens)};
}

bool attention_backward_bf16(struct context *ctx, const attention_operands<bfloat16> *in,
                             const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                             struct error *error)
{
    bool fused = backward_is_fused(shape->head_dim);
    if (fused && fused_blocks(shape->tokens) == 1)
        return attention_backward_fused(ctx, in, derivatives, shape, error);
    auto take_delta = [&](auto head_dim) {
        return launch_delta<decltype(head_dim)::value>(ctx, derivatives, shape, error);
    };
    if (!with_head_dim(shape->head_dim, take_delta))
        return false;
    if (fused)
        return attention_backward_fused(ctx, in, derivatives, shape, error);
    return attention_backward_keys(ctx, in, derivatives, shape, error) &&
           attention_backward_queries(ctx, in, derivatives, shape, error);
}
