/* Transposes the gradients that a weight's gradient is made of, and adds up their columns (the bias's gradient) while
 * they are in registers.
 *
 * A tile is 16 rows of 64 bytes: 16 float32 columns, or 32 bfloat16 columns, which are first transposed as 16 pairs and
 * then pulled apart. What does not fill a tile is moved number by number. */
#include "kernels/cpu/transpose.h"

#ifdef __AVX512BW__
#include <immintrin.h>
#endif

#include "kernels/bfloat16.h"

#ifdef __AVX512BW__
enum { TILE_ROWS = 16, TILE_BYTES = 64 };

/* 16 rows of 16 four-byte cells, in place: pairs of rows, then fours, then the 128-bit lanes. */
ALWAYS_INLINE void transpose_cells(__m512 rows[TILE_ROWS])
{
    __m512 twos[16], fours[16];
    for (int i = 0; i < 16; i += 2) {
        twos[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
        twos[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            __m512d upper = _mm512_castps_pd(twos[i + j]), lower = _mm512_castps_pd(twos[i + 2 + j]);
            fours[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(upper, lower));
            fours[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(upper, lower));
        }
    /* Lane l of fours[4 k + j] holds column 4 l + j of rows 4 k to 4 k + 3. */
    for (int j = 0; j < 4; j++) {
        __m512 even_low = _mm512_shuffle_f32x4(fours[j], fours[4 + j], 0x88);
        __m512 even_high = _mm512_shuffle_f32x4(fours[8 + j], fours[12 + j], 0x88);
        __m512 odd_low = _mm512_shuffle_f32x4(fours[j], fours[4 + j], 0xdd);
        __m512 odd_high = _mm512_shuffle_f32x4(fours[8 + j], fours[12 + j], 0xdd);
        rows[j] = _mm512_shuffle_f32x4(even_low, even_high, 0x88);
        rows[4 + j] = _mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
        rows[8 + j] = _mm512_shuffle_f32x4(even_low, even_high, 0xdd);
        rows[12 + j] = _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd);
    }
}

ALWAYS_INLINE __m512 sum_of(const __m512 x[TILE_ROWS])
{
    __m512 s[8];
    for (int i = 0; i < 8; i++)
        s[i] = _mm512_add_ps(x[i], x[i + 8]);
    for (int half = 4; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            s[i] = _mm512_add_ps(s[i], s[i + half]);
    return s[0];
}

ALWAYS_INLINE void add_to(float *sums, __m512 x)
{
    _mm512_storeu_ps(sums, _mm512_add_ps(_mm512_loadu_ps(sums), x));
}

/* Even columns are the lower halves of the pairs, odd ones the upper. */
ALWAYS_INLINE void sum_pairs(float *sums, const __m512 pairs[TILE_ROWS])
{
    const __m512i upper_half = _mm512_set1_epi32((int)0xffff0000u);
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    __m512 even[TILE_ROWS], odd[TILE_ROWS];
    for (int i = 0; i < TILE_ROWS; i++) {
        __m512i bits = _mm512_castps_si512(pairs[i]);
        even[i] = _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
        odd[i] = _mm512_castsi512_ps(_mm512_and_si512(bits, upper_half));
    }
    __m512 even_sum = sum_of(even), odd_sum = sum_of(odd);
    add_to(sums, _mm512_permutex2var_ps(even_sum, low, odd_sum));
    add_to(sums + 16, _mm512_permutex2var_ps(even_sum, high, odd_sum));
}

/* `in` and `out` are the tile's first numbers. */
ALWAYS_INLINE void transpose_tile(char *out, size_t out_stride_bytes, float *sums, const char *in,
                                  size_t in_stride_bytes, enum dtype dtype)
{
    __m512 rows[TILE_ROWS];
    for (size_t i = 0; i < TILE_ROWS; i++)
        rows[i] = _mm512_loadu_ps(in + i * in_stride_bytes);
    if (sums && dtype == DTYPE_FLOAT32)
        add_to(sums, sum_of(rows));
    else if (sums)
        sum_pairs(sums, rows);
    transpose_cells(rows);
    for (size_t i = 0; i < 16; i++) {
        if (dtype == DTYPE_FLOAT32) {
            _mm512_storeu_ps(out + i * out_stride_bytes, rows[i]);
            continue;
        }
        __m512i pairs = _mm512_castps_si512(rows[i]);
        char *even = out + 2 * i * out_stride_bytes, *odd = even + out_stride_bytes;
        _mm256_storeu_si256((__m256i *)(void *)even, _mm512_cvtepi32_epi16(pairs));
        _mm256_storeu_si256((__m256i *)(void *)odd, _mm512_cvtepi32_epi16(_mm512_srli_epi32(pairs, 16)));
    }
}
#else
enum { TILE_ROWS = 1, TILE_BYTES = 0 }; /* no tiles */
#endif

/* Number by number. */
ALWAYS_INLINE void transpose_edge(struct transposition of, size_t first_row, size_t end_row, size_t begin, size_t end,
                                  enum dtype dtype)
{
    for (size_t row = first_row; row < end_row; row++)
        for (size_t c = begin; c < end; c++) {
            memcpy(at(of.out, c * of.out_stride + row, dtype), const_at(of.in, row * of.in_stride + c, dtype),
                   dtype_bytes(dtype));
            if (of.sums)
                of.sums[c] += load(of.in, row * of.in_stride + c, dtype);
        }
}

ALWAYS_INLINE void transpose_columns(struct transposition of, size_t rows, size_t begin, size_t end, enum dtype dtype)
{
    size_t tile_columns = TILE_BYTES / dtype_bytes(dtype), c = begin, whole = 0;
#ifdef __AVX512BW__
    whole = rows / TILE_ROWS * TILE_ROWS;
    for (; c + tile_columns <= end; c += tile_columns)
        for (size_t row = 0; row < whole; row += TILE_ROWS)
            transpose_tile(at(of.out, c * of.out_stride + row, dtype), of.out_stride * dtype_bytes(dtype),
                           of.sums ? of.sums + c : NULL, const_at(of.in, row * of.in_stride + c, dtype),
                           of.in_stride * dtype_bytes(dtype), dtype);
#else
    (void)tile_columns;
#endif
    transpose_edge(of, whole, rows, begin, c, dtype);
    transpose_edge(of, 0, rows, c, end, dtype);
}

void transpose_and_sum(struct transposition of, size_t rows, size_t begin, size_t end, enum dtype dtype)
{
    if (dtype == DTYPE_FLOAT32)
        transpose_columns(of, rows, begin, end, DTYPE_FLOAT32);
    else
        transpose_columns(of, rows, begin, end, DTYPE_BFLOAT16);
}
