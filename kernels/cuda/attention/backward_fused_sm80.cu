/* dQ, dK and dV of attention in bfloat16 from one pass over the logits, for head_dim up to 64.
 *
 * A block takes up to 8 warps x 32 keys of one head; queries and dO pass by in chunks of 64 (32 where shared memory is
 * small). A warp keeps its values and its dK and dV in registers and works on transposed logits, [32 keys, queries]:
 * the probabilities, rounded, are then the left operand of dV += P^T dO as they stand, and likewise dS for dK. Two
 * tiles of 16 keys a warp halve what it reads of Q and dO: shared memory's speed bounds the kernel.
 *
 *   shared memory (W warps; head_dim 64, W = 7: 127 KiB)
 *   +-----------------------+
 *   | keys   [32 W][D]      |  left operand of the logits; right operand of dQ; at the end dK and dV on their way out
 *   | stage 0: Q, dO [64][D]|  a chunk of queries
 *   | stage 1: Q, dO [64][D]|
 *   | O      [64][D]        |  of the next chunk, until its delta is taken (by the warps that copied it, one tile each)
 *   | raw    [64][2]        |  logsumexp, and delta where it is given, of the next chunk as they lie in memory
 *   | rows 0, 1             |  float4 [32]: -logsumexp (base 2) and -delta of two neighbouring queries
 *   | slopes 0, 1           |  dS^T [32 W][64] of this chunk and the last one; before the loop the values pass through
 *   | columns [32 W]        |  factor and bias of the keys' logits
 *   +-----------------------+
 *
 * The transposed slopes of a chunk go to shared memory, and while the next chunk is worked on the block also multiplies
 * them with its keys: dQ of 64 queries is 4 products (D = 16: 2) of 32 queries and D / 2 columns, one a warp. One
 * barrier a chunk. Up to 256 tokens one block has all keys (SINGLE): dQ is complete then. Else the blocks of a head add
 * their parts to float32 sums in memory in the order of their keys, each warp after the same warp of the block before:
 * always the same bits. The last one writes dQ.
 *
 * A key's logits have a factor f (QUEST's 1 / |k|, in base 2), by which dS has to be multiplied for dK and for dQ.
 * Instead the probabilities are made with it, a P with a = f ln 2: the logits start from log2(a) / f, dV is divided by
 * a at the end. What the normalisation of a key takes away, k (k . dK) / |k|^2, is subtracted from dK in registers. dP
 * starts from -delta instead of 0.
 *
 * Cost of a head of N tokens, n = 16 ceil(N / 16), B blocks: 10 n n D tensor FLOP; 8 N D bfloat16 where B is 1, else
 * (5 + 2 B) N D bfloat16 and 2 (B - 1) N D float32. Blocks a multiprocessor at head_dim 64, 7 warps: one on sm_80 and
 * sm_90 (up to 255 registers). */
#include "kernels/cuda/attention/backward_fused_queries_sm80.cuh"

/* ---- a chunk meets the keys ---- */

/* Probabilities of TILES tiles of keys and 16 queries, times a; given is where the lane's first matrices of keys and Q
 * lie. */
template <int D, int TILES>
static __device__ __forceinline__ void take_probabilities(float (&probabilities)[TILES][2][4], const float2 *columns,
                                                          uint32_t keys, uint32_t across, const float4 *rows)
{
    float2 column[TILES][2];
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            column[t][i] = columns[t * 16 + i * 8];
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[TILES][4], b[4];
        load_matrices(b, matrix_column<D>(across, k));
        load_matrices(a[0], matrix_column<D>(keys, k));
        if (TILES == 2)
            load_matrices_at<16 * rows_of<D>::bytes>(a[TILES - 1], matrix_column<D>(keys, k));
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int n = 0; n < 2; n++)
                if (k == 0)
                    multiply(probabilities[t][n], a[t], b[2 * n], b[2 * n + 1], column[t][0].y, column[t][0].y,
                             column[t][1].y, column[t][1].y);
                else
                    multiply_add(probabilities[t][n], a[t], b[2 * n], b[2 * n + 1]);
    }
