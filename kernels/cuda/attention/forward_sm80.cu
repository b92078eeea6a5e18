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
 *   | squares 0, 1, 2    |  float [CHUNK]: |k|^2, for statistics and for the bound on the logits
 *   | warp 0, 1, ...     |  [32][head_dim]: Q on its way to registers, at the end O on its way out; then forward_kept:
 *   +--------------------+  one number a query, |q|^2 and with statistics its entropy
 *
 * While chunk i is multiplied, chunk i + 2 is copied and the key norms of chunk i + 1 are taken (by one warp for each
 * 16 keys): one barrier a chunk. A logit is (q.k + bias) * factor in float32, base 2: QUEST's normalisation is the
 * factor, log2(e) / |k|, and the end of the sequence is the bias, -1e30, with which the product starts; neither costs
 * an instruction that standard attention does not have.
 *
 * No running maximum: exponentials are taken relative to a `reference` for each query, 0 at first, as long as |q| |k|
 * cannot pass it by 2^80 (QUEST: asked once, |k| being 1; else once a chunk). For a chunk that could, its products are
 * made twice, first to find the maxima; references move, with the rescaling of the output that this needs, where one is
 * passed by 2^8. Sums and outputs have ample range in float32. (Logits above 2^30 become NaN: a product is not rounded
 * before the reference is taken from it, and what rounding would have taken away is then too large an exponent.)
 *
 * Cost of a head with N tokens, d = head_dim, n = 16 ceil(N / 16), m = 8 ceil(N / 8): 4 n m d tensor FLOP and 4 d n for
 * each norm of 16 rows; (4 N d) * 2 + 4 N bytes up to 288 tokens, K and V once more for every further 288 queries.
 * Occupancy at head_dim 64, 197 tokens: 7 warps, for which the hardware allots the registers of 8, 168 a thread;
 * 80.9 KiB: one block a multiprocessor on sm_80 and sm_90. */
#include "kernels/cuda/attention/forward_statistics_sm80.cuh"

extern __shared__ __align__(128) uint8_t shared[];

/* Bytes of shared memory for each warp. */
template <int D> constexpr int forward_stride = forward_layout<D>::warp_bytes + (int)sizeof(forward_kept);

/* Where a thread works. */
template <int D> struct forward_place {
    typedef forward_layout<D> layout;
    lane_position at;
    int warp, warps, head, image;
    int first_query;   /* of the warp */
    size_t image_rows; /* of the images before */

    __device__ __forceinline__ forward_place(const attention_operands<bfloat16> &in)
        : at(lane_of_thread()), warp(threadIdx.x / 32), warps(blockDim.x / 32), head(blockIdx.y), image(blockIdx.z),
          first_query((blockIdx.x * warps + warp) * (layout::tiles * 16)), image_rows((size_t)image * in.tokens)
    {
    }

    /* The warp's queries, at the end its outputs: an address of shared memory. */
    __device__ __forceinline__ uint32_t tiles() const
    {
        return shared_address(shared) + layout::queries_at + warp * forward_stride<D>;
    }

    __device__ __forceinline__ forward_kept *kept(int of_warp) const
    {
        return reinterpret_cast<forward_kept *>(shared + layout::queries_at + layout::warp_bytes +
                                                of_warp * forward_stride<D>);
    }

    /* The query that the lane owns, from first_query on, and whether there is one. */
    __device__ __forceinline__ int own_query() const
    {
        return (layout::tiles == 1 ? 0 : at.pair / 2 * 16) + at.pair % 2 * 8 + at.group;
    }
    __device__ __forceinline__ bool owns_query(int tokens) const
    {
        return first_query + own_query() < tokens && at.pair < 2 * layout::tiles;
    }
};

