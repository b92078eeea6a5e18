/* Queries and keys of the kinds that transform them element by element: the way back for their gradients. The way there
 * is in prepare_rows.cu.
 *
 * Each side of each kind is  x-hat = normalised(x) * weight + bias:
 *
 *     kind         queries                          keys
 *     quest        x                                x / |x|             (float32 only; in bfloat16 fused)
 *     qnorm        x / |x|                          x
 *     qknorm       LayerNorm(x), weight and bias    LayerNorm(x), weight and bias
 *     qknorm_hs    x / |x| * scale of the head      x / |x|
 *     qknorm_ds    x / |x| * q_scale                x / |x| * k_scale
 *
 * One block a head and image, one warp a token and side; lane l holds elements l, l + 32, ... Reads Q, K and their
 * gradients once and writes these in place. The gradients of weights and biases are summed by each block in the order
 * of its warps, then over the blocks in order: the bits are always the same. |x| is at least 1e-6. */
#include "kernels/cuda/attention/prepare.cuh"

/* One row, spread over a warp: 4 elements a lane, or 8 where head_dim > 128. */
template <int ELEMENTS> struct row_elements {
    float value[ELEMENTS];
};

template <int ELEMENTS, typename T>
static __device__ __forceinline__ row_elements<ELEMENTS> load_row(const T *x, int head_dim, int lane)
{
    row_elements<ELEMENTS> row = {};
#pragma unroll
    for (int i = 0; i < ELEMENTS; i++)
        if (lane + 32 * i < head_dim)
            row.value[i] = to_float(x[lane + 32 * i]);
    return row;
}

template <int ELEMENTS, typename T>
static __device__ __forceinline__ void store_row(T *x, const row_elements<ELEMENTS> &row, int head_dim, int lane)
{
#pragma unroll
    for (int i = 0; i < ELEMENTS; i++)
        if (lane + 32 * i < head_dim)
            x[lane + 32 * i] = from_float<T>(row.value[i]);
}

template <int ELEMENTS>
static __device__ __forceinline__ float dot(const row_elements<ELEMENTS> &a, const row_elements<ELEMENTS> &b)
{
    float sum = 0;
#pragma unroll
    for (int i = 0; i < ELEMENTS; i++)
        sum += a.value[i] * b.value[i];
    return warp_sum(sum);
}

/* x becomes its normalised form; returns the factor that did it. `square` is |x|^2. */
template <int ELEMENTS>
static __device__ float normalise(row_elements<ELEMENTS> &x, float square, enum attention_norm how, int head_dim,
                                  int lane)
{
    float mean = 0, factor = 1;
    if (how == NORM_UNIT)
        factor = 1 / fmaxf(sqrtf(square), SMALLEST_NORM);
    if (how == NORM_LAYER) {
        float sum = 0;
        for (int i = 0; i < ELEMENTS; i++)
            sum += x.value[i];
        mean = warp_sum(sum) / head_dim;
        for (int i = 0; i < ELEMENTS; i++)
            x.value[i] -= lane + 32 * i < head_dim ? mean : 0;
        factor = 1 / sqrtf(dot(x, x) / head_dim + LAYERNORM_EPSILON);
    }
    for (int i = 0; i < ELEMENTS; i++)
        x.value[i] *= factor;
    return factor;
}

/* gradient is in: d x-hat, out: d x, packed as qkv. partials [heads][batch][4][head_dim]: of the weights and biases of
 * queries, then of keys, as if every weight were [head_dim]. */
