/* The backward pass of residual add, LayerScale, stochastic depth and LayerNorm (kernels.h). With g = normed_gradient *
 * weight and xhat = (residual_out - mean) * rstd:
 *   residual_gradient += rstd * (g - mean(g) - xhat * mean(g * xhat)),  branch_gradient = path_scale * gamma * that
 *
 * Rows in registers, as in layernorm.cu: one warp a row, eight neighbouring rows a turn, all loads of a row at once
 * and, where registers allow, those of the next row in flight meanwhile. A lane also keeps the sums
 * over rows of its columns, for the gradients of weight, bias and gamma; at the end the block's warps are added in
 * order and one line of partial sums a block is written, which column_sum_finish adds up. Traffic: 4 sizeof(T) bytes a
 * number (5 with a branch gradient, 6 with gamma's), 8 bytes a row, and a block, which stays for at least 64 rows, 8 or
 * 12 bytes a column. Limit on an A100: 2.0 TB/s. */
#include "kernels/cuda/column_sum.cuh"
#include "kernels/cuda/layernorm.cuh"

/* sum[p][i] of all warps, in order of the warps, to line[column]; `shared` holds dim numbers. */
template <int VEC, int PACKS>
__device__ __forceinline__ void store_row_sums(float *line, float *shared, const float (&sum)[PACKS][VEC], int packs)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int turn = 0; turn < LAYERNORM_WARPS; turn++) {
        __syncthreads();
        if (warp != turn)
            continue;
#pragma unroll
        for (int p = 0; p < PACKS; p++)
            if (p * 32 + lane < packs)
#pragma unroll
                for (int i = 0; i < VEC; i++) {
                    int at = i * packs + p * 32 + lane; /* lane fastest: no bank conflicts */
                    shared[at] = turn == 0 ? sum[p][i] : shared[at] + sum[p][i];
                }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < packs * VEC; i += LAYERNORM_THREADS)
        line[i] = shared[i % VEC * packs + i / VEC];
}

/* Blocks a multiprocessor, as many as registers allow. */
template <typename T> constexpr int backward_residency(int eighths, bool gamma)
{
    return eighths == 1 || (sizeof(T) == 2 && !gamma && eighths == 2) ? 2 : 1;
}

/* Of a row: its moments, and the means of g and of g * xhat. */
struct row_means {
    float mean, rstd, g, g_xhat;
};

/* What the forward kernel wrote there: the same operations on the same numbers. */
template <int VEC, typename T>
__device__ __forceinline__ void store_normed(T *normed, size_t index, const pack<T, VEC> &x, float mean, float rstd,
                                             const pack<float, VEC> &weight, const pack<float, VEC> &bias)
{
    pack<T, VEC> out;
#pragma unroll
    for (int i = 0; i < VEC; i++)
        out.value[i] = from_float<T>((to_float(x.value[i]) - mean) * rstd * weight.value[i] + bias.value[i]);
    store_pack<VEC>(normed, index, out);
}

