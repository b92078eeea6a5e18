/* dK and dV of attention in bfloat16, and dQ where one block holds all keys of a head.
 *
 * A block takes up to 16 warps x 16 keys of one head (not fused: 12, and 8 where head_dim > 64); queries and dO pass by
 * in chunks of 48 (not fused: 32 to 208, as shared memory has room). A warp keeps its values and its dK and dV in
 * registers and works on transposed logits, [16 keys, queries]: the probabilities, rounded, are then the left operand
 * of dV += P^T dO as they stand, and likewise dS for dK.
 *
 *   shared memory (W warps; head_dim 64, W = 13: 93 KiB)
 *   +-----------------------+
 *   | keys   [16 W][D]      |  left operand of the logits; right operand of dQ; at the end dK and dV on their way out
 *   | stage 0: Q, dO [48][D]|  a chunk of queries
 *   | stage 1: Q, dO [48][D]|
 *   | rows 0, 1             |  float4 [24]: -logsumexp (base 2) and -delta of two neighbouring queries
 *   | slopes 0, 1           |  fused only: dS^T [16 W][48] of this chunk and the last one
 *   +-----------------------+  (before the loop the values pass through here, or through `values`)
 *
 * Fused, the transposed slopes of a chunk go to shared memory, and while the next chunk is worked on the block also
 * multiplies them with all its keys: dQ of 48 queries is 3 x D/32 products of [16, 16 W] and [16 W, 32], one a warp.
 * One barrier a chunk. dQ is complete then, with no sum over blocks.
 *
 * The factor of a key's logits (QUEST's 1 / |k|) multiplies its row of S and of dS; what its normalisation takes away,
 * k (k . dK) / |k|^2, is subtracted from dK in registers. dP starts from -delta instead of 0.
 *
 * Cost of a head of N tokens, n = 16 ceil(N / 16): 10 n n D tensor FLOP fused, else 8; 7 (else 6) N D * 2 bytes, Q and
 * dO again for every further block of keys. Blocks a multiprocessor at head_dim 64, 13 warps: one on sm_80 and sm_90
 * (registers: 128 of 416 threads). */
#include "kernels/cuda/attention/backward_fused_sm80.cuh"

/* CHUNK queries pass at a time. */
template <int D, bool FUSED, int CHUNK> struct backward_layout {
    static constexpr int chunk = CHUNK;
    static constexpr int rows_bytes = chunk * rows_of<D>::bytes;                      /* of Q or dO of a chunk */
    static constexpr int own_bytes = 16 * rows_of<D>::bytes;                          /* of the keys of a warp */
    static constexpr int slopes_bytes = FUSED ? 16 * rows_of<FUSED_CHUNK>::bytes : 0; /* of a warp and chunk */
    static constexpr int rows_at = 4 * rows_bytes;                                    /* all after the keys */
    static constexpr int slopes_at = rows_at + 2 * chunk * 8;

    static __host__ __device__ constexpr int bytes(int warps)
    {
        return warps * own_bytes + slopes_at + warps * (FUSED ? 2 * slopes_bytes : own_bytes);
    }
};

/* Whether registers have room for the keys as fragments. */
template <int D, bool FUSED> constexpr bool keep_keys = !FUSED && D <= 96;

/* A warp's keys: the low half of everything belongs to row `group`, the high half to row group + 8. */
template <int D, bool FUSED> struct key_rows {
    float key_gradient[D / 8][4], value_gradient[D / 8][4];
    uint32_t values[D / 16][4], keys[keep_keys<D, FUSED> ? D / 16 : 1][4];
    float factor[2], bias[2]; /* of the logits, base 2 */
};

/* 16 queries: logits again, dV, dS, dK. Given is where the lane's first matrices of the keys lie, and those of Q in
 * both orders; dO is `to_gradients` behind Q. `slopes` is left with dS^T, rounded. */