template <int ELEMENTS, typename T>
__global__ void __launch_bounds__(32 * PREPARE_WARPS)
    attention_backward_finish(T *gradient, float *partials, const T *qkv, transforms transform, int tokens,
                              int head_dim)
{
    __shared__ float sums[PREPARE_WARPS][4][32 * ELEMENTS];
    int head = blockIdx.x, heads = gridDim.x, image = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    row_elements<ELEMENTS> learned[4] = {};
    for (int token = warp; token < tokens; token += PREPARE_WARPS) {
        size_t row = (size_t)image * tokens + token;
#pragma unroll
        for (int which = 0; which < 2; which++) {
            const side_transform &side = transform.side[which];
            if (side.norm == NORM_NONE)
                continue;
            size_t at = ((row * 3 + which) * heads + head) * head_dim;
            row_elements<ELEMENTS> x = load_row<ELEMENTS>(qkv + at, head_dim, lane);
            row_elements<ELEMENTS> dx = load_row<ELEMENTS>(gradient + at, head_dim, lane);
            float factor = normalise(x, dot(x, x), side.norm, head_dim, lane), sum = 0;
#pragma unroll
            for (int i = 0; i < ELEMENTS; i++) {
                int element = lane + 32 * i;
                learned[2 * which].value[i] += dx.value[i] * x.value[i];
                learned[2 * which + 1].value[i] += dx.value[i];
                dx.value[i] *= element < head_dim ? weight_at(side, head, element) : 0;
                sum += dx.value[i];
            }
            /* Remove what the normalisation ignores: changes along x and, for LayerNorm, of the mean. */
            float along = dot(dx, x), mean = 0;
            if (side.norm == NORM_LAYER) {
                along /= head_dim;
                mean = warp_sum(sum) / head_dim;
            }
#pragma unroll
            for (int i = 0; i < ELEMENTS; i++)
                dx.value[i] = (dx.value[i] - mean - x.value[i] * along) * factor;
            store_row(gradient + at, dx, head_dim, lane);
        }
    }
#pragma unroll
    for (int which = 0; which < 4; which++)
#pragma unroll
        for (int i = 0; i < ELEMENTS; i++)
            sums[warp][which][lane + 32 * i] = learned[which].value[i];
    __syncthreads();
    float *block = partials + ((size_t)head * gridDim.y + image) * 4 * head_dim;
    for (int i = threadIdx.x; i < 4 * head_dim; i += blockDim.x) {
        float total = 0;
        for (int w = 0; w < PREPARE_WARPS; w++)
            total += sums[w][i / head_dim][i % head_dim];
        block[i] = total;
    }
}

/* gradient[e] += sum over `rows` rows of 4 head_dim partials, and `width` neighbours in each, from first + e * stride
 * on. One warp for each e. */
static __global__ void attention_backward_learned(float *gradient, const float *partials, int first, int stride,
                                                  int rows, int width, int head_dim)
{
    double sum = 0;
    const float *from = partials + first + (size_t)blockIdx.x * stride;
    for (int i = threadIdx.x; i < rows * width; i += 32)
        sum += from[(size_t)(i / width) * 4 * head_dim + i % width];
    sum = warp_sum(sum);
    if (threadIdx.x == 0)
        gradient[blockIdx.x] += (float)sum;
}

/* ---- launches ---- */

/* Adds partials number `which` of 4, in the order of enum attention_extra, to a gradient [head_dim]. */
static bool add_learned(struct context *ctx, float *gradient, const float *partials, int which,
                        const struct attention_shape *shape, struct error *error)
{
    int head_dim = (int)shape->head_dim, blocks = (int)(shape->heads * shape->batch);
    attention_backward_learned<<<head_dim, 32, 0, ctx->compute>>>(gradient, partials, which * head_dim, 1, blocks, 1,
                                                                  head_dim);
    return cuda_launched(ctx, "attention_backward_learned", error);
}

bool attention_add_learned(struct context *ctx, const struct attention_gradients *gradients, const float *partials,
                           const struct attention_shape *shape, struct error *error)
{
    int head_dim = (int)shape->head_dim;
    for (int extra = EXTRA_Q_WEIGHT; extra <= EXTRA_K_BIAS; extra++)
        if (attention_learns(shape->kind, (enum attention_extra)extra) &&
            !add_learned(ctx, gradients->extra[extra], partials, extra, shape, error))
            return false;
    if (!attention_learns(shape->kind, EXTRA_SCALE))
        return true;
    attention_backward_learned<<<shape->heads, 32, 0, ctx->compute>>>(gradients->extra[EXTRA_SCALE], partials, 0,
                                                                      (int)shape->batch * 4 * head_dim,
                                                                      (int)shape->batch, head_dim, head_dim);
    return cuda_launched(ctx, "attention_backward_learned", error);
}
bool attention_finish_gradient(struct context *ctx, void *qkv_gradient, const struct attention_gradients *gradients,
                               float *partials, const void *qkv, const struct attention_parameters *parameters,
                               const struct attention_shape *shape, struct error *error)
{
    dim3 grid(shape->heads, shape->batch);
    transforms transform = transforms_of(shape->kind, parameters);
    int tokens = (int)shape->tokens, head_dim = (int)shape->head_dim;
    with_type(ctx->dtype, [&](auto number) {
        typedef decltype(number) T;
        auto kernel = head_dim > 4 * 32 ? attention_backward_finish<8, T> : attention_backward_finish<4, T>;
        kernel<<<grid, 32 * PREPARE_WARPS, 0, ctx->compute>>>((T *)qkv_gradient, partials, (const T *)qkv, transform,
                                                              tokens, head_dim);
        return true;
    });
    return cuda_launched(ctx, "attention_backward_finish", error) &&
           attention_add_learned(ctx, gradients, partials, shape, error);
}
