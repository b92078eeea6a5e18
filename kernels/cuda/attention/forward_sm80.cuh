/* What a warp of the bfloat16 forward kernel keeps, and its work on a chunk of keys: logits, exponentials, products.
 * forward_sm80.cu says how warps and chunks meet. */
#ifndef QUEST_KERNELS_CUDA_ATTENTION_FORWARD_SM80_CUH
#define QUEST_KERNELS_CUDA_ATTENTION_FORWARD_SM80_CUH

#include "kernels/cuda/attention/chunks_sm80.cuh"

/* Exponents, base 2: how far a logit may pass the reference before that moves, and how large one may be at all. With
 * 2^80, a million keys and values up to 2^27 nothing overflows; the smallest, 2^-80, leaves 46 bits for the values. */
constexpr float REFERENCE_SLACK = 8.0f, SAFE_EXPONENT = 80.0f;

/* 8 warps leave 255 registers a thread, 9 leave 168: enough without statistics, and all of 257 tokens. */
template <int D, bool STATISTICS> constexpr int forward_warps = D > 64 || STATISTICS ? 8 : 9;

/* No register is left on sm_80 or sm_90 to keep addresses in (below 64, none of those that ptxas settles for): they are
 * worked out at each use, step by step. */
template <int D, bool STATISTICS> constexpr bool forward_is_tight = D < 64 || (STATISTICS && D > 64 && D <= 96);

template <int D> struct forward_layout {
    static constexpr int tiles = D > 96 ? 1 : 2; /* of 16 queries, a warp */
    static constexpr int chunk = D > 64 ? 32 : 64;
    typedef key_ring<D, chunk> ring;
    static constexpr int queries_at = ring::bytes_with_squares;
    static constexpr int warp_bytes = tiles * 16 * rows_of<D>::bytes;
};

/* The rows of a warp: tile t, half i is query 16 t + 8 i + group. An exponent is a logit, base 2, + shift. */
template <int D, bool STATISTICS> struct forward_rows {
    float out[forward_layout<D>::tiles][D / 8][4];
    float shift[forward_layout<D>::tiles][2]; /* -reference */
    float sum[forward_layout<D>::tiles][2];   /* this lane's part of the sum of 2^exponent */
    /* With statistics: this lane's part of the sum of 2^exponent * exponent, its two largest 2^exponent, bfloat16. */
    float entropy[forward_layout<D>::tiles][2];
    uint32_t top[forward_layout<D>::tiles][2];
};

static __device__ __forceinline__ uint32_t largest_of_two(uint32_t a, uint32_t b)
{
    uint32_t y;
    asm("max.bf16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
    return y;
}

/* Whether no logit of the first TILES tiles can pass its reference by more than SAFE_EXPONENT: |q.k| <= |q| |k|.
 * `squares` are |q|^2, `key_square` is the largest |k|^2, 1 where keys are normalised. */
template <int TILES, int A, int B>
static __device__ __forceinline__ bool exponents_are_safe(const float (&squares)[A][2], const float (&shift)[B][2],
                                                          float key_square, const attention_operands<bfloat16> &in)
{
    float most = -INFINITY;
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            most = fmaxf(most, sqrt_fast(squares[t][i] * key_square) * (in.scale * LOG2_E) + shift[t][i]);
    return __all_sync(0xffffffffu, most <= SAFE_EXPONENT);
}

/* Moves every row's reference up to the largest logit of a chunk, `tops` of all lanes, where that is larger. */
template <int D, int TILES, bool STATISTICS>
static __device__ __forceinline__ void move_references(forward_rows<D, STATISTICS> &rows, const float (&tops)[TILES][2])
{
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float shift = fminf(rows.shift[t][i], -row_max(tops[t][i])), rise = rows.shift[t][i] - shift;
            float shrink = exp2_fast(-rise);
            rows.shift[t][i] = shift;
            if (STATISTICS) {
                rows.entropy[t][i] = (rows.entropy[t][i] - rise * rows.sum[t][i]) * shrink;
                /* A new reference is itself among these keys: the largest exponential so far is the next one. */
                rows.top[t][i] = rise > 0 ? 0 : rows.top[t][i];
            }
            rows.sum[t][i] *= shrink;
#pragma unroll
            for (int j = 0; j < D / 8; j++) {
                rows.out[t][j][2 * i] *= shrink;
                rows.out[t][j][2 * i + 1] *= shrink;
            }
        }
}