template <int D, bool FUSED>
static __device__ __forceinline__ void differentiate(key_rows<D, FUSED> &own, uint32_t (&slopes)[4], uint32_t keys,
                                                     uint32_t across, uint32_t down, uint32_t to_gradients,
                                                     const float4 (&row)[2])
{
    float logits[2][4], out_slopes[2][4];
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t loaded[4], b[4];
        if (!keep_keys<D, FUSED>)
            load_matrices(loaded, matrix_column<D>(keys, k));
        const uint32_t(&a)[4] = keep_keys<D, FUSED> ? own.keys[keep_keys<D, FUSED> ? k : 0] : loaded;
        load_matrices(b, matrix_column<D>(across, k));
#pragma unroll
        for (int n = 0; n < 2; n++)
            if (k == 0)
                multiply(logits[n], a, b[2 * n], b[2 * n + 1], own.bias[0], own.bias[0], own.bias[1], own.bias[1]);
            else
                multiply_add(logits[n], a, b[2 * n], b[2 * n + 1]);
    }
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t b[4];
        load_matrices(b, matrix_column<D>(across + to_gradients, k));
#pragma unroll
        for (int n = 0; n < 2; n++)
            if (k == 0)
                multiply(out_slopes[n], own.values[k], b[2 * n], b[2 * n + 1], row[n].z, row[n].w, row[n].z, row[n].w);
            else
                multiply_add(out_slopes[n], own.values[k], b[2 * n], b[2 * n + 1]);
    }
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int c = 0; c < 4; c++) {
            float factor = own.factor[c / 2], minus_logsumexp = c % 2 ? row[n].y : row[n].x;
            float probability = exp2_fast(fmaf(logits[n][c], factor, minus_logsumexp));
            logits[n][c] = probability;
            out_slopes[n][c] *= FUSED ? probability * factor : probability;
        }
    uint32_t probabilities[4];
    as_left_operand(probabilities, logits[0], logits[1]);
    as_left_operand(slopes, out_slopes[0], out_slopes[1]);
#pragma unroll
    for (int j = 0; j < D / 16; j++) {
        uint32_t b[4];
        load_matrices_transposed(b, matrix_column<D>(down + to_gradients, j));
        multiply_add(own.value_gradient[2 * j], probabilities, b[0], b[1]);
        multiply_add(own.value_gradient[2 * j + 1], probabilities, b[2], b[3]);
        load_matrices_transposed(b, matrix_column<D>(down, j));
        multiply_add(own.key_gradient[2 * j], slopes, b[0], b[1]);
        multiply_add(own.key_gradient[2 * j + 1], slopes, b[2], b[3]);
    }
}

/* What the normalisation of a key takes from its gradient: the part along the key. `keys` is the warp's rows; `unit` is
 * the factor of a key of length 1. */
template <int D, bool FUSED>
static __device__ __forceinline__ void remove_along(key_rows<D, FUSED> &own, const uint8_t *keys, float unit,
                                                    lane_position at)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float low[D / 8], high[D / 8], along = 0;
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            uint32_t pair = *reinterpret_cast<const uint32_t *>(keys + at.pair * 4 + rows_of<D>::offset(at.group, j) +
                                                                i * 8 * rows_of<D>::bytes);
            low[j] = __uint_as_float(pair << 16);
            high[j] = __uint_as_float(pair & 0xffff0000u);
            along = fmaf(low[j], own.key_gradient[j][2 * i], along);
            along = fmaf(high[j], own.key_gradient[j][2 * i + 1], along);
        }
        along = row_sum(along);
        float inverse_norm = own.factor[i] / unit;
        /* Where |k| was replaced by the smallest norm, the factor does not depend on k. */
        float share = inverse_norm < 0.99f / SMALLEST_NORM ? -along * inverse_norm * inverse_norm : 0;
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            own.key_gradient[j][2 * i] = fmaf(low[j], share, own.key_gradient[j][2 * i]);
            own.key_gradient[j][2 * i + 1] = fmaf(high[j], share, own.key_gradient[j][2 * i + 1]);
        }
    }
}

/* -logsumexp and -delta of a chunk's queries to shared memory; queries past the end get probability 0. */
static __device__ __forceinline__ void load_rows(float *rows, int queries, const float *logsumexp, const float *delta,
                                                 int first, int tokens)
{
    for (int i = threadIdx.x; i < queries; i += blockDim.x) {
        bool inside = first + i < tokens;
        rows[i / 2 * 4 + i % 2] = inside ? -LOG2_E * logsumexp[first + i] : -INFINITY;
        rows[i / 2 * 4 + 2 + i % 2] = inside ? -delta[first + i] : 0;
    }
}

