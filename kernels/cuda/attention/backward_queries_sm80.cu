/* dQ of attention in bfloat16 for sequences whose keys do not fit one block of backward_keys_sm80.cu.
 *
 * The forward pass once more, with dQ in place of the output: a block takes up to 12 warps x 16 queries (8 where
 * head_dim > 64) of one head; a warp keeps its queries, its dO and its dQ in registers, and keys and values pass by in
 * chunks through the ring of chunks_sm80.cuh.
 *
 *   shared memory:  ring of three chunks (head_dim 64: 160 keys: 3 x 41 KiB), then [32 a warp][D]: Q, then dO on their
 * way to registers, at the end dQ on its way out
 *
 * dS is multiplied by each key's factor, so that dQ = dS K needs no normalised copy of the keys. Cost of a head of N
 * tokens, n = 16 ceil(N / 16): 6 n n D tensor FLOP; (5 N D) * 2 bytes, K and V again for every further block of
 * queries. Blocks a multiprocessor at head_dim 64, 8 warps: one on sm_80 and sm_90 (up to 255 registers). */
#include "kernels/cuda/attention/backward_sm80.cuh"

/* CHUNK keys pass at a time. */
template <int D, int CHUNK> struct query_layout {
    static constexpr int chunk = CHUNK;
    typedef key_ring<D, chunk> ring;
    static constexpr int tiles = D > 64 ? 1 : 2; /* of 16 queries, a warp */
    static constexpr int tile_bytes = 16 * rows_of<D>::bytes, own_bytes = tiles * tile_bytes;
};

constexpr int QUERY_WARPS = 8; /* 255 registers a thread */

/* 16 queries: index 0 is row `group`, 1 is row group + 8. */
template <int D> struct query_rows {
    uint32_t queries[D / 16][4], out_gradients[D / 16][4];
    float gradient[D / 8][4];
    float minus_logsumexp[2], minus_delta[2]; /* base 2 */
};

/* 16 keys and values, given where the lane's first matrices of the keys lie in both orders, the
 * values `to_values` behind them: logits again, dS, dQ. */
template <int D, int TILES>
static __device__ __forceinline__ void differentiate(query_rows<D> (&rows)[TILES], uint32_t across, uint32_t down,
                                                     uint32_t to_values, const float4 (&column)[2])
{
    float logits[TILES][2][4], slopes[TILES][2][4];
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t key[4], value[4];
        load_matrices(key, matrix_column<D>(across, k));
        load_matrices(value, matrix_column<D>(across + to_values, k));
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int n = 0; n < 2; n++)
                if (k == 0) {
                    multiply(logits[t][n], rows[t].queries[k], key[2 * n], key[2 * n + 1], column[n].z, column[n].w,
                             column[n].z, column[n].w);
                    multiply(slopes[t][n], rows[t].out_gradients[k], value[2 * n], value[2 * n + 1],
                             rows[t].minus_delta[0], rows[t].minus_delta[0], rows[t].minus_delta[1],
                             rows[t].minus_delta[1]);
                } else {
                    multiply_add(logits[t][n], rows[t].queries[k], key[2 * n], key[2 * n + 1]);
                    multiply_add(slopes[t][n], rows[t].out_gradients[k], value[2 * n], value[2 * n + 1]);
                }
    }
    uint32_t a[TILES][4];
#pragma unroll
    for (int t = 0; t < TILES; t++) {
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                float factor = c % 2 ? column[n].y : column[n].x;
                float probability = exp2_fast(fmaf(logits[t][n][c], factor, rows[t].minus_logsumexp[c / 2]));
                slopes[t][n][c] *= probability * factor;
            }
        as_left_operand(a[t], slopes[t][0], slopes[t][1]);
    }
#pragma unroll
    for (int j = 0; j < D / 16; j++) {
        uint32_t b[4];
        load_matrices_transposed(b, matrix_column<D>(down, j));
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            multiply_add(rows[t].gradient[2 * j], a[t], b[0], b[1]);
            multiply_add(rows[t].gradient[2 * j + 1], a[t], b[2], b[3]);
        }
    }
}

/* 16 rows of Q or dO, by way of the warp's shared memory, to registers. */
template <int D>
static __device__ __forceinline__ void load_fragments(uint32_t (&rows)[D / 16][4], uint32_t tile, int lane)
{
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        load_matrices(rows[k], matrix_column<D>(tile + matrix_offset<D>(DOWN, lane), k));
}