/* A row as it comes from memory; lanes past its end hold nothing. */
template <typename T, int VEC, int PACKS, bool GAMMA> struct backward_row {
    static constexpr bool AT_ONCE = ((GAMMA ? 4 : 3) * 4 + (GAMMA ? 3 : 2) * VEC) * PACKS <= 150; /* registers */
    closed_pack<T, VEC> x[PACKS], gradient[PACKS], total[PACKS], branch[GAMMA ? PACKS : 1];
    float path_scale;

    __device__ __forceinline__ void load(const layernorm_backward_tensors<T> &t, size_t row, int packs)
    {
        int lane = threadIdx.x % 32;
        size_t start = row * packs;
        path_scale = t.path_scale ? t.path_scale[row / t.tokens] : 1.0f;
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            if (p * 32 + lane < packs) {
                x[p] = load_closed<VEC>(t.residual_out, start + p * 32 + lane);
                gradient[p] = load_closed<VEC>(t.normed_gradient, start + p * 32 + lane);
                if (AT_ONCE)
                    load_rest(t, start + p * 32 + lane, p);
            }
        }
    }
    __device__ __forceinline__ void load_rest(const layernorm_backward_tensors<T> &t, size_t index, int p)
    {
        total[p] = load_closed<VEC>(t.residual_gradient, index);
        if (GAMMA)
            branch[p] = load_closed<VEC>(t.branch, index);
    }

    /* Adds LayerNorm's part to the residual's gradient and writes it, and the branch's. */
    __device__ __forceinline__ void store_gradients(const layernorm_backward_tensors<T> &t, const row_means &of,
                                                    const float *weight, const float *gamma,
                                                    float (&gamma_sum)[GAMMA ? PACKS : 1][VEC], size_t start, int packs)
    {
        int lane = threadIdx.x % 32;
        const float *bias = weight + 2 * t.dim; /* in shared memory weight, gamma and bias lie side by side */
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            int index = p * 32 + lane;
            if (index >= packs)
                break;
            pack<float, VEC> w = load_floats<VEC>(weight, index);
            pack<T, VEC> in = open_pack<T, VEC>(x[p]);
            if (t.normed)
                store_normed<VEC>(t.normed, start + index, in, of.mean, of.rstd, w, load_floats<VEC>(bias, index));
            if (!AT_ONCE)
                load_rest(t, start + index, p);
            pack<float, VEC> scale = load_floats<VEC>(gamma, index);
            pack<T, VEC> dy = open_pack<T, VEC>(gradient[p]), sum = open_pack<T, VEC>(total[p]), to_branch;
#pragma unroll
            for (int i = 0; i < VEC; i++) {
                float xhat = (to_float(in.value[i]) - of.mean) * of.rstd;
                float change = of.rstd * (to_float(dy.value[i]) * w.value[i] - of.g - xhat * of.g_xhat);
                float whole = to_float(sum.value[i]) + change;
                sum.value[i] = from_float<T>(whole);
                if (GAMMA)
                    gamma_sum[p][i] += path_scale * to_float(open_pack<T, VEC>(branch[p]).value[i]) * whole;
                to_branch.value[i] = from_float<T>(path_scale * scale.value[i] * whole);
            }
            store_pack<VEC>(t.residual_gradient, start + index, sum);
            if (t.branch_gradient)
                store_pack<VEC>(t.branch_gradient, start + index, to_branch);
        }
    }
};

template <typename T, int VEC, int PACKS, int EIGHTHS, bool GAMMA>
__global__ void __launch_bounds__(LAYERNORM_THREADS, backward_residency<T>(EIGHTHS, GAMMA))
    residual_layernorm_backward_kernel(layernorm_backward_tensors<T> t)
{
    constexpr bool look_ahead = EIGHTHS <= (GAMMA ? 2 : 3);
    extern __shared__ float shared[];
    float *weight = shared, *gamma = shared + t.dim, *scratch = shared + 2 * t.dim;
    int lane = threadIdx.x % 32, packs = t.dim / VEC;
    float weight_sum[PACKS][VEC] = {}, bias_sum[PACKS][VEC] = {}, gamma_sum[GAMMA ? PACKS : 1][VEC] = {};
    size_t row = (blockIdx.x * (size_t)LAYERNORM_WARPS + threadIdx.x / 32) * ROWS_PER_TURN;
    backward_row<T, VEC, PACKS, GAMMA> ahead;
    if (look_ahead && row < t.rows)
        ahead.load(t, row, packs);
    for (size_t i = threadIdx.x; i < t.dim; i += blockDim.x) {
        weight[i] = t.weight[i];
        gamma[i] = t.gamma ? t.gamma[i] : 1.0f;
        scratch[i] = t.normed ? t.bias[i] : 0.0f; /* until the row sums need it */
    }
    __syncthreads();

    float means = 0, rstds = 0;
    for (size_t next; row < t.rows; row = next) {
        next = layernorm_next_row(row);
        int of_turn = row % ROWS_PER_TURN;
        if (of_turn == 0 && row + lane < t.rows && lane < ROWS_PER_TURN) {
            means = t.mean[row + lane];
            rstds = t.rstd[row + lane];
        }
        backward_row<T, VEC, PACKS, GAMMA> now;
        if (look_ahead)
            now = ahead;
        else
            now.load(t, row, packs);
        if (look_ahead && next < t.rows)
            ahead.load(t, next, packs);
        float mean = __shfl_sync(0xffffffffu, means, of_turn), rstd = __shfl_sync(0xffffffffu, rstds, of_turn);
        float sum = 0, product = 0;
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            if (p * 32 + lane >= packs)
                break;
            pack<float, VEC> w = load_floats<VEC>(weight, p * 32 + lane);
            pack<T, VEC> x = open_pack<T, VEC>(now.x[p]), gradient = open_pack<T, VEC>(now.gradient[p]);
#pragma unroll
            for (int i = 0; i < VEC; i++) {
                float xhat = (to_float(x.value[i]) - mean) * rstd, dy = to_float(gradient.value[i]);
                sum += dy * w.value[i];
                product += dy * w.value[i] * xhat;
                weight_sum[p][i] += dy * xhat;
                bias_sum[p][i] += dy;
            }
        }
        row_means of = {mean, rstd, warp_sum(sum) / t.dim, warp_sum(product) / t.dim};
        now.store_gradients(t, of, weight, gamma, gamma_sum, row * packs, packs);
    }
    float *line = t.partial + blockIdx.x * (size_t)(GAMMA ? 3 : 2) * t.dim;
    store_row_sums<VEC, PACKS>(line, scratch, weight_sum, packs);
    store_row_sums<VEC, PACKS>(line + t.dim, scratch, bias_sum, packs);
    if (GAMMA)
        store_row_sums(line + 2 * t.dim, scratch, gamma_sum, packs);
}

