/* What a warp of the bfloat16 forward kernel keeps, and its work on a chunk of keys: logits, exponentials, products.
 * forward_sm80.cu says how warps and chunks meet. */
#ifndef QUEST_KERNELS_CUDA_ATTENTION_FORWARD_SM80_CUH
#define QUEST_KERNELS_CUDA_ATTENTION_FORWARD_SM80_CUH

#include "kernels/cuda/attention/chunks_sm80.cuh"

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

#endif