#pragma unroll
    for (int n = 0; n < 2; n++) {
        float even = rows[4 * n].x, odd = rows[4 * n].y;
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                probabilities[t][n][c] =
                    exp2_fast(fmaf(probabilities[t][n][c], column[t][c / 2].x, c % 2 ? odd : even));
    }
}

/* dP - delta; dO lies `TO_GRADIENTS` behind `across`. */
template <int D, int TILES, int TO_GRADIENTS>
static __device__ __forceinline__ void take_slopes(float (&slopes)[TILES][2][4], const fused_keys<D> &own,
                                                   uint32_t across, const float4 *rows)
{
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t b[4];
        load_matrices_at<TO_GRADIENTS>(b, matrix_column<D>(across, k));
#pragma unroll
        for (int n = 0; n < 2; n++) {
            float even = rows[4 * n].z, odd = rows[4 * n].w;
#pragma unroll
            for (int t = 0; t < TILES; t++)
                if (k == 0)
                    multiply(slopes[t][n], own.values[t][k], b[2 * n], b[2 * n + 1], even, odd, even, odd);
                else
                    multiply_add(slopes[t][n], own.values[t][k], b[2 * n], b[2 * n + 1]);
        }
    }
}

/* dS^T of 16 keys and 16 queries, as C fragments, to the rows of a warp; `to` is the lane's first word. */
template <int CHUNK, int OFFSET>
static __device__ __forceinline__ void store_slopes(uint32_t to, const uint32_t (&slopes)[4])
{
    constexpr int eight_rows = 8 * rows_of<CHUNK>::bytes;
    asm volatile("st.shared.b32 [%0 + %6], %2; st.shared.b32 [%0 + %7], %3; st.shared.b32 [%1 + %6], %4; "
                 "st.shared.b32 [%1 + %7], %5;" ::"r"(to),
                 "r"(to ^ 16), "r"(slopes[0]), "r"(slopes[1]), "r"(slopes[2]), "r"(slopes[3]), "n"(OFFSET),
                 "n"(OFFSET + eight_rows)
                 : "memory");
}

/* 16 queries: logits again, dV, dS, dK. `slopes` is left with dS^T, rounded. */
template <int D, int TILES, int TO_GRADIENTS>
static __device__ __forceinline__ void differentiate(fused_keys<D> &own, uint32_t (&slopes)[TILES][4],
                                                     const float2 *columns, uint32_t keys, uint32_t across,
                                                     uint32_t down, const float4 *rows)
{
    float wide[TILES][2][4], wide_slopes[TILES][2][4];
    uint32_t probabilities[TILES][4];
    take_probabilities<D, TILES>(wide, columns, keys, across, rows);
    __syncwarp(); /* keeps the compiler from loading too much too early, for want of registers */
    take_slopes<D, TILES, TO_GRADIENTS>(wide_slopes, own, across, rows);
#pragma unroll
    for (int t = 0; t < TILES; t++) {
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                wide_slopes[t][n][c] *= wide[t][n][c];
        as_left_operand(probabilities[t], wide[t][0], wide[t][1]);
        as_left_operand(slopes[t], wide_slopes[t][0], wide_slopes[t][1]);
    }
#pragma unroll
    for (int j = 0; j < D / 16; j++) {
        uint32_t b[4];
        load_matrices_transposed_at<TO_GRADIENTS>(b, matrix_column<D>(down, j));
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            multiply_add(own.value_gradient[t][2 * j], probabilities[t], b[0], b[1]);
            multiply_add(own.value_gradient[t][2 * j + 1], probabilities[t], b[2], b[3]);
        }
        load_matrices_transposed_at<0>(b, matrix_column<D>(down, j));
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            multiply_add(own.key_gradient[t][2 * j], slopes[t], b[0], b[1]);
            multiply_add(own.key_gradient[t][2 * j + 1], slopes[t], b[2], b[3]);
        }
    }
}