/* Products of the queries with HALVES * 8 keys to exponentials. */
template <int D, int TILES, int HALVES, bool STATISTICS>
static __device__ __forceinline__ void exponentiate(float (&logits)[TILES][2][4], const float4 (&column)[2],
                                                    forward_rows<D, STATISTICS> &rows)
{
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int n = 0; n < HALVES; n++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                float exponent = fmaf(logits[t][n][c], c % 2 ? column[n].y : column[n].x, rows.shift[t][c / 2]);
                float exponential = exp2_fast(exponent);
                rows.sum[t][c / 2] += exponential;
                if (STATISTICS)
                    rows.entropy[t][c / 2] = fmaf(exponential, exponent, rows.entropy[t][c / 2]);
                logits[t][n][c] = exponential;
            }
}

/* Where a lane reads keys and columns of a chunk. Values lie a constant further than keys: both are read in the order
 * DOWN, which has the keys' two units in the other two registers than ACROSS. */
template <int D, bool STATISTICS> struct chunk_place {
    matrix_columns<D, !forward_is_tight<D, STATISTICS>> keys;
    const float4 *columns;

    __device__ __forceinline__ chunk_place(const typename forward_layout<D>::ring &ring, int chunk, lane_position at)
        : keys(ring.keys(chunk) + matrix_offset<D>(DOWN, at.lane)), columns(ring.columns(chunk) + at.pair)
    {
    }

    __device__ __forceinline__ void advance(int rows)
    {
        keys.advance(rows);
        columns += rows / 2;
    }
};

/* Products of the queries' columns from 16 K on with HALVES * 8 keys, the chunk's from ROW on. */
template <int D, int TILES, int HALVES, int ROW, bool STATISTICS, int K = 0>
static __device__ __forceinline__ void multiply_keys(float (&logits)[TILES][2][4],
                                                     const uint32_t (&queries)[forward_layout<D>::tiles][D / 16][4],
                                                     const chunk_place<D, STATISTICS> &place, const float4 (&column)[2])
{
    uint32_t b[4];
    load_matrices<place.keys.template offset<K, ROW>>(b, place.keys.template at<K>());
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int n = 0; n < HALVES; n++)
            if (K == 0)
                multiply(logits[t][n], queries[t][K], b[n], b[n + 2], column[n].z, column[n].w, column[n].z,
                         column[n].w);
            else
                multiply_add(logits[t][n], queries[t][K], b[n], b[n + 2]);
    if constexpr (K + 1 < D / 16)
        multiply_keys<D, TILES, HALVES, ROW, STATISTICS, K + 1>(logits, queries, place, column);
}

/* Products of exponentials with the values' columns from 16 J on. */
template <int D, int TILES, int HALVES, int ROW, bool STATISTICS, int J = 0>
static __device__ __forceinline__ void multiply_values(forward_rows<D, STATISTICS> &rows,
                                                       const uint32_t (&exponentials)[TILES][4],
                                                       const chunk_place<D, STATISTICS> &place)
{
    uint32_t b[4];
    load_matrices_transposed<forward_layout<D>::ring::chunk_bytes + place.keys.template offset<J, ROW>>(
        b, place.keys.template at<J>());
#pragma unroll
    for (int t = 0; t < TILES; t++)
        if (HALVES == 2) {
            multiply_add(rows.out[t][2 * J], exponentials[t], b[0], b[1]);
            multiply_add(rows.out[t][2 * J + 1], exponentials[t], b[2], b[3]);
        } else {
            multiply_add_half(rows.out[t][2 * J], exponentials[t], b[0]);
            multiply_add_half(rows.out[t][2 * J + 1], exponentials[t], b[2]);
        }
    if constexpr (J + 1 < D / 16)
        multiply_values<D, TILES, HALVES, ROW, STATISTICS, J + 1>(rows, exponentials, place);
}

