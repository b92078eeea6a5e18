/* Attention of the CLS query alone (kernels/attention_cls.h): every kind, float32 and bfloat16.
 *
 * One block a head and image. A group of LANES lanes (8, 16 or 32) owns a token at a time and goes on to the one GROUPS
 * further; a lane holds 8 neighbouring elements of each row, as float32. Keys are normalised in registers. With
 *
 *   q^ = scale * (norm(q) * q_weight + q_bias),   x_j = norm(k_j),   u = q^ * k_weight,   c = q^ . k_bias
 *
 * the logits are u . x_j + c, so that what the keys learn costs nothing a token. Forward, each group keeps a maximum, a
 * sum and a row of its own; they are combined in the order of the groups. Backward, with P from the logsumexp,
 *
 *   s_j = P_j (dO . v_j - dO . O),   dv_j = P_j dO,   dx_j = s_j u,   A = sum s_j x_j,   S = sum s_j
 *
 * and dq^ = k_weight A + k_bias S, d k_weight = q^ A, d k_bias = q^ S.
 *
 * Bound by memory: forward reads keys and values once, 2 head_dim numbers a token, backward reads them and writes as
 * many; 2 or 6 shuffles of log2(LANES) steps a token beside. */
#ifndef QUEST_KERNELS_CUDA_ATTENTION_CLS_CUH
#define QUEST_KERNELS_CUDA_ATTENTION_CLS_CUH

#include "kernels/cuda/attention/transform.cuh"

enum { CLS_THREADS = 256, LANE_NUMBERS = 8, MOST_HEAD_DIM = 32 * LANE_NUMBERS };

template <typename T> struct cls_operands {
    const T *query, *key_value;
    transforms transform;
    int tokens, heads, head_dim;
    float scale; /* of all logits */
};

template <typename T> struct cls_derivatives {
    T *query_gradient, *key_value_gradient;
    float *partials; /* [heads, batch, 4, head_dim]; NULL where nothing is learned */
    const T *out_gradient, *out;
    const float *logsumexp;
};

/* A lane's part of a row. */
struct part {
    float value[LANE_NUMBERS];
};

/* Who a thread is. */
template <int LANES> struct position {
    static constexpr int GROUPS = CLS_THREADS / LANES;
    int head = blockIdx.x, image = blockIdx.y, group = threadIdx.x / LANES,
        element = threadIdx.x % LANES * LANE_NUMBERS;
    bool inside; /* head_dim is a multiple of LANE_NUMBERS: a lane is in the row or out of it */

    __device__ __forceinline__ position(int head_dim) : inside(element < head_dim)
    {
    }
};

template <typename T> static __device__ __forceinline__ part load_part(const T *row, int element, bool inside)
{
    part x = {};
    if (inside) {
#pragma unroll
        for (int i = 0; i < LANE_NUMBERS; i += wide<T>) {
            pack<T, wide<T>> numbers = load_pack<wide<T>>(row + element + i, 0);
#pragma unroll
            for (int j = 0; j < wide<T>; j++)
                x.value[i + j] = to_float(numbers.value[j]);
        }
    }
    return x;
}

template <typename T> static __device__ __forceinline__ void store_part(T *row, int element, const part &x)
{
#pragma unroll
    for (int i = 0; i < LANE_NUMBERS; i += wide<T>) {
        pack<T, wide<T>> numbers;
#pragma unroll
        for (int j = 0; j < wide<T>; j++)
            numbers.value[j] = from_float<T>(x.value[i + j]);
        store_pack<wide<T>>(row + element + i, 0, numbers);
    }
}

