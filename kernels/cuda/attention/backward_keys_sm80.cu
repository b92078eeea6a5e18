/* dK and dV of attention in bfloat16 for head_dim above 64; backward_queries_sm80.cu makes dQ.
 *
 * A block takes up to 8 warps x 16 keys of one head; queries and dO pass by in chunks of 48 or 32, as shared memory has
 * room. A warp keeps its values and its dK and dV in registers and works on transposed logits, [16 keys, queries]: the
 * probabilities, rounded, are then the left operand of dV += P^T dO as they stand, and likewise dS for dK.
 *
 *   shared memory (W warps)
 *   +--------------------------+
 *   | keys   [16 W][D]         |  left operand of the logits; at the end dK and dV on their way out
 *   | stage 0: Q, dO [CHUNK][D]|  a chunk of queries
 *   | stage 1: Q, dO [CHUNK][D]|
 *   | rows 0, 1                |  float4 [CHUNK / 2]: -logsumexp (base 2) and -delta of two neighbouring queries
 *   | values [16 W][D]         |  on their way to registers
 *   +--------------------------+
 *
 * One barrier a chunk. The factor of a key's logits (QUEST's 1 / |k|) multiplies its row of S and, at the end, of dK;
 * what its normalisation takes away, k (k . dK) / |k|^2, is subtracted from dK in registers. dP starts from -delta
 * instead of 0.
 *
 * Cost of a head of N tokens, n = 16 ceil(N / 16): 8 n n D tensor FLOP; 6 N D * 2 bytes, Q and dO again for every
 * further block of keys. */
#include "kernels/cuda/attention/backward_sm80.cuh"

constexpr int KEY_WARPS = 8; /* 255 registers a thread */

/* CHUNK queries pass at a time. */
template <int D, int CHUNK> struct backward_layout {
    static constexpr int chunk = CHUNK;
    static constexpr int rows_bytes = chunk * rows_of<D>::bytes; /* of Q or dO of a chunk */
    static constexpr int own_bytes = 16 * rows_of<D>::bytes;     /* of the keys of a warp */
    static constexpr int rows_at = 4 * rows_bytes;               /* all after the keys */
    static constexpr int values_at = rows_at + 2 * chunk * 8;

    static __host__ __device__ constexpr int bytes(int warps)
    {
        return 2 * warps * own_bytes + values_at;
    }
};

/* Whether registers have room for the keys as fragments. */
template <int D> constexpr bool keep_keys = D <= 96;

/* A warp's keys: the low half of everything belongs to row `group`, the high half to row group + 8. */
template <int D> struct key_rows {
    float key_gradient[D / 8][4], value_gradient[D / 8][4];
    uint32_t values[D / 16][4], keys[keep_keys<D> ? D / 16 : 1][4];
    float factor[2], bias[2]; /* of the logits, base 2 */
};

/* 16 queries: logits again, dV, dS, dK. Given is where the lane's first matrices of the keys lie, and those of Q in
 * both orders; dO is `to_gradients` behind Q. */
template <int D>
static __device__ __forceinline__ void differentiate(key_rows<D> &own, uint32_t keys, uint32_t across, uint32_t down,
                                                     uint32_t to_gradients, const float4 (&row)[2])
{
    float logits[2][4], out_slopes[2][4];
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t loaded[4], b[4];
        if (!keep_keys<D>)
            load_matrices(loaded, matrix_column<D>(keys, k));
        const uint32_t(&a)[4] = keep_keys<D> ? own.keys[keep_keys<D> ? k : 0] : loaded;
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
            out_slopes[n][c] *= probability;
        }
    uint32_t probabilities[4], slopes[4];
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
template <int HEAD_DIM, int CHUNK> struct keys_place {
    typedef backward_layout<padded<HEAD_DIM>, CHUNK> layout;
    lane_position at;
    int warp, warps, head, image;
    int first_key; /* of the warp */
    int width;     /* elements of a row of dO */
    size_t image_rows, of_head;
    const bfloat16 *query, *out_gradient; /* of the head */
    uint8_t *after_keys, *own_keys;
    uint32_t stages, own_values; /* addresses in shared memory */

    __device__ __forceinline__ keys_place(const attention_operands<bfloat16> &in,
                                          const attention_derivatives<bfloat16> &derivatives)
        : at(lane_of_thread()), warp(threadIdx.x / 32), warps(blockDim.x / 32), head(blockIdx.y), image(blockIdx.z),
          first_key((blockIdx.x * warps + warp) * 16), width(in.heads * HEAD_DIM),
          image_rows((size_t)image * in.tokens), of_head(((size_t)image * in.heads + head) * in.tokens),
          query(in.query + image_rows * in.row + head * HEAD_DIM),
          out_gradient(derivatives.out_gradient + image_rows * width + head * HEAD_DIM),
          after_keys(shared + warps * layout::own_bytes), own_keys(shared + warp * layout::own_bytes),
          stages(shared_address(after_keys)), own_values(stages + layout::values_at + warp * layout::own_bytes)
    {
    }
};