template <typename T, int EIGHTHS>
static bool backward_in_registers(struct context *ctx, const layernorm_backward_tensors<T> &t, unsigned blocks,
                                  struct error *error)
{
    constexpr int vec = wide<T>, packs = 8 * EIGHTHS / vec;
    size_t shared_bytes = 3 * t.dim * sizeof(float);
    if (t.gamma_wanted)
        residual_layernorm_backward_kernel<T, vec, packs, EIGHTHS, true>
            <<<blocks, LAYERNORM_THREADS, shared_bytes, ctx->compute>>>(t);
    else
        residual_layernorm_backward_kernel<T, vec, packs, EIGHTHS, false>
            <<<blocks, LAYERNORM_THREADS, shared_bytes, ctx->compute>>>(t);
    return cuda_launched(ctx, "residual_layernorm_backward", error);
}

/* Rows of any length: a warp a row, which is read twice. */
template <typename T> __global__ void residual_layernorm_backward_strided_kernel(layernorm_backward_tensors<T> t)
{
    int lane = threadIdx.x % 32;
    size_t row = blockIdx.x * (size_t)LAYERNORM_WARPS + threadIdx.x / 32;
    if (row >= t.rows)
        return;
    size_t start = row * t.dim;
    float mean = t.mean[row], rstd = t.rstd[row], path_scale = t.path_scale ? t.path_scale[row / t.tokens] : 1.0f;
    float sum = 0, product = 0;
    for (size_t i = lane; i < t.dim; i += 32) {
        float g = to_float(t.normed_gradient[start + i]) * t.weight[i];
        sum += g;
        product += g * (to_float(t.residual_out[start + i]) - mean) * rstd;
    }
    sum = warp_sum(sum) / t.dim;
    product = warp_sum(product) / t.dim;
    for (size_t i = lane; i < t.dim; i += 32) {
        float g = to_float(t.normed_gradient[start + i]) * t.weight[i];
        float xhat = (to_float(t.residual_out[start + i]) - mean) * rstd;
        float whole = to_float(t.residual_gradient[start + i]) + rstd * (g - sum - xhat * product);
        t.residual_gradient[start + i] = from_float<T>(whole);
        if (t.normed)
            t.normed[start + i] = from_float<T>(xhat * t.weight[i] + t.bias[i]);
        if (t.branch_gradient)
            t.branch_gradient[start + i] = from_float<T>(path_scale * (t.gamma ? t.gamma[i] : 1.0f) * whole);
    }
}