extern __shared__ __align__(128) uint8_t shared[];

/* Where a thread works. */
template <int D, bool FUSED, int CHUNK> struct keys_place {
    typedef backward_layout<D, FUSED, CHUNK> layout;
    lane_position at;
    int warp, warps, head, image;
    int first_key; /* of the warp */
    int width;     /* elements of a row of dO */
    size_t image_rows, of_head;
    const bfloat16 *query, *out_gradient; /* of the head */
    uint8_t *after_keys, *own_keys;
    uint32_t stages, slopes; /* addresses in shared memory */

    __device__ __forceinline__ keys_place(const attention_operands<bfloat16> &in,
                                          const attention_derivatives<bfloat16> &derivatives)
        : at(lane_of_thread()), warp(threadIdx.x / 32), warps(blockDim.x / 32), head(blockIdx.y), image(blockIdx.z),
          first_key((blockIdx.x * warps + warp) * 16), width(in.heads * D), image_rows((size_t)image * in.tokens),
          of_head(((size_t)image * in.heads + head) * in.tokens), query(in.query + image_rows * in.row + head * D),
          out_gradient(derivatives.out_gradient + image_rows * width + head * D),
          after_keys(shared + warps * layout::own_bytes), own_keys(shared + warp * layout::own_bytes),
          stages(shared_address(after_keys)), slopes(stages + layout::slopes_at)
    {
    }
};

/* Starts the copy of a chunk's queries and dO, by all warps of the block, and copies what else is known of them. */
template <int D, bool FUSED, int CHUNK>
static __device__ __forceinline__ void copy_chunk(int chunk, const attention_operands<bfloat16> &in,
                                                  const attention_derivatives<bfloat16> &derivatives,
                                                  const keys_place<D, FUSED, CHUNK> &place)
{
    typedef backward_layout<D, FUSED, CHUNK> layout;
    uint32_t to = place.stages + chunk % 2 * 2 * layout::rows_bytes;
    for (int tile = place.warp; tile < layout::chunk / 16; tile += place.warps) {
        int first = chunk * layout::chunk + tile * 16, inside = in.tokens - first;
        if (inside <= 0)
            break;
        uint32_t rows = to + tile * layout::own_bytes;
        copy_tile<D>(rows, place.query + first * in.row, in.row, inside, place.at.lane);
        copy_tile<D>(rows + layout::rows_bytes, place.out_gradient + first * place.width, place.width, inside,
                     place.at.lane);
    }
    load_rows(reinterpret_cast<float *>(place.after_keys + layout::rows_at) + chunk % 2 * layout::chunk * 2,
              layout::chunk, derivatives.logsumexp + place.of_head, derivatives.delta + place.of_head,
              chunk * layout::chunk, in.tokens);
}

/* Starts the copy of the warp's keys and values. */
template <int D, bool FUSED, int CHUNK>
static __device__ __forceinline__ void copy_own(uint32_t own_values, const attention_operands<bfloat16> &in,
                                                const keys_place<D, FUSED, CHUNK> &place)
{
    size_t first = place.image_rows + place.first_key;
    int inside = in.tokens - place.first_key, column = place.head * D;
    copy_tile<D>(shared_address(place.own_keys), in.key + first * in.row + column, in.row, inside, place.at.lane);
    copy_tile<D>(own_values, in.value + first * in.value_row + column, in.value_row, inside, place.at.lane);
}

