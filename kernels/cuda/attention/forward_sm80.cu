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
#include "kernels/cuda/attention/forward_sm80.cuh"

extern __shared__ __align__(128) uint8_t shared[];

/* Where a thread works. */
template <int D> struct forward_place {
    typedef forward_layout<D> layout;
    lane_position at;
    int warp, warps, head, image;
    int first_query;   /* of the warp */
    size_t image_rows; /* of the images before */
    /* Of each thread, where registers have no room for them: norms of the keys that it has seen, |q|^2 of its rows. */
    norm_summary *kept_norms;
    float4 *kept_squares;

    __device__ __forceinline__ forward_place(const attention_operands<bfloat16> &in)
        : at(lane_of_thread()), warp(threadIdx.x / 32), warps(blockDim.x / 32), head(blockIdx.y), image(blockIdx.z),
          first_query((blockIdx.x * warps + warp) * (layout::tiles * 16)), image_rows((size_t)image * in.tokens),
          kept_norms(reinterpret_cast<norm_summary *>(shared + layout::queries_at + warps * layout::warp_bytes) +
                     threadIdx.x),
          kept_squares(reinterpret_cast<float4 *>(kept_norms + blockDim.x))
    {
    }

    /* The warp's queries, at the end its outputs: an address of shared memory. */
    __device__ __forceinline__ uint32_t tiles() const
    {
        return shared_address(shared) + layout::queries_at + warp * layout::warp_bytes;
    }
};

/* Starts the copy of a warp's queries to its tiles. */
template <int D>
static __device__ __forceinline__ void copy_queries(const attention_operands<bfloat16> &in,
                                                    const forward_place<D> &place)
{
    const bfloat16 *query = in.query + place.image_rows * in.row + place.head * D;
    uint32_t to = place.tiles();
#pragma unroll
    for (int t = 0; t < forward_layout<D>::tiles; t++)
        copy_tile<D>(to + t * 16 * rows_of<D>::bytes, query + (size_t)(place.first_query + t * 16) * in.row, in.row,
                     in.tokens - place.first_query - t * 16, place.at.lane);
}

template <int D>
static __device__ __forceinline__ void load_queries(uint32_t (&queries)[forward_layout<D>::tiles][D / 16][4],
                                                    const forward_place<D> &place)
{
    uint32_t from = place.tiles() + matrix_offset<D>(DOWN, place.at.lane);
#pragma unroll
    for (int t = 0; t < forward_layout<D>::tiles; t++)
#pragma unroll
        for (int k = 0; k < D / 16; k++)
            load_matrices(queries[t][k], matrix_column<D>(from, k) + t * 16 * rows_of<D>::bytes);
}

/* The columns of a chunk; the norms of its keys are added to the thread's kept ones. */
template <int D, bool STATISTICS>
static __device__ __forceinline__ void take_columns(const typename forward_layout<D>::ring &ring, int chunk,
                                                    const attention_operands<bfloat16> &in,
                                                    const forward_place<D> &place)
{
    if (!STATISTICS) {
        norm_summary none;
        return ring.template take_columns<false>(chunk, none, in, place.at);
    }
    if (place.warps - 1 - place.warp >= forward_layout<D>::chunk / 16)
        return;
    norm_summary norms = *place.kept_norms;
    ring.template take_columns<true>(chunk, norms, in, place.at);
    *place.kept_norms = norms;
}

/* |q|^2 of the warp's queries, where they are asked for; kept for the end with statistics. */
template <int D, bool STATISTICS, int TILES>
static __device__ __forceinline__ void
take_squares(float (&squares)[TILES][2], const uint32_t (&queries)[TILES][D / 16][4],
             const attention_operands<bfloat16> &in, const forward_place<D> &place)
{
    if (STATISTICS || in.normalise_keys)
#pragma unroll
        for (int t = 0; t < TILES; t++)
            if (place.first_query + t * 16 < in.tokens)
                square_norms(squares[t][0], squares[t][1], queries[t], place.at);
    if (STATISTICS)
        *place.kept_squares = make_float4(squares[0][0], squares[0][1], squares[TILES - 1][0], squares[TILES - 1][1]);
}

template <int D> static __device__ __forceinline__ void start_rows(forward_rows<D> &rows, bool bounded)
{
#pragma unroll
    for (int t = 0; t < forward_layout<D>::tiles; t++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            rows.reference[t][i] = bounded ? 0 : MASKED;
            rows.top[t][i] = MASKED;
            rows.sum[t][i] = rows.entropy[t][i] = 0;
#pragma unroll
            for (int j = 0; j < D / 8; j++)
                rows.out[t][j][2 * i] = rows.out[t][j][2 * i + 1] = 0;
        }
}

/* A chunk that has arrived meets as many tiles as hold queries. */
template <int D, bool STATISTICS>
static __device__ __forceinline__ void
meet_chunk(forward_rows<D> &rows, const uint32_t (&queries)[forward_layout<D>::tiles][D / 16][4], bool bounded,
           const typename forward_layout<D>::ring &ring, int chunk, int tokens, const forward_place<D> &place)
{
    constexpr int tiles = forward_layout<D>::tiles;
    int steps = ring.steps(chunk, tokens), lane = place.at.lane;
    uint32_t keys = ring.keys(chunk);
    const float4 *column = ring.columns(chunk) + place.at.pair;
    if (tiles == 1 || place.first_query + 16 >= tokens) {
        if (bounded)
            attend_chunk<D, 1, true, STATISTICS>(rows, queries, keys, column, steps, lane);
        else
            attend_chunk<D, 1, false, STATISTICS>(rows, queries, keys, column, steps, lane);
    } else {
        if (bounded)
            attend_chunk<D, tiles, true, STATISTICS>(rows, queries, keys, column, steps, lane);
        else
            attend_chunk<D, tiles, false, STATISTICS>(rows, queries, keys, column, steps, lane);
    }
}