template <int HEAD_DIM, int CHUNK>
__global__ void __launch_bounds__(32 * QUERY_WARPS)
    attention_backward_queries_tensor(attention_operands<bfloat16> in, attention_derivatives<bfloat16> derivatives)
{
    constexpr int D = padded<HEAD_DIM>;
    typedef query_layout<D, CHUNK> layout;
    extern __shared__ __align__(128) uint8_t shared[];
    lane_position at = lane_of_thread();
    int warp = threadIdx.x / 32, warps = blockDim.x / 32, head = blockIdx.y, image = blockIdx.z;
    int first_query = (blockIdx.x * warps + warp) * 16 * layout::tiles, inside = in.tokens - first_query;
    int width = in.heads * HEAD_DIM, of_head = (image * in.heads + head) * in.tokens;
    const bfloat16 *query = in.query + ((image * in.tokens + first_query) * in.row + head * HEAD_DIM);
    const bfloat16 *out_gradient =
        derivatives.out_gradient + ((image * in.tokens + first_query) * width + head * HEAD_DIM);
    typename layout::ring ring(in, shared, image, head * HEAD_DIM);
    uint8_t *own_rows = shared + layout::ring::bytes + warp * layout::own_bytes;
    uint32_t own = shared_address(own_rows);
    int chunks = (in.tokens + layout::chunk - 1) / layout::chunk;

    query_rows<D> rows[layout::tiles];
#pragma unroll
    for (int t = 0; t < layout::tiles; t++)
        copy_tile<HEAD_DIM>(own + t * layout::tile_bytes, query + t * 16 * in.row, in.row, inside - t * 16, at.lane);
    copy_commit();
    ring.template copy<HEAD_DIM>(0, in, at.lane);
    copy_commit();
    copy_wait<1>();
    __syncwarp();
#pragma unroll
    for (int t = 0; t < layout::tiles; t++)
        load_fragments<D>(rows[t].queries, own + t * layout::tile_bytes, at.lane);
    __syncwarp();
#pragma unroll
    for (int t = 0; t < layout::tiles; t++)
        copy_tile<HEAD_DIM>(own + t * layout::tile_bytes, out_gradient + t * 16 * width, width, inside - t * 16,
                            at.lane);
    copy_commit();
    if (chunks > 1)
        ring.template copy<HEAD_DIM>(1, in, at.lane);
    copy_commit();
    copy_wait<1>();
    __syncthreads();
    ring.take_columns(0, false, in, at);
#pragma unroll
    for (int t = 0; t < layout::tiles; t++) {
        load_fragments<D>(rows[t].out_gradients, own + t * layout::tile_bytes, at.lane);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = first_query + t * 16 + i * 8 + at.group;
            bool valid = row < in.tokens;
            rows[t].minus_logsumexp[i] = valid ? -LOG2_E * derivatives.logsumexp[of_head + row] : -INFINITY;
            rows[t].minus_delta[i] = valid ? -derivatives.delta[of_head + row] : 0;
        }
#pragma unroll
        for (int j = 0; j < D / 8; j++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                rows[t].gradient[j][c] = 0;
    }

    for (int chunk = 0; chunk < chunks; chunk++) {
        copy_wait<0>();
        __syncthreads();
        if (chunk + 2 < chunks)
            ring.template copy<HEAD_DIM>(chunk + 2, in, at.lane);
        copy_commit();
        if (chunk + 1 < chunks)
            ring.take_columns(chunk + 1, false, in, at);
        if (inside <= 0)
            continue;
        uint32_t across = ring.keys(chunk) + matrix_offset<D>(ACROSS, at.lane);
        uint32_t down = ring.keys(chunk) + matrix_offset<D>(DOWN, at.lane);
        const float4 *columns = ring.columns(chunk) + at.pair;
        int steps = ring.steps(chunk, in.tokens);
#pragma unroll 1
        for (int step = 0; step < steps; step++) {
            float4 column[2] = {columns[0], columns[4]};
            differentiate<D, layout::tiles>(rows, across, down, layout::ring::chunk_bytes, column);
            across += layout::tile_bytes;
            down += layout::tile_bytes;
            columns += 8;
        }
    }
    bfloat16 *to =
        derivatives.query_gradient + ((image * in.tokens + first_query) * derivatives.gradient_row + head * HEAD_DIM);
#pragma unroll
    for (int t = 0; t < layout::tiles; t++)
        write_gradient<HEAD_DIM>(to + t * 16 * derivatives.gradient_row, derivatives.gradient_row, rows[t].gradient,
                                 LN_2, own_rows + t * layout::tile_bytes, inside - t * 16, at);
}

/* ---- launch ---- */

template <int HEAD_DIM, int CHUNK>
static bool launch(struct context *ctx, const attention_operands<bfloat16> *in,
                   const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                   struct error *error)
{
    typedef query_layout<padded<HEAD_DIM>, CHUNK> layout;
    size_t needed = div_up(shape->tokens, 16 * layout::tiles);
    size_t warps = div_up(needed, div_up(needed, QUERY_WARPS));
    dim3 grid(div_up(needed, warps), shape->heads, shape->batch);
    int shared_bytes = layout::ring::bytes + (int)warps * layout::own_bytes;
    auto kernel = attention_backward_queries_tensor<HEAD_DIM, CHUNK>;
    if (!CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes), error))
        return false;
    kernel<<<grid, 32 * warps, shared_bytes, ctx->compute>>>(*in, *derivatives);
    return cuda_launched(ctx, "attention_backward_queries_tensor", error);
}

bool attention_backward_queries(struct context *ctx, const attention_operands<bfloat16> *in,
                                const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                                struct error *error)
{
    return with_head_dim<72>(shape->head_dim, [&](auto head_dim) {
        return launch<decltype(head_dim)::value, 32>(ctx, in, derivatives, shape, error);
    });
}