/* The warp's keys and values, which have arrived, to registers; gradients start from 0. */
template <int D, bool FUSED, int CHUNK>
static __device__ __forceinline__ void load_own(key_rows<D, FUSED> &own, uint32_t own_values,
                                                const attention_operands<bfloat16> &in,
                                                const keys_place<D, FUSED, CHUNK> &place)
{
    lane_position at = place.at;
    uint32_t keys = shared_address(place.own_keys) + matrix_offset<D>(DOWN, at.lane);
    float squares[2] = {};
    if (in.normalise_keys) {
        uint32_t rows[D / 16][4];
#pragma unroll
        for (int k = 0; k < D / 16; k++)
            load_matrices(rows[k], matrix_column<D>(keys, k));
        square_norms(squares[0], squares[1], rows, at);
    }
#pragma unroll
    for (int k = 0; keep_keys<D, FUSED> && k < D / 16; k++)
        load_matrices(own.keys[keep_keys<D, FUSED> ? k : 0], matrix_column<D>(keys, k));
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        load_matrices(own.values[k], matrix_column<D>(own_values + matrix_offset<D>(DOWN, at.lane), k));
#pragma unroll
    for (int i = 0; i < 2; i++) {
        own.factor[i] = key_factor(in, squares[i]);
        own.bias[i] = place.first_key + i * 8 + at.group < in.tokens ? 0 : MASKED;
    }
#pragma unroll
    for (int j = 0; j < D / 8; j++)
#pragma unroll
        for (int c = 0; c < 4; c++)
            own.key_gradient[j][c] = own.value_gradient[j][c] = 0;
}

/* A chunk that has arrived, 16 queries at a time; fused, its slopes go to shared memory. */
template <int D, bool FUSED, int CHUNK>
static __device__ __forceinline__ void meet_chunk(key_rows<D, FUSED> &own, int chunk, int tokens,
                                                  const keys_place<D, FUSED, CHUNK> &place)
{
    typedef backward_layout<D, FUSED, CHUNK> layout;
    lane_position at = place.at;
    uint32_t keys = shared_address(place.own_keys) + matrix_offset<D>(DOWN, at.lane);
    uint32_t queries = place.stages + chunk % 2 * 2 * layout::rows_bytes;
    uint32_t across = queries + matrix_offset<D>(ACROSS, at.lane), down = queries + matrix_offset<D>(DOWN, at.lane);
    const float4 *rows =
        reinterpret_cast<const float4 *>(place.after_keys + layout::rows_at) + chunk % 2 * layout::chunk / 2 + at.pair;
    int steps = (unsigned)min(layout::chunk, tokens - chunk * layout::chunk + 15) / 16;
    uint32_t own_slopes = place.slopes + (chunk % 2 * place.warps + place.warp) * layout::slopes_bytes + at.pair * 4 +
                          rows_of<FUSED_CHUNK>::offset(at.group, 0);
#pragma unroll 1
    for (int step = 0; step < steps; step++) {
        float4 row[2] = {rows[0], rows[4]};
        uint32_t dS[4];
        differentiate<D, FUSED>(own, dS, keys, across, down, layout::rows_bytes, row);
        if (FUSED)
            store_slopes(own_slopes, dS);
        across += layout::own_bytes;
        down += layout::own_bytes;
        own_slopes += 32;
        rows += 8;
    }
}

/* dK and dV to memory, by way of the rows of the warp's keys. */
template <int D, bool FUSED, int CHUNK>
static __device__ __forceinline__ void
finish_own(key_rows<D, FUSED> &own, size_t gradient_at, const attention_operands<bfloat16> &in,
           const attention_derivatives<bfloat16> &derivatives, const keys_place<D, FUSED, CHUNK> &place)
{
#pragma unroll
    for (int j = 0; !FUSED && j < D / 8; j++) /* fused, the slopes have been multiplied */
#pragma unroll
        for (int c = 0; c < 4; c++)
            own.key_gradient[j][c] *= own.factor[c / 2];
    if (in.normalise_keys)
        remove_along<D, FUSED>(own, place.own_keys, in.scale * LOG2_E, place.at);
    size_t to = gradient_at + (size_t)place.first_key * derivatives.gradient_row;
    write_gradient<D>(derivatives.key_gradient + to, derivatives.gradient_row, own.key_gradient, LN_2, place.own_keys,
                      in.tokens - place.first_key, place.at);
    write_gradient<D>(derivatives.value_gradient + to, derivatives.gradient_row, own.value_gradient, 1, place.own_keys,
                      in.tokens - place.first_key, place.at);
}

