/* Queries and keys of the kinds that transform them, on their way to the attention kernels (prepare.cu has the table of
 * the kinds and the way back).
 *
 * One block a head and image. A row lies over LANES neighbouring lanes, 16 bytes each (32 in float32 above 128), so a
 * warp works on 32 / LANES tokens at a time; weights and biases stay in registers. Reads and writes Q and K once: 8 d
 * bytes a token and head in bfloat16. Sums over a row are a lane's elements, then the lanes in pairs. */
#include "kernels/cuda/attention/prepare.cuh"

template <int LANES> static __device__ __forceinline__ float lanes_sum(float x)
{
#pragma unroll
    for (int offset = LANES / 2; offset > 0; offset /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

/* A lane's part of a row: pack p is number lane % LANES + p * LANES. */
template <typename T, int LANES, int PACKS> struct row_part {
    static constexpr int width = wide<T>;
    float value[PACKS][width];

    static __device__ __forceinline__ int number(int p)
    {
        return threadIdx.x % LANES + p * LANES;
    }

    __device__ __forceinline__ void load(const T *row, int head_dim, bool valid)
    {
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            pack<T, width> packed = {};
            if (valid && number(p) * width < head_dim)
                packed = load_pack<width>(row, number(p));
#pragma unroll
            for (int i = 0; i < width; i++)
                value[p][i] = to_float(packed.value[i]);
        }
    }

    __device__ __forceinline__ void store(T *row, int head_dim) const
    {
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            pack<T, width> packed;
#pragma unroll
            for (int i = 0; i < width; i++)
                packed.value[i] = from_float<T>(value[p][i]);
            if (number(p) * width < head_dim)
                store_pack<width>(row, number(p), packed);
        }
    }

    __device__ __forceinline__ float square() const
    {
        float sum = 0;
#pragma unroll
        for (int p = 0; p < PACKS; p++)
#pragma unroll
            for (int i = 0; i < width; i++)
                sum += value[p][i] * value[p][i];
        return lanes_sum<LANES>(sum);
    }

    __device__ __forceinline__ void subtract_mean(int head_dim)
    {
        float sum = 0;
#pragma unroll
        for (int p = 0; p < PACKS; p++)
#pragma unroll
            for (int i = 0; i < width; i++)
                sum += value[p][i];
        float mean = lanes_sum<LANES>(sum) / head_dim;
#pragma unroll
        for (int p = 0; p < PACKS; p++)
#pragma unroll
            for (int i = 0; i < width; i++)
                value[p][i] -= number(p) * width < head_dim ? mean : 0;
    }
};

/* What an element is multiplied by after its row's normalisation, and what is added. */
template <typename T, int LANES, int PACKS> struct side_weights {
    row_part<T, LANES, PACKS> weight, bias;

    __device__ __forceinline__ void load(const side_transform &side, int head, int head_dim)
    {
#pragma unroll
        for (int p = 0; p < PACKS; p++)
#pragma unroll
            for (int i = 0; i < wide<T>; i++) {
                int element = weight.number(p) * wide<T> + i;
                weight.value[p][i] = element < head_dim ? weight_at(side, head, element) : 0;
                bias.value[p][i] = element < head_dim && side.bias ? side.bias[element] : 0;
            }
    }
};

/* x becomes its normalised form, times the weights, plus the biases. `square` is |x|^2. */
template <typename T, int LANES, int PACKS>
static __device__ __forceinline__ void transform_row(row_part<T, LANES, PACKS> &x, float square,
                                                     enum attention_norm how,
                                                     const side_weights<T, LANES, PACKS> &weights, int head_dim)
{
    float factor = 1;
    if (how == NORM_UNIT)
        factor = 1 / fmaxf(sqrtf(square), SMALLEST_NORM);
    if (how == NORM_LAYER) {
        x.subtract_mean(head_dim);
        factor = 1 / sqrtf(x.square() / head_dim + LAYERNORM_EPSILON);
    }
#pragma unroll
    for (int p = 0; p < PACKS; p++)
#pragma unroll
        for (int i = 0; i < wide<T>; i++)
            x.value[p][i] = x.value[p][i] * factor * weights.weight.value[p][i] + weights.bias.value[p][i];
}

/* prepared: NULL where only norms are wanted. records: NULL, or norms of the rows as they came, one a block. */
template <typename T, int LANES, int PACKS>
__global__ void __launch_bounds__(32 * PREPARE_WARPS)
    attention_forward_prepare(T *prepared, attention_record *records, const T *qkv, transforms transform, int tokens,
                              int head_dim)
{
    constexpr int rows = 32 / LANES; /* of a warp at a time */
    __shared__ attention_record scratch[PREPARE_WARPS];
    int head = blockIdx.x, heads = gridDim.x, image = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    side_weights<T, LANES, PACKS> weights[2];
    weights[0].load(transform.side[0], head, head_dim);
    weights[1].load(transform.side[1], head, head_dim);
    norm_summary norms[2];
    for (int first = warp * rows; first < tokens; first += PREPARE_WARPS * rows) {
        bool valid = first + lane / LANES < tokens;
        size_t row = (size_t)image * tokens + first + lane / LANES;
#pragma unroll
        for (int which = 0; which < 2; which++) {
            row_part<T, LANES, PACKS> x;
            x.load(qkv + ((row * 3 + which) * heads + head) * head_dim, head_dim, valid);
            float square = x.square();
            if (records)
                norms[which].add(square, valid && lane % LANES == 0);
            if (!prepared)
                continue;
            transform_row(x, square, transform.side[which].norm, weights[which], head_dim);
            if (valid)
                x.store(prepared + ((row * 2 + which) * heads + head) * head_dim, head_dim);
        }
    }
    if (records)
        write_record<LANES>(records + head * gridDim.y + image, norms[0], norms[1], MASKED, row_summary(), scratch);
}

/* As few lanes as hold a row. */
template <typename T>
static void launch_prepare(struct context *ctx, T *prepared, attention_record *records, const T *qkv,
                           const transforms &transform, const struct attention_shape *shape)
{
    size_t packs = div_up(shape->head_dim, (size_t)wide<T>);
    auto kernel = packs <= 4    ? attention_forward_prepare<T, 4, 1>
                  : packs <= 8  ? attention_forward_prepare<T, 8, 1>
                  : packs <= 16 ? attention_forward_prepare<T, 16, 1>
                  : packs <= 32 ? attention_forward_prepare<T, 32, 1>
                                : attention_forward_prepare<T, 32, 2>;
    kernel<<<dim3(shape->heads, shape->batch), 32 * PREPARE_WARPS, 0, ctx->compute>>>(
        prepared, records, qkv, transform, (int)shape->tokens, (int)shape->head_dim);
}

bool attention_prepare(struct context *ctx, void *prepared, struct attention_record_list *norms, const void *qkv,
                       const struct attention_parameters *parameters, const struct attention_shape *shape,
                       struct error *error)
{
    transforms transform = transforms_of(shape->kind, parameters);
    norms->of_head = shape->batch;
    if (ctx->dtype == DTYPE_BFLOAT16)
        launch_prepare(ctx, (bfloat16 *)prepared, norms->record, (const bfloat16 *)qkv, transform, shape);
    else
        launch_prepare(ctx, (float *)prepared, norms->record, (const float *)qkv, transform, shape);
    return cuda_launched(ctx, "attention_forward_prepare", error);
}
