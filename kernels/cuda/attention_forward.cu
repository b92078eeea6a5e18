/* Attention forward in bfloat16: softmax(logits) V without a matrix of logits in memory.
 *
 * A block takes one head of one image and up to 9 warps x 32 queries (16 where head_dim is 128): all of them up to 288
 * tokens, so that K and V are read once. A warp keeps its queries and its part of the output in registers; keys and
 * values pass by in chunks through a ring of three stages in shared memory, and every warp meets every chunk.
 *
 *   shared memory          one stage (head_dim 64: 16 KiB)
 *   +--------------------+    +----------------------------+  CHUNK keys: 64, or 32 where head_dim > 64
 *   | stage 0            |    | keys   [CHUNK][head_dim]   |
 *   | stage 1            |    | values [CHUNK][head_dim]   |
 *   | stage 2            |    +----------------------------+
 *   | columns 0, 1, 2    |  float4 [CHUNK / 2]: factor and bias of two neighbouring keys
 *   | queries            |  [32 a warp][head_dim]: Q on its way to registers, at the end O on its way out
 *   | kept               |  with statistics: 32 bytes a thread, for which registers have no room
 *   +--------------------+
 *
 * While chunk i is multiplied, chunk i + 2 is copied and the key norms of chunk i + 1 are taken (by one warp for each
 * 16 keys): one barrier a chunk. A logit is (q.k + bias) * factor in float32, base 2: QUEST's normalisation is the
 * factor, log2(e) / |k|, and the end of the sequence is the bias, -1e30, with which the product starts; neither costs
 * an instruction that standard attention does not have.
 *
 * The running maximum is lazy: exponentials are taken relative to `reference`, which moves (with the rescaling of the
 * output that this needs) only where a logit passes it by 2^8; sums and outputs have ample range in float32.
 *
 * Cost of a head with N tokens, d = head_dim, n = 16 ceil(N / 16): 4 n n d tensor FLOP; (4 N d) * 2 + 4 N bytes up to
 * 288 tokens, K and V once more for every further 288 queries.
 * Occupancy at head_dim 64, 197 tokens: 7 warps, 168 registers a thread, 77.5 KiB: one block a multiprocessor on sm_80
 * and sm_90 (registers: 7 warps take 37,632 of 65,536). */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_chunks.cuh"

constexpr float REFERENCE_SLACK = 8.0f, SAFE_EXPONENT = 60.0f;

/* 8 warps leave 255 registers a thread, 9 leave 168: enough without statistics, and all of 257 tokens. */
template <int D, bool STATISTICS> constexpr int forward_warps = D > 64 || STATISTICS ? 8 : 9;

template <int D> struct forward_layout {
    static constexpr int tiles = D > 96 ? 1 : 2; /* of 16 queries, a warp */
    static constexpr int chunk = D > 64 ? 32 : 64;
    typedef key_ring<D, chunk> ring;
    static constexpr int queries_at = ring::bytes;
    static constexpr int warp_bytes = tiles * 16 * rows_of<D>::bytes;
};

/* The rows of a warp: tile t, half i is query 16 t + 8 i + group. */
template <int D> struct forward_rows {
    float out[forward_layout<D>::tiles][D / 8][4];
    float reference[forward_layout<D>::tiles][2]; /* of the exponentials, base 2 */
    float top[forward_layout<D>::tiles][2];       /* with statistics: largest logit that this lane has seen, base 2 */
    float sum[forward_layout<D>::tiles][2];       /* this lane's part of the sum of exponentials */
    float entropy[forward_layout<D>::tiles][2];   /* this lane's part of the sum of exponential * logit */
};

/* With normalised keys no logit is larger than scale * |q|: where that is little for all of a warp's queries,
 * exponentials are taken as they are, and need neither a maximum nor a reference. `squares` are |q|^2. */