/* Starts the copy of a chunk's queries and dO, by all warps of the block, and copies what else is known of them. */
template <int HEAD_DIM, int CHUNK>
static __device__ __forceinline__ void copy_chunk(int chunk, const attention_operands<bfloat16> &in,
                                                  const attention_derivatives<bfloat16> &derivatives,
                                                  const keys_place<HEAD_DIM, CHUNK> &place)
{
    typedef backward_layout<padded<HEAD_DIM>, CHUNK> layout;
    uint32_t to = place.stages + chunk % 2 * 2 * layout::rows_bytes;
    for (int tile = place.warp; tile < layout::chunk / 16; tile += place.warps) {
        int first = chunk * layout::chunk + tile * 16, inside = in.tokens - first;
        if (inside <= 0)
            break;
        uint32_t rows = to + tile * layout::own_bytes;
        copy_tile<HEAD_DIM>(rows, place.query + first * in.row, in.row, inside, place.at.lane);
        copy_tile<HEAD_DIM>(rows + layout::rows_bytes, place.out_gradient + first * place.width, place.width, inside,
                            place.at.lane);
    }
    load_rows(reinterpret_cast<float *>(place.after_keys + layout::rows_at) + chunk % 2 * layout::chunk * 2,
              layout::chunk, derivatives.logsumexp + place.of_head, derivatives.delta + place.of_head,
              chunk * layout::chunk, in.tokens);
}

/* Starts the copy of the warp's keys and values. */
template <int HEAD_DIM, int CHUNK>
static __device__ __forceinline__ void copy_own(const attention_operands<bfloat16> &in,
                                                const keys_place<HEAD_DIM, CHUNK> &place)
{
    size_t first = place.image_rows + place.first_key;
    int inside = in.tokens - place.first_key, column = place.head * HEAD_DIM;
    copy_tile<HEAD_DIM>(shared_address(place.own_keys), in.key + first * in.row + column, in.row, inside,
                        place.at.lane);
    copy_tile<HEAD_DIM>(place.own_values, in.value + first * in.value_row + column, in.value_row, inside,
                        place.at.lane);
}

