/* Residual add, LayerScale, stochastic depth and LayerNorm in one pass, forward (kernels.h); rows of at most 1280
 * numbers whose length is a multiple of 16 bytes; other sizes take the strided kernel below.
 *
 * One warp a row. A lane holds the packs lane, lane + 32, ... of the row in registers, so each activation is read once
 * and the variance is the exact two-pass one; the loads of the next row are in flight meanwhile. A warp takes eight
 * neighbouring rows at a time and writes their means together, as one 32-byte sector. weight, bias and gamma are read
 * once a block, into shared memory; a block stays for at least 64 rows, so they cost at most 12 * dim / 64 bytes a row.
 * Traffic: 4 sizeof(T) bytes a number with a branch, 2 sizeof(T) without, and 8 bytes a row. Limit on an A100: 2.0
 * TB/s. */
#include "kernels/cuda/layernorm.cuh"

/* Blocks a multiprocessor, as many as registers allow. */
template <typename T> constexpr int forward_residency(int eighths)
{
    return eighths == 1 ? 4 : eighths == 2 && sizeof(T) == 2 ? 3 : eighths <= (sizeof(T) == 2 ? 4 : 3) ? 2 : 1;
}

/* A row as it comes from memory; lanes past its end hold nothing. */
template <typename T, int VEC, int PACKS> struct forward_row {
    closed_pack<T, VEC> residual[PACKS], branch[PACKS];
    float path_scale;

    __device__ __forceinline__ void load(const layernorm_forward_tensors<T> &t, size_t row, int packs)
    {
        int lane = threadIdx.x % 32;
        size_t start = row * packs;
        path_scale = t.path_scale ? t.path_scale[row / t.tokens] : 1.0f;
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            if (p * 32 + lane < packs) {
                residual[p] = load_closed<VEC>(t.residual_in, start + p * 32 + lane);
                if (t.branch)
                    branch[p] = load_closed<VEC>(t.branch, start + p * 32 + lane);
            }
        }
    }
};

/* x = residual_in + path_scale * gamma * branch, rounded to T as it is stored (the backward pass sees the stored one);
 * lanes past the end of the row hold zeros. */
template <typename T, int VEC, int PACKS>
__device__ __forceinline__ void add_branch(float (&x)[PACKS][VEC], const layernorm_forward_tensors<T> &t,
                                           const forward_row<T, VEC, PACKS> &from, const float *gamma, size_t start,
                                           int packs)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        int index = p * 32 + lane;
        bool inside = index < packs;
        pack<T, VEC> sum = open_pack<T, VEC>(from.residual[p]);
        if (inside && t.branch) {
            pack<float, VEC> scale = load_floats<VEC>(gamma, index);
            pack<T, VEC> branch = open_pack<T, VEC>(from.branch[p]);
#pragma unroll
            for (int i = 0; i < VEC; i++)
                sum.value[i] = from_float<T>(to_float(sum.value[i]) +
                                             from.path_scale * scale.value[i] * to_float(branch.value[i]));
            store_pack<VEC>(t.residual_out, start + index, sum);
        }
#pragma unroll
        for (int i = 0; i < VEC; i++)
            x[p][i] = inside ? to_float(sum.value[i]) : 0.0f;
    }
}

template <typename T, int VEC, int PACKS>
__device__ __forceinline__ void store_normed(const layernorm_forward_tensors<T> &t, const float (&x)[PACKS][VEC],
                                             float mean, float rstd, const float *weight, const float *bias,
                                             size_t start, int packs)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        int index = p * 32 + lane;
        if (index >= packs)
            break;
        pack<float, VEC> w = load_floats<VEC>(weight, index), b = load_floats<VEC>(bias, index);
        pack<T, VEC> out;
#pragma unroll
        for (int i = 0; i < VEC; i++)
            out.value[i] = from_float<T>((x[p][i] - mean) * rstd * w.value[i] + b.value[i]);
        store_pack<VEC>(t.normed, start + index, out);
    }
}

template <typename T, int VEC, int PACKS, int EIGHTHS>
__global__ void __launch_bounds__(LAYERNORM_THREADS, forward_residency<T>(EIGHTHS))
    residual_layernorm_forward_kernel(layernorm_forward_tensors<T> t)
{
    extern __shared__ float shared[];
    float *weight = shared, *bias = shared + t.dim, *gamma = shared + 2 * t.dim;
    int lane = threadIdx.x % 32, packs = t.dim / VEC;
    size_t row = (blockIdx.x * (size_t)LAYERNORM_WARPS + threadIdx.x / 32) * ROWS_PER_TURN;
    forward_row<T, VEC, PACKS> ahead;
    if (row < t.rows)
        ahead.load(t, row, packs);
    for (size_t i = threadIdx.x; i < t.dim; i += blockDim.x) {
        weight[i] = t.weight[i];
        bias[i] = t.bias[i];
        gamma[i] = t.gamma ? t.gamma[i] : 1.0f;
    }
    __syncthreads();
    float kept_mean = 0, kept_rstd = 0;
    for (size_t next; row < t.rows; row = next) {
        next = layernorm_next_row(row);
        forward_row<T, VEC, PACKS> now = ahead;
        if (next < t.rows)
            ahead.load(t, next, packs);
        size_t start = row * packs;
        float x[PACKS][VEC], mean, rstd;
        add_branch<T, VEC, PACKS>(x, t, now, gamma, start, packs);
        row_moments<VEC, PACKS>(x, packs, t.dim, &mean, &rstd);
        int of_turn = row % ROWS_PER_TURN;
        if (lane == of_turn) {
            kept_mean = mean;
            kept_rstd = rstd;
        }
        store_normed<T, VEC, PACKS>(t, x, mean, rstd, weight, bias, start, packs);
        if ((of_turn == ROWS_PER_TURN - 1 || row + 1 == t.rows) && lane <= of_turn) {
            t.mean[row - of_turn + lane] = kept_mean;
            t.rstd[row - of_turn + lane] = kept_rstd;
        }
    }
}