template <int TILES>
static __device__ __forceinline__ bool logits_are_bounded(const float (&squares)[TILES][2],
                                                          const attention_operands<bfloat16> &in)
{
    constexpr float largest = SAFE_EXPONENT / LOG2_E;
    float square = 0;
#pragma unroll
    for (int t = 0; t < TILES; t++)
        square = fmaxf(square, fmaxf(squares[t][0], squares[t][1]));
    return in.normalise_keys && __all_sync(0xffffffffu, square * (in.scale * in.scale) <= largest * largest);
}

/* Moves every row's reference up to the largest logit of these 16 keys, `tops` of all lanes, where that is larger. */
template <int D, int TILES>
static __device__ __forceinline__ void move_references(forward_rows<D> &rows, const float (&tops)[TILES][2])
{
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float reference = fmaxf(rows.reference[t][i], row_max(tops[t][i]));
            float shrink = exp2_fast(rows.reference[t][i] - reference);
            rows.reference[t][i] = reference;
            rows.sum[t][i] *= shrink;
            rows.entropy[t][i] *= shrink;
#pragma unroll
            for (int j = 0; j < D / 8; j++) {
                rows.out[t][j][2 * i] *= shrink;
                rows.out[t][j][2 * i + 1] *= shrink;
            }
        }
}

template <int D, int TILES>
static __device__ __forceinline__ bool far_above_reference(const forward_rows<D> &rows, const float (&tops)[TILES][2])
{
    bool far = false;
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            far |= tops[t][i] > rows.reference[t][i] + REFERENCE_SLACK;
    return __any_sync(0xffffffffu, far);
}

/* Products of the queries with 16 keys to logits, base 2, to exponentials. */
template <int D, int TILES, bool BOUNDED, bool STATISTICS>
static __device__ __forceinline__ void exponentiate(float (&logits)[TILES][2][4], const float4 (&column)[2],
                                                    forward_rows<D> &rows)
{
    float tops[TILES][2]; /* of these keys; with statistics of all so far, which serves as well */
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            tops[t][i] = STATISTICS ? rows.top[t][i] : MASKED;
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                logits[t][n][c] *= c % 2 ? column[n].y : column[n].x;
                if (!BOUNDED || STATISTICS)
                    tops[t][c / 2] = fmaxf(tops[t][c / 2], logits[t][n][c]);
            }
#pragma unroll
    for (int t = 0; STATISTICS && t < TILES; t++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            rows.top[t][i] = tops[t][i];
    if (!BOUNDED && far_above_reference<D, TILES>(rows, tops))
        move_references<D, TILES>(rows, tops);
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                float exponential = exp2_fast(BOUNDED ? logits[t][n][c] : logits[t][n][c] - rows.reference[t][c / 2]);
                rows.sum[t][c / 2] += exponential;
                if (STATISTICS)
                    rows.entropy[t][c / 2] += exponential * logits[t][n][c];
                logits[t][n][c] = exponential;
            }
}

/* 16 keys and values, given where the lane's first matrices lie, meet the first TILES tiles of a warp's queries. */
template <int D, int TILES, bool BOUNDED, bool STATISTICS>
static __device__ __forceinline__ void attend(forward_rows<D> &rows,
                                              const uint32_t (&queries)[forward_layout<D>::tiles][D / 16][4],
                                              uint32_t keys, uint32_t values, const float4 (&column)[2])
{
    float logits[TILES][2][4];
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t b[4];
        load_matrices(b, matrix_column<D>(keys, k));
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int n = 0; n < 2; n++)
                if (k == 0)
                    multiply(logits[t][n], queries[t][k], b[2 * n], b[2 * n + 1], column[n].z, column[n].w, column[n].z,
                             column[n].w);
                else
                    multiply_add(logits[t][n], queries[t][k], b[2 * n], b[2 * n + 1]);
    }
    exponentiate<D, TILES, BOUNDED, STATISTICS>(logits, column, rows);
    uint32_t exponentials[TILES][4];
