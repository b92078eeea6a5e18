/* Muon's ops on one weight matrix (muon.h). */
#include "kernels/cuda/optimiser.cuh"

enum { MEAN_BLOCKS = 512, TILE = 32, TILE_LINES = 8 };

/* What the kernels need of struct muon. */
struct muon_step {
    float momentum, take, eps, clip;
    double limit; /* of the gradient's sum of squares; infinite = none */
    const double *sum_of_squares, *earlier;
    bool nesterov;
};

static muon_step step_of(const struct muon *muon, const double *sum_of_squares)
{
    return muon_step{muon->momentum,
                     (float)(1.0 - (double)muon->momentum),
                     muon->eps,
                     muon->clip_grad_norm,
                     optimiser_limit(muon->sum_of_squares_limit),
                     sum_of_squares,
                     muon->earlier_sum_of_squares,
                     muon->nesterov};
}

__device__ __forceinline__ bool is_withheld(const muon_step &k)
{
    return optimiser_withholds(*k.sum_of_squares, k.limit, k.earlier);
}

/* From a clipped gradient and the mean that has taken it in. */
__device__ __forceinline__ float direction_at(float m, float g, const muon_step &k)
{
    return k.nesterov ? fmaf(k.momentum, m - g, g) : m;
}

__device__ __forceinline__ float take_in(float *m, float gradient, float scale, const muon_step &k)
{
    float g = gradient * scale;
    *m = fmaf(k.take, g - *m, *m);
    return direction_at(*m, g, k);
}

/* m, and partial[block] = sum of the squares of the direction over every MEAN_BLOCKS-th stretch of 4 * 256 numbers: the
 * same on every GPU. Traffic: 12 bytes a number. */
__global__ void __launch_bounds__(OPTIMISER_THREADS)
    muon_mean_kernel(double *partial, float *m, const float *gradient, size_t count, muon_step k)
{
    __shared__ double scratch[32];
    if (is_withheld(k))
        return;
    float scale = optimiser_clip(k.clip, *k.sum_of_squares);
    double sum = 0;
    size_t packs = count / 4;
    for (size_t p = blockIdx.x * (size_t)OPTIMISER_THREADS + threadIdx.x; p < packs;
         p += gridDim.x * (size_t)OPTIMISER_THREADS) {
        pack<float, 4> mean = load_pack<4>(m, p), g = load_pack<4>(gradient, p);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float u = take_in(&mean.value[i], g.value[i], scale, k);
            sum += (double)u * u;
        }
        store_pack<4>(m, p, mean);
    }
    if (blockIdx.x == 0)
        for (size_t i = packs * 4 + threadIdx.x; i < count; i += OPTIMISER_THREADS) {
            float u = take_in(&m[i], gradient[i], scale, k);
            sum += (double)u * u;
        }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

/* 1 / max(root of the sum of all partials, eps), as a float where the first partial was; one block. */
__global__ void muon_norm_kernel(double *partial, int blocks, muon_step k)
{
    __shared__ double scratch[32];
    if (is_withheld(k))
        return;
    double total = 0;
    for (int i = threadIdx.x; i < blocks; i += OPTIMISER_THREADS)
        total += partial[i];
    total = block_sum(total, scratch);
    if (threadIdx.x == 0)
        *(float *)partial = (float)(1.0 / fmax(sqrt(total), (double)k.eps));
}

/* A block takes a tile of 32 x 32 numbers of the weight, a warp a row of it at a time, and writes it as it lies: turned
 * round in shared memory (33 numbers a row, so that a column meets 32 banks) where the weight has more rows than
 * columns. Traffic: 4 bytes a number (8 under Nesterov) and a T. */
template <typename T, bool TURN>
__global__ void __launch_bounds__(TILE *TILE_LINES)
    muon_write_kernel(T *out, const float *m, const float *gradient, const float *scale, size_t rows, size_t columns,
                      muon_step k)
{
    __shared__ float tile[TILE][TILE + 1];
    if (is_withheld(k))
        return;
    float clip = optimiser_clip(k.clip, *k.sum_of_squares), factor = *scale;
    size_t first_row = blockIdx.y * (size_t)TILE, first_column = blockIdx.x * (size_t)TILE;
    size_t column = first_column + threadIdx.x;
    for (int line = threadIdx.y; line < TILE; line += TILE_LINES) {
        size_t row = first_row + line, i = row * columns + column;
        if (row >= rows || column >= columns)
            continue;
        float value = factor * direction_at(m[i], k.nesterov ? gradient[i] * clip : 0, k);
        if (TURN)
            tile[line][threadIdx.x] = value;
        else
            out[i] = from_float<T>(value);
    }
    if (!TURN)
        return;
    __syncthreads();
    size_t row = first_row + threadIdx.x;
    for (int line = threadIdx.y; line < TILE; line += TILE_LINES)
        if (row < rows && first_column + line < columns)
            out[(first_column + line) * rows + row] = from_float<T>(tile[threadIdx.x][line]);
}