/* HALVES * 8 keys and values of a chunk from ROW on meet the first TILES tiles of a warp's queries. */
template <int D, int TILES, int HALVES, int ROW, bool STATISTICS>
static __device__ __forceinline__ void attend(forward_rows<D, STATISTICS> &rows,
                                              const uint32_t (&queries)[forward_layout<D>::tiles][D / 16][4],
                                              const chunk_place<D, STATISTICS> &place)
{
    float4 column[2] = {place.columns[ROW / 2], HALVES == 2 ? place.columns[ROW / 2 + 4] : float4()};
    float logits[TILES][2][4] = {};
    multiply_keys<D, TILES, HALVES, ROW, STATISTICS>(logits, queries, place, column);
    exponentiate<D, TILES, HALVES>(logits, column, rows);
    uint32_t exponentials[TILES][4]; /* the left operand of the next product */
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int c = 0; c < 2 * HALVES; c++) {
            exponentials[t][c] = pack_bf16(logits[t][c / 2][c % 2 * 2], logits[t][c / 2][c % 2 * 2 + 1]);
            if (STATISTICS)
                rows.top[t][c % 2] = largest_of_two(rows.top[t][c % 2], exponentials[t][c]);
        }
    multiply_values<D, TILES, HALVES, ROW>(rows, exponentials, place);
}

/* The same for the first `inside` keys of a chunk, 32 or 16 at a time; the last 8 alone where that is enough. */
template <int D, int TILES, bool STATISTICS>
static __device__ __forceinline__ void attend_chunk(forward_rows<D, STATISTICS> &rows,
                                                    const uint32_t (&queries)[forward_layout<D>::tiles][D / 16][4],
                                                    chunk_place<D, STATISTICS> place, int inside)
{
    if constexpr (!forward_is_tight<D, STATISTICS>) {
#pragma unroll 1
        for (; inside > 24; inside -= 32) {
            attend<D, TILES, 2, 0>(rows, queries, place);
            attend<D, TILES, 2, 16>(rows, queries, place);
            place.advance(32);
        }
    }
#pragma unroll 1
    for (; inside > 8; inside -= 16) {
        attend<D, TILES, 2, 0>(rows, queries, place);
        place.advance(16);
    }
    if (inside > 0)
        attend<D, TILES, 1, 0>(rows, queries, place);
}

/* Where a logit of a chunk is far above its row's reference, references move, before the chunk is attended to. This
 * multiplies queries and keys twice; to keep the products of a chunk there are no registers. */
template <int D, int TILES, bool STATISTICS>
static __device__ __forceinline__ void find_references(forward_rows<D, STATISTICS> &rows,
                                                       const uint32_t (&queries)[forward_layout<D>::tiles][D / 16][4],
                                                       chunk_place<D, STATISTICS> place, int inside)
{
    float tops[TILES][2];
#pragma unroll
    for (int t = 0; t < TILES; t++)
        tops[t][0] = tops[t][1] = MASKED;
#pragma unroll 1
    for (; inside > 0; inside -= 16) {
        float4 column[2] = {place.columns[0], place.columns[4]};
        float logits[TILES][2][4];
        multiply_keys<D, TILES, 2, 0, STATISTICS>(logits, queries, place, column);
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int n = 0; n < 2; n++)
#pragma unroll
                for (int c = 0; c < 4; c++)
                    tops[t][c / 2] = fmaxf(tops[t][c / 2], logits[t][n][c] * (c % 2 ? column[n].y : column[n].x));
        place.advance(16);
    }
    bool far = false;
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            far |= tops[t][i] + rows.shift[t][i] > REFERENCE_SLACK;
    if (__any_sync(0xffffffffu, far))
        move_references<D, TILES>(rows, tops);
}

#endif