/* A chunk that has arrived, 16 queries at a time; its slopes go to shared memory. */
template <int D, int CHUNK, bool SINGLE, int TILES>
static __device__ __forceinline__ void meet_chunk(fused_keys<D> &own, int chunk, int tokens)
{
    fused_place<D, CHUNK, SINGLE> place;
    typedef fused_layout<D, CHUNK> layout;
    lane_position at = place.at;
    uint32_t keys = shared_address(place.own_keys()) + matrix_offset<D>(DOWN, at.lane);
    uint32_t queries = place.stages + chunk % 2 * 2 * layout::rows_bytes;
    uint32_t across = queries + matrix_offset<D>(ACROSS, at.lane), down = queries + matrix_offset<D>(DOWN, at.lane);
    const float4 *rows = reinterpret_cast<const float4 *>(place.rows(chunk)) + at.pair;
    const float2 *columns = place.own_columns() + at.group;
    uint32_t to = place.slopes(chunk) + place.warp * layout::slopes_bytes + at.pair * 4;
    int steps = (unsigned)min(CHUNK, tokens - chunk * CHUNK + 15) / 16;
#pragma unroll 1
    for (int step = 0; step < steps; step++) {
        uint32_t slopes[TILES][4];
        asm volatile("" : "+r"(keys)); /* its columns are found anew, for want of registers */
        differentiate<D, TILES, layout::rows_bytes>(own, slopes, columns, keys, across, down, rows);
        uint32_t own_slopes = to + rows_of<CHUNK>::offset(at.group, 2 * step);
        store_slopes<CHUNK, 0>(own_slopes, slopes[0]);
        if (TILES == 2)
            store_slopes<CHUNK, 16 * rows_of<CHUNK>::bytes>(own_slopes, slopes[TILES - 1]);
        across += layout::tile_bytes;
        down += layout::tile_bytes;
        rows += 8;
    }
}

/* dK and dV of a tile of the warp to memory, by way of the rows of its keys. */
template <int HEAD_DIM, int CHUNK, bool SINGLE>
static __device__ __forceinline__ void finish_tile(fused_keys<padded<HEAD_DIM>> &own, int t,
                                                   const attention_operands<bfloat16> &in,
                                                   const attention_derivatives<bfloat16> &derivatives)
{
    constexpr int D = padded<HEAD_DIM>;
    fused_place<D, CHUNK, SINGLE> place;
    uint8_t *keys = place.own_keys() + t * fused_layout<D, CHUNK>::tile_bytes;
    int first = place.first_key + t * 16, inside = in.tokens - first, stride = derivatives.gradient_row;
    uint32_t to = (place.image() * in.tokens + first) * stride + place.head() * HEAD_DIM;
    const float2 *columns = place.own_columns() + t * 16 + place.at.group;
    float factors[2] = {columns[0].x, columns[8].x};
    if (in.normalise_keys)
        remove_along<D>(own.key_gradient[t], factors, keys, in.scale * LOG2_E, place.at);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float factor = factors[i], whole = factor == 0 ? 1 : __fdividef(1 / LN_2, factor);
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            own.value_gradient[t][j][2 * i] *= whole;
            own.value_gradient[t][j][2 * i + 1] *= whole;
            if (factor == 0)
                own.key_gradient[t][j][2 * i] = own.key_gradient[t][j][2 * i + 1] = 0;
        }
    }
    write_gradient<HEAD_DIM>(derivatives.key_gradient + to, stride, own.key_gradient[t], 1, keys, inside, place.at);
    write_gradient<HEAD_DIM>(derivatives.value_gradient + to, stride, own.value_gradient[t], 1, keys, inside, place.at);
}