static dim3 tiles(size_t rows, size_t columns)
{
    return dim3(div_up(columns, TILE), div_up(rows, TILE));
}

bool cuda_muon_direction(struct context *ctx, const struct muon_direction *op, struct error *error)
{
    void *scratch;
    if (!cuda_workspace(ctx, &scratch, MEAN_BLOCKS * sizeof(double), "muon_direction", error))
        return false;
    double *partial = (double *)scratch;
    muon_step k = step_of(op->muon, op->gradient_sum_of_squares);
    size_t count = op->rows * op->columns;
    int blocks = (int)minimum(MEAN_BLOCKS, div_up(maximum(count / 4, 1), OPTIMISER_THREADS));
    muon_mean_kernel<<<blocks, OPTIMISER_THREADS, 0, ctx->compute>>>(partial, op->m, op->gradient, count, k);
    if (!cuda_launched(ctx, "muon_mean", error))
        return false;
    muon_norm_kernel<<<1, OPTIMISER_THREADS, 0, ctx->compute>>>(partial, blocks, k);
    if (!cuda_launched(ctx, "muon_norm", error))
        return false;
    return with_type(ctx->dtype, [&](auto type) {
        typedef decltype(type) T;
        auto kernel = op->rows > op->columns ? muon_write_kernel<T, true> : muon_write_kernel<T, false>;
        kernel<<<tiles(op->rows, op->columns), dim3(TILE, TILE_LINES), 0, ctx->compute>>>(
            (T *)op->out, op->m, op->gradient, (const float *)scratch, op->rows, op->columns, k);
        return cuda_launched(ctx, "muon_write", error);
    });
}

/* A thread a number; 3 T a number. */
template <typename T>
__global__ void __launch_bounds__(OPTIMISER_THREADS)
    muon_polynomial_kernel(T *out, const T *x, const T *x_squared, size_t n, float identity, float linear, float square)
{
    size_t i = blockIdx.x * (size_t)OPTIMISER_THREADS + threadIdx.x;
    if (i >= n * n)
        return;
    float sum = fmaf(square, to_float(x_squared[i]), linear * to_float(x[i]));
    out[i] = from_float<T>(i % (n + 1) == 0 ? identity + sum : sum);
}

bool cuda_muon_polynomial(struct context *ctx, const struct muon_polynomial *op, struct error *error)
{
    return with_type(ctx->dtype, [&](auto type) {
        typedef decltype(type) T;
        muon_polynomial_kernel<T><<<div_up(op->n * op->n, OPTIMISER_THREADS), OPTIMISER_THREADS, 0, ctx->compute>>>(
            (T *)op->out, (const T *)op->x, (const T *)op->x_squared, op->n, op->identity, op->linear, op->square);
        return cuda_launched(ctx, "muon_polynomial", error);
    });
}

/* Tiles as in muon_write_kernel, the other way round. Traffic: 8 bytes a number, a T, and a T for the working copy. */
template <typename T, bool TURN>
__global__ void __launch_bounds__(TILE *TILE_LINES)
    muon_apply_kernel(float *master, T *working, const T *direction, size_t rows, size_t columns, float keep,
                      float step, muon_step k)
{
    __shared__ float tile[TILE][TILE + 1];
    if (is_withheld(k))
        return;
    size_t first_row = blockIdx.y * (size_t)TILE, first_column = blockIdx.x * (size_t)TILE;
    if (TURN) {
        size_t row = first_row + threadIdx.x;
        for (int line = threadIdx.y; line < TILE; line += TILE_LINES)
            if (row < rows && first_column + line < columns)
                tile[line][threadIdx.x] = to_float(direction[(first_column + line) * rows + row]);
        __syncthreads();
    }
    size_t column = first_column + threadIdx.x;
    for (int line = threadIdx.y; line < TILE; line += TILE_LINES) {
        size_t row = first_row + line, i = row * columns + column;
        if (row >= rows || column >= columns)
            continue;
        float x = TURN ? tile[threadIdx.x][line] : to_float(direction[i]);
        float moved = fmaf(-step, x, keep * master[i]);
        master[i] = moved;
        if (working)
            working[i] = from_float<T>(moved);
    }
}

bool cuda_muon_apply(struct context *ctx, const struct muon_apply *op, struct error *error)
{
    muon_step k = step_of(op->muon, op->gradient_sum_of_squares);
    void *working = op->working == op->master ? NULL : op->working;
    return with_type(ctx->dtype, [&](auto type) {
        typedef decltype(type) T;
        auto kernel = op->rows > op->columns ? muon_apply_kernel<T, true> : muon_apply_kernel<T, false>;
        kernel<<<tiles(op->rows, op->columns), dim3(TILE, TILE_LINES), 0, ctx->compute>>>(
            op->master, (T *)working, (const T *)op->direction, op->rows, op->columns, op->keep, op->step, k);
        return cuda_launched(ctx, "muon_apply", error);
    });
}