#pragma unroll
    for (int t = 0; t < TILES; t++)
        as_left_operand(exponentials[t], logits[t][0], logits[t][1]);
#pragma unroll
    for (int j = 0; j < D / 16; j++) {
        uint32_t b[4];
        load_matrices_transposed(b, matrix_column<D>(values, j));
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            multiply_add(rows.out[t][2 * j], exponentials[t], b[0], b[1]);
            multiply_add(rows.out[t][2 * j + 1], exponentials[t], b[2], b[3]);
        }
    }
}

/* The same for all keys of a chunk, 16 at a time. */
template <int D, int TILES, bool BOUNDED, bool STATISTICS>
static __device__ __forceinline__ void attend_chunk(forward_rows<D> &rows,
                                                    const uint32_t (&queries)[forward_layout<D>::tiles][D / 16][4],
                                                    uint32_t keys, const float4 *columns, int steps, int lane)
{
    uint32_t values = keys + forward_layout<D>::ring::chunk_bytes + matrix_offset<D>(DOWN, lane);
    keys += matrix_offset<D>(ACROSS, lane);
#pragma unroll 1
    for (int step = 0; step < steps; step++) {
        float4 column[2] = {columns[0], columns[4]};
        attend<D, TILES, BOUNDED, STATISTICS>(rows, queries, keys, values, column);
        keys += 16 * rows_of<D>::bytes;
        values += 16 * rows_of<D>::bytes;
        columns += 8;
    }
}