/* The warp's keys and values, which have arrived, to registers; gradients start from 0. */
template <int HEAD_DIM, int CHUNK>
static __device__ __forceinline__ void load_own(key_rows<padded<HEAD_DIM>> &own, const attention_operands<bfloat16> &in,
                                                const keys_place<HEAD_DIM, CHUNK> &place)
{
    constexpr int D = padded<HEAD_DIM>;
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
    for (int k = 0; keep_keys<D> && k < D / 16; k++)
        load_matrices(own.keys[keep_keys<D> ? k : 0], matrix_column<D>(keys, k));
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        load_matrices(own.values[k], matrix_column<D>(place.own_values + matrix_offset<D>(DOWN, at.lane), k));
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

/* A chunk that has arrived, 16 queries at a time. */
template <int HEAD_DIM, int CHUNK>
static __device__ __forceinline__ void meet_chunk(key_rows<padded<HEAD_DIM>> &own, int chunk, int tokens,
                                                  const keys_place<HEAD_DIM, CHUNK> &place)
{
    constexpr int D = padded<HEAD_DIM>;
    typedef backward_layout<D, CHUNK> layout;
    lane_position at = place.at;
    uint32_t keys = shared_address(place.own_keys) + matrix_offset<D>(DOWN, at.lane);
    uint32_t queries = place.stages + chunk % 2 * 2 * layout::rows_bytes;
    uint32_t across = queries + matrix_offset<D>(ACROSS, at.lane), down = queries + matrix_offset<D>(DOWN, at.lane);
    const float4 *rows =
        reinterpret_cast<const float4 *>(place.after_keys + layout::rows_at) + chunk % 2 * layout::chunk / 2 + at.pair;
    int steps = (unsigned)min(layout::chunk, tokens - chunk * layout::chunk + 15) / 16;
#pragma unroll 1
    for (int step = 0; step < steps; step++) {
        float4 row[2] = {rows[0], rows[4]};
        differentiate<D>(own, keys, across, down, layout::rows_bytes, row);
        across += layout::own_bytes;
        down += layout::own_bytes;
        rows += 8;
    }
}

/* dK and dV to memory, by way of the rows of the warp's keys. */
template <int HEAD_DIM, int CHUNK>
static __device__ __forceinline__ void
finish_own(key_rows<padded<HEAD_DIM>> &own, size_t gradient_at, const attention_operands<bfloat16> &in,
           const attention_derivatives<bfloat16> &derivatives, const keys_place<HEAD_DIM, CHUNK> &place)
{
    constexpr int D = padded<HEAD_DIM>;
#pragma unroll
    for (int j = 0; j < D / 8; j++)
#pragma unroll
        for (int c = 0; c < 4; c++)
            own.key_gradient[j][c] *= own.factor[c / 2];
    if (in.normalise_keys)
        remove_along<D>(own.key_gradient, own.factor, place.own_keys, in.scale * LOG2_E, place.at);
    size_t to = gradient_at + (size_t)place.first_key * derivatives.gradient_row;
    write_gradient<HEAD_DIM>(derivatives.key_gradient + to, derivatives.gradient_row, own.key_gradient, LN_2,
                             place.own_keys, in.tokens - place.first_key, place.at);
    write_gradient<HEAD_DIM>(derivatives.value_gradient + to, derivatives.gradient_row, own.value_gradient, 1,
                             place.own_keys, in.tokens - place.first_key, place.at);
}

template <int HEAD_DIM, int CHUNK>
__global__ void __launch_bounds__(32 * KEY_WARPS)
    attention_backward_keys_tensor(attention_operands<bfloat16> in, attention_derivatives<bfloat16> derivatives)
{
    constexpr int D = padded<HEAD_DIM>;
    typedef backward_layout<D, CHUNK> layout;
    keys_place<HEAD_DIM, CHUNK> place(in, derivatives);
    lane_position at = place.at;
    size_t gradient_at = place.image_rows * derivatives.gradient_row + place.head * HEAD_DIM;
    int chunks = (in.tokens + layout::chunk - 1) / layout::chunk;
    copy_own(in, place);
    copy_commit();
    copy_chunk(0, in, derivatives, place);
    copy_commit();
    copy_wait<1>();
    __syncwarp();

    key_rows<D> own;
    load_own(own, in, place);

    for (int chunk = 0; chunk < chunks; chunk++) {
        copy_wait<0>();
        __syncthreads();
        if (chunk + 1 < chunks)
            copy_chunk(chunk + 1, in, derivatives, place);
        copy_commit();
        if (place.first_key < in.tokens)
            meet_chunk(own, chunk, in.tokens, place);
    }
    finish_own(own, gradient_at, in, derivatives, place);
}

/* ---- launch ---- */

template <int HEAD_DIM, int CHUNK>
static bool launch(struct context *ctx, const attention_operands<bfloat16> *in,
                   const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                   struct error *error)
{
    size_t needed = div_up(shape->tokens, 16);
    size_t warps = div_up(needed, div_up(needed, KEY_WARPS));
    dim3 grid(div_up(needed, warps), shape->heads, shape->batch);
    int shared_bytes = backward_layout<padded<HEAD_DIM>, CHUNK>::bytes((int)warps);
    auto kernel = attention_backward_keys_tensor<HEAD_DIM, CHUNK>;
    if (!CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes), error))
        return false;
    kernel<<<grid, 32 * warps, shared_bytes, ctx->compute>>>(*in, *derivatives);
    return cuda_launched(ctx, "attention_backward_keys_tensor", error);
}

bool attention_backward_keys(struct context *ctx, const attention_operands<bfloat16> *in,
                             const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                             struct error *error)
{
    return with_head_dim<72>(shape->head_dim, [&](auto head_dim) {
        constexpr int HEAD_DIM = decltype(head_dim)::value;
        return launch < HEAD_DIM, HEAD_DIM <= 96 ? 48 : 32 > (ctx, in, derivatives, shape, error);
    });
}