/* Starts the copy of a warp's queries to its tiles. */
template <int HEAD_DIM, int D>
static __device__ __forceinline__ void copy_queries(const attention_operands<bfloat16> &in,
                                                    const forward_place<D> &place)
{
    const bfloat16 *query = in.query + place.image_rows * in.row + place.head * HEAD_DIM;
    uint32_t to = place.tiles();
#pragma unroll
    for (int t = 0; t < forward_layout<D>::tiles; t++)
        copy_tile<HEAD_DIM>(to + t * 16 * rows_of<D>::bytes, query + (size_t)(place.first_query + t * 16) * in.row,
                            in.row, in.tokens - place.first_query - t * 16, place.at.lane);
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

/* |q|^2 of the warp's queries; kept for statistics and where each chunk asks for them. */
template <int D, int TILES>
static __device__ __forceinline__ void
take_squares(float (&squares)[TILES][2], const uint32_t (&queries)[TILES][D / 16][4],
             const attention_operands<bfloat16> &in, const forward_place<D> &place)
{
#pragma unroll
    for (int t = 0; t < TILES; t++)
        if (place.first_query + t * 16 < in.tokens)
            square_norms(squares[t][0], squares[t][1], queries[t], place.at);
    place.kept(place.warp)->squares[place.at.lane] =
        place.owns_query(in.tokens) ? own_row(squares, place.at.pair) : -0.0f;
}

template <int D, bool STATISTICS> static __device__ __forceinline__ void start_rows(forward_rows<D, STATISTICS> &rows)
{
#pragma unroll
    for (int t = 0; t < forward_layout<D>::tiles; t++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            rows.shift[t][i] = rows.sum[t][i] = rows.entropy[t][i] = 0;
            rows.top[t][i] = 0;
#pragma unroll
            for (int j = 0; j < D / 8; j++)
                rows.out[t][j][2 * i] = rows.out[t][j][2 * i + 1] = 0;
        }
    }
}

template <int D> static __device__ __forceinline__ int keys_inside(int chunk, int tokens)
{
    return min(forward_layout<D>::chunk, tokens - chunk * forward_layout<D>::chunk);
}

/* Whether no logit of a chunk can be too large for its row's reference, of which there are none before the first. */
template <int D, int TILES, bool STATISTICS>
static __device__ __forceinline__ bool
chunk_is_safe(forward_rows<D, STATISTICS> &rows, const typename forward_layout<D>::ring &ring, int chunk,
              const attention_operands<bfloat16> &in, const forward_place<D> &place)
{
    constexpr int size = forward_layout<D>::chunk;
    float key_square = 1;
    if (!in.normalise_keys)
        key_square = largest_key_square<typename forward_layout<D>::ring, size>(ring, chunk, in.tokens - chunk * size,
                                                                                place.at.lane);
    float4 kept = *reinterpret_cast<const float4 *>(place.kept(place.warp)->squares + place.at.group * 4);
    float squares[2][2] = {{kept.x, kept.y}, {kept.z, kept.w}};
    if (exponents_are_safe<TILES>(squares, rows.shift, key_square, in))
        return true;
#pragma unroll
    for (int t = 0; t < TILES; t++)
        for (int i = 0; chunk == 0 && i < 2; i++)
            rows.shift[t][i] = -MASKED;
    return false;
}

/* A chunk that has arrived meets the warp's first TILES tiles. */
template <int D, int TILES, bool STATISTICS>
static __device__ __forceinline__ void meet_chunk(forward_rows<D, STATISTICS> &rows,
                                                  const uint32_t (&queries)[forward_layout<D>::tiles][D / 16][4],
                                                  const typename forward_layout<D>::ring &ring, int chunk,
                                                  const attention_operands<bfloat16> &in, const forward_place<D> &place)
{
    if (!place.kept(place.warp)->safe) {
        int same = chunk;
        asm volatile("" : "+r"(same)); /* what follows is rare: none of it is to be worked out before */
        if (!chunk_is_safe<D, TILES>(rows, ring, same, in, place))
            find_references<D, TILES>(rows, queries, chunk_place<D, STATISTICS>(ring, same, place.at),
                                      keys_inside<D>(same, in.tokens));
    }
    attend_chunk<D, TILES>(rows, queries, chunk_place<D, STATISTICS>(ring, chunk, place.at),
                           keys_inside<D>(chunk, in.tokens));
}