/* rows * dim numbers; PACKS such that a row of up to 256 * EIGHTHS numbers fits in a warp's registers. */
template <typename T, int EIGHTHS>
static bool forward_in_registers(struct context *ctx, const layernorm_forward_tensors<T> &t, struct error *error)
{
    constexpr int vec = wide<T>, packs = 8 * EIGHTHS / vec;
    unsigned blocks = layernorm_blocks(ctx, t.rows, forward_residency<T>(EIGHTHS));
    residual_layernorm_forward_kernel<T, vec, packs, EIGHTHS>
        <<<blocks, LAYERNORM_THREADS, 3 * t.dim * sizeof(float), ctx->compute>>>(t);
    return cuda_launched(ctx, "residual_layernorm_forward", error);
}

/* Rows of any length: a warp a row, each number read again (from the caches) for the mean, the variance and the result.
 */
template <typename T> __global__ void residual_layernorm_forward_strided_kernel(layernorm_forward_tensors<T> t)
{
    int lane = threadIdx.x % 32;
    size_t row = blockIdx.x * (size_t)LAYERNORM_WARPS + threadIdx.x / 32;
    if (row >= t.rows)
        return;
    size_t start = row * t.dim;
    float path_scale = t.path_scale ? t.path_scale[row / t.tokens] : 1.0f;
    const T *x = t.residual_in + start;
    float sum = 0;
    if (t.branch) {
        for (size_t i = lane; i < t.dim; i += 32) {
            float scale = t.gamma ? path_scale * t.gamma[i] : path_scale;
            t.residual_out[start + i] = from_float<T>(to_float(x[i]) + scale * to_float(t.branch[start + i]));
        }
        x = t.residual_out + start; /* each lane reads back what it wrote */
    }
    for (size_t i = lane; i < t.dim; i += 32)
        sum += to_float(x[i]);
    float mean = warp_sum(sum) / t.dim, squares = 0;
    for (size_t i = lane; i < t.dim; i += 32)
        squares += (to_float(x[i]) - mean) * (to_float(x[i]) - mean);
    float rstd = rsqrtf(warp_sum(squares) / t.dim + LAYERNORM_EPSILON);
    for (size_t i = lane; i < t.dim; i += 32)
        t.normed[start + i] = from_float<T>((to_float(x[i]) - mean) * rstd * t.weight[i] + t.bias[i]);
    if (lane == 0) {
        t.mean[row] = mean;
        t.rstd[row] = rstd;
    }
}

template <typename T>
static bool forward(struct context *ctx, const layernorm_forward_tensors<T> &t, struct error *error)
{
    switch (layernorm_eighths<T>(t.dim)) {
    case 1:
        return forward_in_registers<T, 1>(ctx, t, error);
    case 2:
        return forward_in_registers<T, 2>(ctx, t, error);
    case 3:
        return forward_in_registers<T, 3>(ctx, t, error);
    case 4:
        return forward_in_registers<T, 4>(ctx, t, error);
    case 5:
        return forward_in_registers<T, 5>(ctx, t, error);
    }
    unsigned blocks = div_up(t.rows, LAYERNORM_WARPS);
    residual_layernorm_forward_strided_kernel<T><<<blocks, LAYERNORM_THREADS, 0, ctx->compute>>>(t);
    return cuda_launched(ctx, "residual_layernorm_forward_strided", error);
}

bool cuda_residual_layernorm_forward(struct context *ctx, const struct residual_layernorm_forward *op,
                                     struct error *error)
{
    return with_type(ctx->dtype, [&](auto type) {
        typedef decltype(type) T;
        layernorm_forward_tensors<T> t = {(T *)op->residual_out,
                                          (T *)op->normed,
                                          op->mean,
                                          op->rstd,
                                          (const T *)op->residual_in,
                                          (const T *)op->branch,
                                          op->gamma,
                                          op->path_scale,
                                          op->weight,
                                          op->bias,
                                          op->rows,
                                          op->tokens,
                                          op->dim};
        return forward<T>(ctx, t, error);
    });
}