/* What statistics know of a thread's queries at the end. */
struct query_summary {
    norm_summary norms;
    row_summary entropies;
    float largest_logit = MASKED;
};

/* Divides by the sums of exponentials: log-sum-exps to memory; outputs too, by way of the warp's tiles. */
template <int D, bool STATISTICS>
static __device__ __forceinline__ void finish_rows(query_summary &summary, bfloat16 *out, float *logsumexp,
                                                   const forward_rows<D> &rows, const attention_operands<bfloat16> &in,
                                                   const forward_place<D> &place)
{
    lane_position at = place.at;
    /* place.tiles() as a pointer; from a function of its own nvcc folds it less: 2 instructions at head_dim 80. */
    uint8_t *tiles = shared + forward_layout<D>::queries_at + place.warp * forward_layout<D>::warp_bytes;
    float *row_logsumexp =
        logsumexp + ((size_t)place.image * in.heads + place.head) * in.tokens + place.first_query + at.group;
    float4 kept = STATISTICS ? *place.kept_squares : float4();
#pragma unroll
    for (int t = 0; t < forward_layout<D>::tiles; t++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = place.first_query + t * 16 + i * 8 + at.group;
            float sum = row_sum(rows.sum[t][i]), inverse = __fdividef(1.0f, sum);
            float log_sum = (rows.reference[t][i] + log2_fast(sum)) * LN_2;
            bool owner = at.pair == 0 && row < in.tokens;
            if (owner)
                row_logsumexp[t * 16 + i * 8] = log_sum;
            if (STATISTICS) {
                float entropy = log_sum - row_sum(rows.entropy[t][i]) * inverse * LN_2;
                summary.entropies.add(fmaxf(entropy, 0.0f), owner);
                summary.norms.add(t == 0 ? (i == 0 ? kept.x : kept.y) : (i == 0 ? kept.z : kept.w), owner);
                if (row < in.tokens)
                    summary.largest_logit = fmaxf(summary.largest_logit, rows.top[t][i] * LN_2);
            }
#pragma unroll
            for (int j = 0; j < D / 8; j++)
                store_pair(tiles + at.pair * 4 + rows_of<D>::offset(at.group, j) + (t * 16 + i * 8) * rows_of<D>::bytes,
                           rows.out[t][j][2 * i] * inverse, rows.out[t][j][2 * i + 1] * inverse);
        }
    }
    __syncwarp();
    bfloat16 *head_out = out + (place.image_rows * in.heads + place.head) * D;
#pragma unroll
    for (int t = 0; t < forward_layout<D>::tiles; t++) {
        int first = place.first_query + t * 16;
        write_tile<D>(head_out + (size_t)first * in.heads * D, in.heads * D, tiles + t * 16 * rows_of<D>::bytes,
                      in.tokens - first, place.at.lane);
    }
}

template <int D, bool STATISTICS>
__global__ void __launch_bounds__(32 * forward_warps<D, STATISTICS>)
    attention_forward_tensor(bfloat16 *out, float *logsumexp, attention_record *records,
                             attention_operands<bfloat16> in)
{
    typedef forward_layout<D> layout;
    forward_place<D> place(in);
    typename layout::ring ring(in, shared, place.image, place.head);
    int chunks = (in.tokens + layout::chunk - 1) / layout::chunk;
    copy_queries(in, place);
    ring.copy(0, in, place.at.lane);
    copy_commit();
    if (chunks > 1)
        ring.copy(1, in, place.at.lane);
    copy_commit();
    copy_wait<1>();
    __syncthreads();

    uint32_t queries[layout::tiles][D / 16][4];
    load_queries(queries, place);
    if (STATISTICS)
        *place.kept_norms = norm_summary();
    take_columns<D, STATISTICS>(ring, 0, in, place);
    float squares[layout::tiles][2] = {};
    take_squares<D, STATISTICS>(squares, queries, in, place);
    bool bounded = logits_are_bounded<layout::tiles>(squares, in);
    forward_rows<D> rows;
    start_rows(rows, bounded);

    for (int chunk = 0; chunk < chunks; chunk++) {
        copy_wait<0>();
        __syncthreads();
        if (chunk + 2 < chunks)
            ring.copy(chunk + 2, in, place.at.lane);
        copy_commit();
        if (chunk + 1 < chunks)
            take_columns<D, STATISTICS>(ring, chunk + 1, in, place);
        if (place.first_query < in.tokens)
            meet_chunk<D, STATISTICS>(rows, queries, bounded, ring, chunk, in.tokens, place);
    }

    query_summary summary;
    finish_rows<D, STATISTICS>(summary, out, logsumexp, rows, in, place);
    if (STATISTICS) {
        /* All blocks of a head meet the same keys: the first one counts them. */
        norm_summary keys = blockIdx.x == 0 ? *place.kept_norms : norm_summary();
        write_record<4>(records + ((size_t)place.head * gridDim.z + place.image) * gridDim.x + blockIdx.x,
                        summary.norms, keys, row_max(summary.largest_logit), summary.entropies, shared);
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