/* Over the lanes of a group, the same on each. */
template <int LANES> static __device__ __forceinline__ float group_sum(float x)
{
#pragma unroll
    for (int offset = LANES / 2; offset > 0; offset /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

template <int LANES> static __device__ __forceinline__ float group_dot(const part &a, const part &b)
{
    float sum = 0;
#pragma unroll
    for (int i = 0; i < LANE_NUMBERS; i++)
        sum = fmaf(a.value[i], b.value[i], sum);
    return group_sum<LANES>(sum);
}

template <int LANES> static __device__ __forceinline__ float group_mean(const part &x, int head_dim)
{
    float sum = 0;
#pragma unroll
    for (int i = 0; i < LANE_NUMBERS; i++)
        sum += x.value[i];
    return group_sum<LANES>(sum) / head_dim;
}

/* x becomes its normalised form. */
struct normalisation {
    float factor;
    bool radial; /* the gradient loses its part along x: not where |x| was too small to be divided by */
};
template <int LANES>
static __device__ __forceinline__ normalisation normalise_part(part &x, enum attention_norm how, int head_dim,
                                                               bool inside)
{
    normalisation done = {1, how != NORM_NONE};
    if (how == NORM_UNIT) {
        float norm = sqrtf(group_dot<LANES>(x, x));
        done.factor = 1 / fmaxf(norm, SMALLEST_NORM);
        done.radial = norm > SMALLEST_NORM;
    }
    if (how == NORM_LAYER) {
        float mean = group_mean<LANES>(x, head_dim);
#pragma unroll
        for (int i = 0; i < LANE_NUMBERS; i++)
            x.value[i] -= inside ? mean : 0;
        done.factor = 1 / sqrtf(group_dot<LANES>(x, x) / head_dim + LAYERNORM_EPSILON);
    }
#pragma unroll
    for (int i = 0; i < LANE_NUMBERS; i++)
        x.value[i] *= done.factor;
    return done;
}

static __device__ __forceinline__ part weights_of(const side_transform &side, int head, int element, bool inside)
{
    part weights = {};
#pragma unroll
    for (int i = 0; i < LANE_NUMBERS; i++)
        weights.value[i] = inside ? weight_at(side, head, element + i) : 0;
    return weights;
}

static __device__ __forceinline__ part biases_of(const side_transform &side, int element, bool inside)
{
    part biases = {};
    if (side.bias && inside)
#pragma unroll
        for (int i = 0; i < LANE_NUMBERS; i++)
            biases.value[i] = side.bias[element + i];
    return biases;
}

/* The query as the keys meet it. */
struct cls_query {
    part normalised, hat, u;
    normalisation done;
    float c;
};
template <int LANES, typename T>
static __device__ __forceinline__ cls_query take_query(const cls_operands<T> &in, const position<LANES> &at)
{
    const side_transform &queries = in.transform.side[0], &keys = in.transform.side[1];
    cls_query query;
    query.normalised =
        load_part(in.query + ((size_t)at.image * in.heads + at.head) * in.head_dim, at.element, at.inside);
    query.done = normalise_part<LANES>(query.normalised, queries.norm, in.head_dim, at.inside);
    part weight = weights_of(queries, at.head, at.element, at.inside), bias = biases_of(queries, at.element, at.inside);
    part key_weight = weights_of(keys, at.head, at.element, at.inside);
#pragma unroll
    for (int i = 0; i < LANE_NUMBERS; i++) {
        query.hat.value[i] = in.scale * (query.normalised.value[i] * weight.value[i] + bias.value[i]);
        query.u.value[i] = query.hat.value[i] * key_weight.value[i];
    }
    query.c = keys.bias ? group_dot<LANES>(query.hat, biases_of(keys, at.element, at.inside)) : 0;
    return query;
}

/* Where the key of a token begins; its value lies heads * head_dim further. */
template <int LANES, typename T>
static __device__ __forceinline__ size_t key_row(const cls_operands<T> &in, const position<LANES> &at, int token)
{
    return (((size_t)at.image * in.tokens + token) * 2 * in.heads + at.head) * in.head_dim;
}

/* ---- launches ---- */

template <typename T>
static cls_operands<T> operands_of(const void *query, const void *key_value,
                                   const struct attention_parameters *parameters, const struct attention_shape *shape)
{
    cls_operands<T> operands = {};
    operands.query = static_cast<const T *>(query);
    operands.key_value = static_cast<const T *>(key_value);
    operands.transform = transforms_of(shape->kind, parameters);
    operands.tokens = (int)shape->tokens;
    operands.heads = (int)shape->heads;
    operands.head_dim = (int)shape->head_dim;
    operands.scale = attention_kinds[shape->kind].scaled ? 1.0f / sqrtf((float)shape->head_dim) : 1.0f;
    return operands;
}

template <int N> struct lanes {
    static constexpr int count = N;
};

/* Calls f with a zero of the dtype and the fewest lanes that hold a row. */
template <typename F>
static bool with_lanes(enum dtype dtype, const struct attention_shape *shape, F f, struct error *error)
{
    if (shape->head_dim % LANE_NUMBERS || shape->head_dim > MOST_HEAD_DIM)
        return error_input(error, "attention of one query is built for multiples of %d up to %d as head_dim, not %zu",
                           LANE_NUMBERS, MOST_HEAD_DIM, shape->head_dim);
    return with_type(dtype, [&](auto zero) {
        return shape->head_dim <= 64    ? f(zero, lanes<8>{})
               : shape->head_dim <= 128 ? f(zero, lanes<16>{})
                                        : f(zero, lanes<32>{});
    });
}

#endif