template <int HEAD_DIM, int CHUNK, bool SINGLE>
__global__ void __launch_bounds__(32 * FUSED_WARPS)
    attention_backward_fused_tensor(attention_operands<bfloat16> in, attention_derivatives<bfloat16> derivatives)
{
    constexpr int D = padded<HEAD_DIM>;
    typedef fused_layout<D, CHUNK> layout;
    if (!SINGLE)
        take_part(derivatives.turns);
    fused_place<D, CHUNK, SINGLE> place;
    int chunks = (in.tokens + CHUNK - 1) / CHUNK;
    uint32_t own_values = place.slopes(0) + place.warp * layout::own_bytes;
    copy_own<HEAD_DIM, CHUNK, SINGLE>(own_values, in);
    copy_commit();
    copy_chunk<HEAD_DIM, CHUNK, SINGLE>(0, in, derivatives);
    copy_commit();
    copy_wait<1>();
    __syncwarp();

    fused_keys<D> own;
    load_own<D, CHUNK, SINGLE>(own, own_values, in);

    for (int chunk = 0; chunk <= chunks; chunk++) {
        copy_wait<0>();
        __syncwarp();
        if (chunk < chunks)
            take_rows<D, CHUNK, SINGLE>(chunk, in.tokens);
        __syncthreads();
        if (chunk + 1 < chunks)
            copy_chunk<HEAD_DIM, CHUNK, SINGLE>(chunk + 1, in, derivatives);
        copy_commit();
        if (chunk > 0)
            query_gradients<HEAD_DIM, CHUNK, SINGLE>(chunk - 1, in, derivatives);
        if (chunk == chunks || place.first_key >= in.tokens)
            continue;
        if (place.first_key + 16 < in.tokens)
            meet_chunk<D, CHUNK, SINGLE, 2>(own, chunk, in.tokens);
        else
            meet_chunk<D, CHUNK, SINGLE, 1>(own, chunk, in.tokens);
    }
    __syncthreads(); /* the last dQ has been made of all keys: their rows are free */
#pragma unroll
    for (int t = 0; t < KEY_TILES; t++)
        if (place.first_key + t * 16 < in.tokens)
            finish_tile<HEAD_DIM, CHUNK, SINGLE>(own, t, in, derivatives);
}

/* ---- launch ---- */

template <int HEAD_DIM, int CHUNK, bool SINGLE>
static bool launch(struct context *ctx, const attention_operands<bfloat16> *in,
                   const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                   struct error *error)
{
    int warps = (int)fused_warps(shape->tokens), shared_bytes = fused_layout<padded<HEAD_DIM>, CHUNK>::bytes(warps);
    dim3 grid(fused_blocks(shape->tokens), shape->heads, shape->batch);
    auto kernel = attention_backward_fused_tensor<HEAD_DIM, CHUNK, SINGLE>;
    if (!CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes), error))
        return false;
    kernel<<<grid, 32 * warps, shared_bytes, ctx->compute>>>(*in, *derivatives);
    return cuda_launched(ctx, "attention_backward_fused_tensor", error);
}

/* sm_86, 89 and 120 have 99 KiB of shared memory a block. */
template <int HEAD_DIM>
static bool launch_fitting(struct context *ctx, const attention_operands<bfloat16> *in,
                           const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                           struct error *error)
{
    constexpr int D = padded<HEAD_DIM>;
    bool single = fused_blocks(shape->tokens) == 1;
    if (D > 16 && (size_t)fused_layout<D, 64>::bytes(FUSED_WARPS) > ctx->properties.shared_bytes_per_block)
        return (single ? launch<HEAD_DIM, 32, true> : launch<HEAD_DIM, 32, false>)(ctx, in, derivatives, shape, error);
    return (single ? launch<HEAD_DIM, 64, true> : launch<HEAD_DIM, 64, false>)(ctx, in, derivatives, shape, error);
}

bool attention_backward_fused(struct context *ctx, const attention_operands<bfloat16> *in,
                              const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                              struct error *error)
{
    return with_head_dim<8, 64>(shape->head_dim, [&](auto head_dim) {
        return launch_fitting<decltype(head_dim)::value>(ctx, in, derivatives, shape, error);
    });
}
