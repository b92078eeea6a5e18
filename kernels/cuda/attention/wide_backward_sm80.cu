/* Attention backward in bfloat16 where head_dim is more than 128; wide_sm80.cuh has the picture. dQ first, with delta,
 * then dK and dV; each takes the logits again. No sum depends on the order in which blocks run. */
#include "kernels/cuda/attention/wide_sm80.cuh"

extern __shared__ __align__(128) uint8_t shared[];

enum wide_gradient { OF_QUERIES, OF_KEYS, OF_VALUES };

template <wide_gradient OF> constexpr int own_operands = OF == OF_VALUES ? 1 : 2;

/* sum + the two products of two bfloat16 each. */
static __device__ __forceinline__ float add_products(float sum, uint32_t a, uint32_t b)
{
    sum = fmaf(__uint_as_float(a << 16), __uint_as_float(b << 16), sum);
    return fmaf(__uint_as_float(a & 0xffff0000u), __uint_as_float(b & 0xffff0000u), sum);
}

/* dO . O of a row, on the four lanes of a group. */
static __device__ __forceinline__ float delta_of(const bfloat16 *out, const bfloat16 *out_gradient, int units, int pair)
{
    float sum = 0;
    for (int unit = pair; unit < units; unit += 4) {
        uint4 a = reinterpret_cast<const uint4 *>(out)[unit], b = reinterpret_cast<const uint4 *>(out_gradient)[unit];
        sum = add_products(sum, a.x, b.x);
        sum = add_products(sum, a.y, b.y);
        sum = add_products(sum, a.z, b.z);
        sum = add_products(sum, a.w, b.w);
    }
    return row_sum(sum);
}

/* What is known of the queries, for the C tiles of a warp: -logsumexp, base 2, and -delta, which products dO V^T start
 * from. Where queries are the own rows both are the same for all chunks. */
struct wide_queries {
    float minus_logsumexp[2][4], minus_delta[2][4];
};

/* Own queries; their delta goes to memory too, for OF_KEYS. */
template <int D>
static __device__ __forceinline__ wide_queries own_queries(const attention_derivatives<bfloat16> &derivatives,
                                                           wide_rows out, wide_rows out_gradient, size_t of_head,
                                                           const wide_place<D, 2> &place)
{
    wide_queries queries;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = place.first + i * 8 + place.at.group;
        bool inside = row < place.tokens;
        size_t token = inside ? row : 0;
        float delta = delta_of(out.first + token * out.stride, out_gradient.first + token * out_gradient.stride,
                               place.units, place.at.pair);
        if (inside && place.at.pair == 0)
            derivatives.delta[of_head + row] = delta;
        float minus_logsumexp = inside ? -LOG2_E * derivatives.logsumexp[of_head + row] : -INFINITY;
#pragma unroll
        for (int c = 0; c < 4; c++) {
            queries.minus_logsumexp[c / 2][c % 2 + 2 * i] = minus_logsumexp;
            queries.minus_delta[c / 2][c % 2 + 2 * i] = -delta;
        }
    }
    return queries;
}

/* The 16 queries from `first` on as columns; those past the end get probability 0. */
static __device__ __forceinline__ wide_queries other_queries(const attention_derivatives<bfloat16> &derivatives,
                                                             int first, int tokens, size_t of_head, lane_position at)
{
    int query = first + at.lane % 16;
    float known = at.lane < 16 ? -INFINITY : 0; /* lanes 0 to 15: -logsumexp of a query each, 16 to 31: -delta */
    if (query < tokens)
        known = at.lane < 16 ? -LOG2_E * derivatives.logsumexp[of_head + query] : -derivatives.delta[of_head + query];
    wide_queries queries;
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int c = 0; c < 2; c++) {
            int column = n * 8 + at.pair * 2 + c;
            queries.minus_logsumexp[n][c] = queries.minus_logsumexp[n][c + 2] = from_lane(known, column);
            queries.minus_delta[n][c] = queries.minus_delta[n][c + 2] = from_lane(known, column + 16);
        }
    return queries;
}