/* Divides by the sums of exponentials: log-sum-exps to memory; outputs too, by way of the warp's tiles. */
template <int HEAD_DIM, int D, bool STATISTICS>
static __device__ __forceinline__ void
finish_rows(bfloat16 *out, float *logsumexp, const forward_rows<D, STATISTICS> &rows,
            const attention_operands<bfloat16> &in, const forward_place<D> &place)
{
    constexpr int tile_count = forward_layout<D>::tiles;
    lane_position at = place.at;
    float sum = own_row_sum(rows.sum, at.pair), inverse = __fdividef(1.0f, sum);
    float log_sum = log2_fast(sum);
    if (place.owns_query(in.tokens))
        logsumexp[((size_t)place.image * in.heads + place.head) * in.tokens + place.first_query + place.own_query()] =
            (log_sum - own_row(rows.shift, at.pair)) * LN_2;
    if (STATISTICS) {
        float entropy = (log_sum - own_row_sum(rows.entropy, at.pair) * inverse) * LN_2;
        place.kept(place.warp)->entropies[at.lane] =
            place.owns_query(in.tokens) ? (entropy > 0 ? entropy : 0.0f) : -0.0f;
    }
    /* place.tiles() as a pointer; from a function of its own nvcc folds it less: 2 instructions at head_dim 80. */
    uint8_t *tiles = shared + forward_layout<D>::queries_at + place.warp * forward_stride<D>;
#pragma unroll
    for (int t = 0; t < tile_count; t++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float of_row = from_lane(inverse, at.group * 4 + 2 * t + i);
#pragma unroll
            for (int j = 0; j < D / 8; j++)
                store_pair(tiles + at.pair * 4 + rows_of<D>::offset(at.group, j) + (t * 16 + i * 8) * rows_of<D>::bytes,
                           rows.out[t][j][2 * i] * of_row, rows.out[t][j][2 * i + 1] * of_row);
        }
    __syncwarp();
    bfloat16 *head_out = out + (place.image_rows * in.heads + place.head) * HEAD_DIM;
#pragma unroll
    for (int t = 0; t < tile_count; t++) {
        int first = place.first_query + t * 16;
        write_tile<HEAD_DIM>(head_out + (size_t)first * in.heads * HEAD_DIM, in.heads * HEAD_DIM,
                             tiles + t * 16 * rows_of<D>::bytes, in.tokens - first, place.at.lane);
    }
}

/* Where ptxas would spill for the sake of a second block, it is told that one is enough. */
template <int HEAD_DIM> constexpr int forward_blocks = HEAD_DIM == 8 || HEAD_DIM == 24 ? 1 : 0;