template <int D, bool FUSED, int CHUNK>
__global__ void __launch_bounds__(32 * backward_warps<D, FUSED>)
    attention_backward_keys_tensor(attention_operands<bfloat16> in, attention_derivatives<bfloat16> derivatives)
{
    typedef backward_layout<D, FUSED, CHUNK> layout;
    keys_place<D, FUSED, CHUNK> place(in, derivatives);
    lane_position at = place.at;
    size_t gradient_at = place.image_rows * derivatives.gradient_row + place.head * D;
    uint32_t own_values = place.slopes + place.warp * layout::own_bytes;
    int chunks = (in.tokens + layout::chunk - 1) / layout::chunk;
    copy_own(own_values, in, place);
    copy_commit();
    copy_chunk(0, in, derivatives, place);
    copy_commit();
    copy_wait<1>();
    __syncwarp();

    key_rows<D, FUSED> own;
    load_own(own, own_values, in, place);

    for (int chunk = 0; chunk <= chunks; chunk++) {
        copy_wait<0>();
        __syncthreads();
        if (chunk + 1 < chunks)
            copy_chunk(chunk + 1, in, derivatives, place);
        copy_commit();
        if (FUSED && chunk > 0)
            query_gradients<D>(derivatives.query_gradient + gradient_at, derivatives.gradient_row,
                               place.slopes + (chunk - 1) % 2 * place.warps * layout::slopes_bytes,
                               shared_address(shared), (chunk - 1) * layout::chunk, in.tokens, at);
        if (chunk != chunks && place.first_key < in.tokens)
            meet_chunk(own, chunk, in.tokens, place);
    }

    if (FUSED)
        __syncthreads(); /* the last dQ has been made of all keys: their rows are free */
    finish_own(own, gradient_at, in, derivatives, place);
}

/* ---- launch ---- */

template <int D, bool FUSED, int CHUNK>
static bool launch(struct context *ctx, const attention_operands<bfloat16> *in,
                   const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                   struct error *error)
{
    size_t needed = div_up(shape->tokens, 16);
    size_t warps = div_up(needed, div_up(needed, backward_warps<D, FUSED>));
    dim3 grid(div_up(needed, warps), shape->heads, shape->batch);
    int shared_bytes = backward_layout<D, FUSED, CHUNK>::bytes((int)warps);
    auto kernel = attention_backward_keys_tensor<D, FUSED, CHUNK>;
    if (!CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes), error))
        return false;
    kernel<<<grid, 32 * warps, shared_bytes, ctx->compute>>>(*in, *derivatives);
    return cuda_launched(ctx, "attention_backward_keys_tensor", error);
}

/* Not fused: the larger chunk where the device has shared memory for it. */
template <int D, int WIDE, int NARROW>
static bool launch_long(struct context *ctx, const attention_operands<bfloat16> *in,
                        const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                        struct error *error)
{
    size_t wide_bytes = backward_layout<D, false, WIDE>::bytes(backward_warps<D, false>);
    if (wide_bytes <= ctx->properties.shared_bytes_per_block)
        return launch<D, false, WIDE>(ctx, in, derivatives, shape, error);
    return launch<D, false, NARROW>(ctx, in, derivatives, shape, error);
}

bool attention_backward_keys(struct context *ctx, const attention_operands<bfloat16> *in,
                             const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                             struct error *error)
{
    bool fused = backward_is_fused(ctx, shape);
    switch (shape->head_dim) {
    case 16:
        return (fused ? launch<16, true, FUSED_CHUNK> : launch_long<16, 208, 208>)(ctx, in, derivatives, shape, error);
    case 32:
        return (fused ? launch<32, true, FUSED_CHUNK> : launch_long<32, 208, 208>)(ctx, in, derivatives, shape, error);
    case 64:
        return (fused ? launch<64, true, FUSED_CHUNK> : launch_long<64, 208, 48>)(ctx, in, derivatives, shape, error);
    case 80:
        return launch_long<80, 48, 48>(ctx, in, derivatives, shape, error);
    case 96:
        return launch_long<96, 48, 48>(ctx, in, derivatives, shape, error);
    case 128:
        return launch_long<128, 32, 32>(ctx, in, derivatives, shape, error);
    default:
        return attention_unsupported(shape, error);
    }
}