template <int D, wide_gradient OF>
__global__ void __launch_bounds__(32 * WIDE_WARPS)
    attention_backward_wide(bfloat16 *gradient, attention_operands<bfloat16> in,
                            attention_derivatives<bfloat16> derivatives, int head_dim)
{
    constexpr int own = own_operands<OF>;
    wide_place<D, own> place(shared, in.tokens, head_dim);
    lane_position at = place.at;
    size_t of_head = ((size_t)blockIdx.z * in.heads + blockIdx.y) * in.tokens;
    int width = in.heads * head_dim;
    wide_rows query = rows_at(in.query, in.row, in.tokens, head_dim);
    wide_rows key = rows_at(in.key, in.row, in.tokens, head_dim);
    wide_rows value = rows_at(in.value, in.value_row, in.tokens, head_dim);
    wide_rows out_gradient = rows_at(derivatives.out_gradient, width, in.tokens, head_dim);
    wide_rows left = OF == OF_QUERIES ? key : query, right = OF == OF_QUERIES ? value : out_gradient;
    place.copy(shared_address(place.own), OF == OF_QUERIES ? query : key, place.first, 0, 1);
    if (own == 2)
        place.copy(shared_address(place.own) + wide_layout<D, own>::tile_bytes, OF == OF_QUERIES ? out_gradient : value,
                   place.first, 0, 1);
    place.copy_chunk(0, left, right);
    copy_commit();

    wide_queries queries;
    if constexpr (OF == OF_QUERIES)
        queries = own_queries<D>(derivatives, rows_at(derivatives.out, width, in.tokens, head_dim), out_gradient,
                                 of_head, place);
    float sum[D / 8][4] = {};
    for (int chunk = 0; chunk * 16 < in.tokens; chunk++) {
        copy_wait<0>();
        __syncthreads();
        if ((chunk + 1) * 16 < in.tokens)
            place.copy_chunk(chunk + 1, left, right);
        copy_commit();
        if (place.inside <= 0)
            continue;
        if (OF != OF_QUERIES)
            queries = other_queries(derivatives, chunk * 16, in.tokens, of_head, at);
        float weights[2][4] = {}, slopes[2][4];
        if (OF == OF_QUERIES)
            start_logits(weights, chunk * 16, in.tokens, at.pair);
        multiply_rows<D>(weights, place.own_matrices(0), place.stage(chunk, 0) + matrix_offset<D>(ACROSS, at.lane));
        memcpy(slopes, queries.minus_delta, sizeof slopes);
        if (OF != OF_VALUES)
            multiply_rows<D>(slopes, place.own_matrices(1), place.stage(chunk, 1) + matrix_offset<D>(ACROSS, at.lane));
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                weights[n][c] = exp2_fast(fmaf(weights[n][c], in.scale * LOG2_E, queries.minus_logsumexp[n][c]));
                if (OF != OF_VALUES)
                    weights[n][c] *= slopes[n][c];
            }
        add_rows<D>(sum, weights, place.stage(chunk, OF == OF_VALUES) + matrix_offset<D>(DOWN, at.lane));
    }
    float scale = OF == OF_VALUES ? 1 : in.scale, scales[2] = {scale, scale};
    size_t image_at = (size_t)blockIdx.z * in.tokens * derivatives.gradient_row;
    place.write(gradient + image_at + blockIdx.y * head_dim, derivatives.gradient_row, sum, scales);
}

/* ---- launches ---- */

template <int D, wide_gradient OF>
static bool backward(struct context *ctx, bfloat16 *gradient, const attention_operands<bfloat16> *in,
                     const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                     struct error *error)
{
    wide_launch launch = launch_of<D, own_operands<OF>>(ctx, shape);
    auto kernel = attention_backward_wide<D, OF>;
    if (!allow_shared(kernel, launch.shared_bytes, error))
        return false;
    kernel<<<launch.grid, launch.threads, launch.shared_bytes, ctx->compute>>>(gradient, *in, *derivatives,
                                                                               (int)shape->head_dim);
    return cuda_launched(ctx, "attention_backward_wide", error);
}

/* dQ first: it leaves delta for dK. */
template <int D>
static bool backward(struct context *ctx, const attention_operands<bfloat16> *in,
                     const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                     struct error *error)
{
    return backward<D, OF_QUERIES>(ctx, derivatives->query_gradient, in, derivatives, shape, error) &&
           backward<D, OF_KEYS>(ctx, derivatives->key_gradient, in, derivatives, shape, error) &&
           backward<D, OF_VALUES>(ctx, derivatives->value_gradient, in, derivatives, shape, error);
}

bool attention_backward_wide(struct context *ctx, const attention_operands<bfloat16> *in,
                             const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                             struct error *error)
{
    typedef bool backward_of_size(struct context *, const attention_operands<bfloat16> *,
                                  const attention_derivatives<bfloat16> *, const struct attention_shape *,
                                  struct error *);
    backward_of_size *of_size = shape->head_dim <= 160   ? backward<160>
                                : shape->head_dim <= 192 ? backward<192>
                                : shape->head_dim <= 224 ? backward<224>
                                                         : backward<256>;
    return of_size(ctx, in, derivatives, shape, error);
}