/* The column sums that go with it: a thread a column and chunk of 64 rows. grid (dim / 256, lines). */
template <typename T>
__global__ void layernorm_column_sums_kernel(layernorm_backward_tensors<T> t, size_t rows_per_chunk)
{
    size_t column = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
    if (column >= t.dim)
        return;
    size_t end = min(t.rows, (blockIdx.y + 1) * rows_per_chunk);
    float weight_sum = 0, bias_sum = 0, gamma_sum = 0;
    for (size_t row = blockIdx.y * rows_per_chunk; row < end; row++) {
        size_t at = row * t.dim + column;
        float dy = to_float(t.normed_gradient[at]);
        weight_sum += dy * (to_float(t.residual_out[at]) - t.mean[row]) * t.rstd[row];
        bias_sum += dy;
        if (t.gamma_wanted)
            gamma_sum += (t.path_scale ? t.path_scale[row / t.tokens] : 1.0f) * to_float(t.branch[at]) *
                         to_float(t.residual_gradient[at]);
    }
    float *line = t.partial + blockIdx.y * (size_t)(t.gamma_wanted ? 3 : 2) * t.dim;
    line[column] = weight_sum;
    line[t.dim + column] = bias_sum;
    if (t.gamma_wanted)
        line[2 * t.dim + column] = gamma_sum;
}

template <typename T>
static bool backward_strided(struct context *ctx, const layernorm_backward_tensors<T> &t, unsigned lines,
                             struct error *error)
{
    residual_layernorm_backward_strided_kernel<T>
        <<<div_up(t.rows, LAYERNORM_WARPS), LAYERNORM_THREADS, 0, ctx->compute>>>(t);
    if (!cuda_launched(ctx, "residual_layernorm_backward_strided", error))
        return false;
    dim3 grid(div_up(t.dim, 256), lines);
    layernorm_column_sums_kernel<T><<<grid, 256, 0, ctx->compute>>>(t, div_up(t.rows, lines));
    return cuda_launched(ctx, "layernorm_column_sums", error);
}

template <typename T>
static bool backward(struct context *ctx, const layernorm_backward_tensors<T> &t, unsigned lines, struct error *error)
{
    switch (layernorm_eighths<T>(t.dim)) {
    case 1:
        return backward_in_registers<T, 1>(ctx, t, lines, error);
    case 2:
        return backward_in_registers<T, 2>(ctx, t, lines, error);
    case 3:
        return backward_in_registers<T, 3>(ctx, t, lines, error);
    case 4:
        return backward_in_registers<T, 4>(ctx, t, lines, error);
    case 5:
        return backward_in_registers<T, 5>(ctx, t, lines, error);
    default:
        return backward_strided<T>(ctx, t, lines, error);
    }
}

bool cuda_residual_layernorm_backward(struct context *ctx, const struct residual_layernorm_backward *op,
                                      struct error *error)
{
    size_t dim = op->dim;
    bool gamma_wanted = op->gamma && op->gamma_gradient;
    int arrays = gamma_wanted ? 3 : 2;
    int residency = ctx->dtype == DTYPE_FLOAT32
                        ? backward_residency<float>(layernorm_eighths<float>(dim), gamma_wanted)
                        : backward_residency<bfloat16>(layernorm_eighths<bfloat16>(dim), gamma_wanted);
    unsigned lines = layernorm_blocks(ctx, op->rows, residency);
    void *partial;
    if (!cuda_workspace(ctx, &partial, (size_t)lines * arrays * dim * sizeof(float), "layernorm_backward", error))
        return false;
    bool launched = with_type(ctx->dtype, [&](auto type) {
        typedef decltype(type) T;
        layernorm_backward_tensors<T> t = {(T *)op->residual_gradient,
                                           (T *)op->branch_gradient,
                                           (const T *)op->normed_gradient,
                                           (const T *)op->residual_out,
                                           (const T *)op->branch,
                                           op->mean,
                                           op->rstd,
                                           op->gamma,
                                           op->path_scale,
                                           op->weight,
                                           (float *)partial,
                                           gamma_wanted,
                                           op->rows,
                                           op->tokens,
                                           dim,
                                           (T *)op->normed,
                                           op->bias};
        return backward<T>(ctx, t, lines, error);
    });
    float *sums[3] = {op->weight_gradient, op->bias_gradient, op->gamma_gradient};
    return launched && cuda_column_sum_finish(ctx, sums, arrays, (float *)partial, lines, dim, error);
}