template <int HEAD_DIM, bool STATISTICS>
__global__ void __launch_bounds__(32 * forward_warps<padded<HEAD_DIM>, STATISTICS>, forward_blocks<HEAD_DIM>)
    attention_forward_tensor(bfloat16 *out, float *logsumexp, attention_record *records,
                             attention_operands<bfloat16> in, int chunks)
{
    constexpr int D = padded<HEAD_DIM>;
    typedef forward_layout<D> layout;
    forward_place<D> place(in);
    typename layout::ring ring(in, shared, place.image, place.head * HEAD_DIM);
    bool squares_wanted = STATISTICS || !in.normalise_keys; /* of keys, by statistics or chunk_is_safe */
    copy_queries<HEAD_DIM>(in, place);
    ring.template copy<HEAD_DIM>(0, in, place.at.lane);
    copy_commit();
    if (chunks > 1)
        ring.template copy<HEAD_DIM>(1, in, place.at.lane);
    copy_commit();
    copy_wait<1>();
    __syncthreads();

    uint32_t queries[layout::tiles][D / 16][4];
    load_queries(queries, place);
    ring.take_columns(0, squares_wanted, in, place.at);
    float squares[layout::tiles][2] = {};
    take_squares<D>(squares, queries, in, place);
    forward_rows<D, STATISTICS> rows;
    start_rows(rows);
    place.kept(place.warp)->safe = in.normalise_keys && exponents_are_safe<layout::tiles>(squares, rows.shift, 1, in);
    /* All blocks of a head meet the same keys: the last warp of the first block counts them. */
    lane_norms keys;
    int key_chunks = STATISTICS && blockIdx.x == 0 && place.warp == place.warps - 1 ? chunks : 0;
    if (STATISTICS)
        asm volatile("" : "+r"(key_chunks)); /* a number, not a condition to be worked out for each chunk */

    for (int chunk = 0; chunk < chunks; chunk++) {
        copy_wait<0>();
        __syncthreads();
        if (chunk + 2 < chunks)
            ring.template copy<HEAD_DIM>(chunk + 2, in, place.at.lane);
        copy_commit();
        if (chunk + 1 < chunks)
            ring.take_columns(chunk + 1, squares_wanted, in, place.at);
        if (chunk < key_chunks) {
            float of_keys[layout::chunk / 32];
            load_key_squares(of_keys, ring, chunk, in.tokens - chunk * layout::chunk, place.at.lane);
#pragma unroll
            for (int i = 0; i < layout::chunk / 32; i++)
                keys.add(of_keys[i]);
        }
        if (layout::tiles > 1 && place.first_query + 16 < in.tokens)
            meet_chunk<D, layout::tiles>(rows, queries, ring, chunk, in, place);
        else if (place.first_query < in.tokens)
            meet_chunk<D, 1>(rows, queries, ring, chunk, in, place);
    }

    finish_rows<HEAD_DIM>(out, logsumexp, rows, in, place);
    if constexpr (STATISTICS) {
        float logit = largest_logit(rows, place.kept(place.warp)->safe, place.first_query, in.tokens, place.at);
        if (place.at.lane == 0)
            place.kept(place.warp)->largest_logit = logit;
        write_record(records + ((size_t)place.head * gridDim.z + place.image) * gridDim.x + blockIdx.x, place.kept(0),
                     forward_stride<D>, keys);
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

template <int HEAD_DIM, bool STATISTICS>
static bool launch(struct context *ctx, bfloat16 *out, float *logsumexp, struct attention_record_list *records,
                   const attention_operands<bfloat16> *in, const struct attention_shape *shape, struct error *error)
{
    constexpr int D = padded<HEAD_DIM>;
    typedef forward_layout<D> layout;
    forward_grid chosen = grid_of(shape->tokens, layout::tiles * 16, forward_warps<D, STATISTICS>);
    size_t shared_bytes = layout::queries_at + chosen.warps * forward_stride<D>;
    dim3 grid(chosen.blocks, shape->heads, shape->batch);
    auto kernel = attention_forward_tensor<HEAD_DIM, STATISTICS>;
    if (!CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes), error))
        return false;
    /* A parameter takes no register. */
    int chunks = (int)div_up(shape->tokens, (size_t)layout::chunk);
    kernel<<<grid, 32 * chosen.warps, shared_bytes, ctx->compute>>>(out, logsumexp, records->record, *in, chunks);
    records->of_head = shape->batch * chosen.blocks;
    return cuda_launched(ctx, "attention_forward_tensor", error);
}

bool attention_forward_bf16(struct context *ctx, bfloat16 *out, float *logsumexp, struct attention_record_list *records,
                            const attention_operands<bfloat16> *in, const struct attention_shape *shape,
                            struct error *error)
{
    return with_head_dim(shape->head_dim, [&](auto head_dim) {
        constexpr int HEAD_DIM = decltype(head_dim)::value;
        return records->record ? launch<HEAD_DIM, true>(ctx, out, logsumexp, records, in, shape, error)
                               : launch<HEAD_DIM, false>(ctx, out, logsumexp, records, in, shape, error);
    });
}