template <int D, bool STATISTICS>
__global__ void __launch_bounds__(32 * forward_warps<D, STATISTICS>)
    attention_forward_tensor(bfloat16 *out, float *logsumexp, attention_record *records,
                             attention_operands<bfloat16> in)
{
    typedef forward_layout<D> layout;
    extern __shared__ __align__(128) uint8_t shared[];
    lane_position at = lane_of_thread();
    int warp = threadIdx.x / 32, warps = blockDim.x / 32, head = blockIdx.y, image = blockIdx.z;
    int warp_queries = layout::tiles * 16, first_query = (blockIdx.x * warps + warp) * warp_queries;
    size_t image_rows = (size_t)image * in.tokens;
    const bfloat16 *query = in.query + image_rows * in.row + head * D;
    typename layout::ring ring(in, shared, image, head);
    uint32_t own = shared_address(shared) + layout::queries_at + warp * layout::warp_bytes;
    int chunks = (in.tokens + layout::chunk - 1) / layout::chunk;
#pragma unroll
    for (int t = 0; t < layout::tiles; t++)
        copy_tile<D>(own + t * 16 * rows_of<D>::bytes, query + (size_t)(first_query + t * 16) * in.row, in.row,
                     in.tokens - first_query - t * 16, at.lane);
    ring.copy(0, in, at.lane);
    copy_commit();
    if (chunks > 1)
        ring.copy(1, in, at.lane);
    copy_commit();
    copy_wait<1>();
    __syncthreads();

    uint32_t queries[layout::tiles][D / 16][4];
#pragma unroll
    for (int t = 0; t < layout::tiles; t++)
#pragma unroll
        for (int k = 0; k < D / 16; k++)
            load_matrices(queries[t][k],
                          matrix_column<D>(own + matrix_offset<D>(DOWN, at.lane), k) + t * 16 * rows_of<D>::bytes);

    /* Of each thread, where registers have no room for them: norms of the keys that it has seen, |q|^2 of its rows. */
    norm_summary *kept_norms =
        reinterpret_cast<norm_summary *>(shared + layout::queries_at + warps * layout::warp_bytes) + threadIdx.x;
    float4 *kept_squares = reinterpret_cast<float4 *>(kept_norms + blockDim.x);
    if (STATISTICS)
        *kept_norms = norm_summary();
    auto take_columns = [&](int chunk) {
        if (!STATISTICS) {
            norm_summary none;
            return ring.template take_columns<false>(chunk, none, in, at);
        }
        if (warps - 1 - warp >= layout::chunk / 16)
            return;
        norm_summary norms = *kept_norms;
        ring.template take_columns<true>(chunk, norms, in, at);
        *kept_norms = norms;
    };
    take_columns(0);

    float squares[layout::tiles][2] = {};
    if (STATISTICS || in.normalise_keys)
#pragma unroll
        for (int t = 0; t < layout::tiles; t++)
            if (first_query + t * 16 < in.tokens)
                square_norms(squares[t][0], squares[t][1], queries[t], at);
    if (STATISTICS)
        *kept_squares =
            make_float4(squares[0][0], squares[0][1], squares[layout::tiles - 1][0], squares[layout::tiles - 1][1]);
    bool bounded = logits_are_bounded<layout::tiles>(squares, in);
    forward_rows<D> rows;
#pragma unroll
    for (int t = 0; t < layout::tiles; t++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            rows.reference[t][i] = bounded ? 0 : MASKED;
            rows.top[t][i] = MASKED;
            rows.sum[t][i] = rows.entropy[t][i] = 0;
#pragma unroll
            for (int j = 0; j < D / 8; j++)
                rows.out[t][j][2 * i] = rows.out[t][j][2 * i + 1] = 0;
        }

    for (int chunk = 0; chunk < chunks; chunk++) {
        copy_wait<0>();
        __syncthreads();
        if (chunk + 2 < chunks)
            ring.copy(chunk + 2, in, at.lane);
        copy_commit();
        if (chunk + 1 < chunks)
            take_columns(chunk + 1);
        if (first_query >= in.tokens)
            continue;
        int steps = ring.steps(chunk, in.tokens);
        uint32_t keys = ring.keys(chunk);
        const float4 *column = ring.columns(chunk) + at.pair;
        if (layout::tiles == 1 || first_query + 16 >= in.tokens) {
            if (bounded)
                attend_chunk<D, 1, true, STATISTICS>(rows, queries, keys, column, steps, at.lane);
            else
                attend_chunk<D, 1, false, STATISTICS>(rows, queries, keys, column, steps, at.lane);
        } else {
            if (bounded)
                attend_chunk<D, layout::tiles, true, STATISTICS>(rows, queries, keys, column, steps, at.lane);
            else
                attend_chunk<D, layout::tiles, false, STATISTICS>(rows, queries, keys, column, steps, at.lane);
        }
    }

    uint8_t *own_tiles = shared + layout::queries_at + warp * layout::warp_bytes;
    float *row_logsumexp = logsumexp + ((size_t)image * in.heads + head) * in.tokens + first_query + at.group;
    norm_summary query_norms;
    float4 kept = STATISTICS ? *kept_squares : float4();
    row_summary entropies;
    float largest = MASKED;
#pragma unroll
    for (int t = 0; t < layout::tiles; t++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = first_query + t * 16 + i * 8 + at.group;
            float sum = row_sum(rows.sum[t][i]), inverse = __fdividef(1.0f, sum);
            float log_sum = (rows.reference[t][i] + log2_fast(sum)) * LN_2;
            bool owner = at.pair == 0 && row < in.tokens;
            if (owner)
                row_logsumexp[t * 16 + i * 8] = log_sum;
            if (STATISTICS) {
                float entropy = log_sum - row_sum(rows.entropy[t][i]) * inverse * LN_2;
                entropies.add(fmaxf(entropy, 0.0f), owner);
                query_norms.add(t == 0 ? (i == 0 ? kept.x : kept.y) : (i == 0 ? kept.z : kept.w), owner);
                largest = row < in.tokens ? fmaxf(largest, rows.top[t][i] * LN_2) : largest;
            }
#pragma unroll
            for (int j = 0; j < D / 8; j++)
                store_pair(own_tiles + at.pair * 4 + rows_of<D>::offset(at.group, j) +
                               (t * 16 + i * 8) * rows_of<D>::bytes,
                           rows.out[t][j][2 * i] * inverse, rows.out[t][j][2 * i + 1] * inverse);
        }
    }
    __syncwarp();
    bfloat16 *head_out = out + (image_rows * in.heads + head) * D;
#pragma unroll
    for (int t = 0; t < layout::tiles; t++) {
        int first = first_query + t * 16;
        write_tile<D>(head_out + (size_t)first * in.heads * D, in.heads * D, own_tiles + t * 16 * rows_of<D>::bytes,
                      in.tokens - first, at.lane);
    }
    if (STATISTICS) {
        /* All blocks of a head meet the same keys: the first one counts them. */
        norm_summary keys = blockIdx.x == 0 ? *kept_norms : norm_summary();
        write_record<4>(records + ((size_t)head * gridDim.z + image) * gridDim.x + blockIdx.x, query_norms, keys,
                        row_max(largest), entropies, shared);
    }
}

/* ---- launch ---- */

/* Warps of a block and blocks of a head: as few blocks as hold the queries, all of about the same size. */
struct forward_grid {
    size_t warps, blocks;
};

static forward_grid grid_of(size_t tokens, size_t warp_queries, size_t max_warps)
{
    size_t needed = div_up(tokens, warp_queries);
    size_t warps = div_up(needed, div_up(needed, max_warps));
    return {warps, div_up(needed, warps)};
}

template <int D, bool STATISTICS>
static bool launch(struct context *ctx, bfloat16 *out, float *logsumexp, struct attention_record_list *records,
                   const attention_operands<bfloat16> *in, const struct attention_shape *shape, struct error *error)
{
    typedef forward_layout<D> layout;
    forward_grid chosen = grid_of(shape->tokens, layout::tiles * 16, forward_warps<D, STATISTICS>);
    size_t kept = STATISTICS ? chosen.warps * 32 * (sizeof(norm_summary) + sizeof(float4)) : 0;
    size_t shared_bytes = layout::queries_at + chosen.warps * layout::warp_bytes + kept;
    dim3 grid(chosen.blocks, shape->heads, shape->batch);
    auto kernel = attention_forward_tensor<D, STATISTICS>;
    if (!CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes), error))
        return false;
    kernel<<<grid, 32 * chosen.warps, shared_bytes, ctx->compute>>>(out, logsumexp, records->record, *in);
    records->of_head = shape->batch * chosen.blocks;
    return cuda_launched(ctx, "attention_forward_tensor", error);
}

template <int D>
static bool launch(struct context *ctx, bfloat16 *out, float *logsumexp, struct attention_record_list *records,
                   const attention_operands<bfloat16> *in, const struct attention_shape *shape, struct error *error)
{
    return records->record ? launch<D, true>(ctx, out, logsumexp, records, in, shape, error)
                           : launch<D, false>(ctx, out, logsumexp, records, in, shape, error);
}

bool attention_forward_bf16(struct context *ctx, bfloat16 *out, float *logsumexp, struct attention_record_list *records,
                            const attention_operands<bfloat16> *in, const struct attention_shape *shape,
                            struct error *error)
{
    switch (shape->head_dim) {
    case 16:
        return launch<16>(ctx, out, logsumexp, records, in, shape, error);
    case 32:
        return launch<32>(ctx, out, logsumexp, records, in, shape, error);
    case 64:
        return launch<64>(ctx, out, logsumexp, records, in, shape, error);
    case 80:
        return launch<80>(ctx, out, logsumexp, records, in, shape, error);
    case 96:
        return launch<96>(ctx, out, logsumexp, records, in, shape, error);
    case 128:
        return launch<128>(ctx, out, logsumexp, records, in, shape, error);
    default:
        return attention_unsupported(shape, error);
    }
}
