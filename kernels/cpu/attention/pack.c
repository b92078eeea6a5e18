/* Operands of the attention products: rows of a head, cut out of the packed [batch, tokens, 3, heads, head_dim] and put
 * into cells in the order in which the products read them. Each is packed once a task, for 2 * tokens operations on
 * every number of it later. */
#include "kernels/cpu/attention/attention.h"

enum { TILE_ROWS = 16, TILE_CELLS = 8 }; /* of the transposition */

#ifdef __AVX512F__
/* out [TILE_CELLS][out_stride] = the transposed TILE_CELLS cells of TILE_ROWS rows. Rows i and i + 4 share a register,
 * so that after two rounds of shuffles inside 128-bit lanes, one across them gives 16 rows in order. */
static void transpose_tile(float *out, size_t out_stride, const float *const rows[TILE_ROWS], size_t first)
{
    __m512 pair[8], two[8], four[8];
    for (int i = 0; i < 8; i++) {
        int row = i < 4 ? i : i + 4;
        __m512 low = _mm512_castps256_ps512(_mm256_loadu_ps(rows[row] + first));
        pair[i] = _mm512_insertf32x8(low, _mm256_loadu_ps(rows[row + 4] + first), 1);
    }
    for (int i = 0; i < 8; i += 2) {
        two[i] = _mm512_unpacklo_ps(pair[i], pair[i + 1]);
        two[i + 1] = _mm512_unpackhi_ps(pair[i], pair[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        four[i] = _mm512_shuffle_ps(two[i], two[i + 2], 0x44);
        four[i + 1] = _mm512_shuffle_ps(two[i], two[i + 2], 0xee);
        four[i + 2] = _mm512_shuffle_ps(two[i + 1], two[i + 3], 0x44);
        four[i + 3] = _mm512_shuffle_ps(two[i + 1], two[i + 3], 0xee);
    }
    for (size_t i = 0; i < 4; i++) {
        _mm512_storeu_ps(out + i * out_stride, _mm512_shuffle_f32x4(four[i], four[i + 4], 0x88));
        _mm512_storeu_ps(out + (i + 4) * out_stride, _mm512_shuffle_f32x4(four[i], four[i + 4], 0xdd));
    }
}
#else
static void transpose_tile(float *out, size_t out_stride, const float *const rows[TILE_ROWS], size_t first)
{
    for (size_t row = 0; row < TILE_ROWS; row++)
        for (size_t i = 0; i < TILE_CELLS; i++)
            memcpy(out + i * out_stride + row, rows[row] + first + i, sizeof(float));
}
#endif

/* The same for the last `count` cells of rows, fewer than TILE_CELLS; then zeros. */
static __attribute__((noinline)) void transpose_rest(float *out, size_t out_stride, const float *const rows[TILE_ROWS],
                                                     size_t first, size_t count)
{
    float filled[TILE_ROWS][TILE_CELLS] = {{0}};
    const float *of_filled[TILE_ROWS];
    for (size_t i = 0; i < TILE_ROWS; i++) {
        memcpy(filled[i], rows[i] + first, count * sizeof(float));
        of_filled[i] = filled[i];
    }
    transpose_tile(out, out_stride, of_filled, 0);
}

/* out [cells][out_stride] = up to TILE_ROWS rows transposed; the columns of rows that do not exist become zero, and so
 * do cells after the last one, up to a multiple of TILE_CELLS. */
static void transpose_rows(float *out, size_t out_stride, struct rows rows, size_t first, size_t count, size_t cells,
                           enum dtype dtype)
{
    static const float zeros[ATTENTION_MOST_HEAD_DIM];
    const float *row[TILE_ROWS];
    size_t whole = cells - cells % TILE_CELLS, rest = cells % TILE_CELLS;
    for (size_t i = 0; i < TILE_ROWS; i++)
        row[i] = i < count ? const_at(rows.data, (first + i) * rows.stride, dtype) : zeros;
    for (size_t first_cell = 0; first_cell < whole; first_cell += TILE_CELLS)
        transpose_tile(out + first_cell * out_stride, out_stride, row, first_cell);
    if (rest)
        transpose_rest(out + whole * out_stride, out_stride, row, whole, rest);
}

void attention_pack_blocks(float *blocks, struct rows rows, size_t count, size_t head_dim, enum dtype dtype)
{
    size_t cells = cells_of(head_dim, dtype), block_cells = cells_of(attention_width(head_dim), dtype) * BLOCK_STRIDE;
    for (size_t i = 0; i < blocks_of(count); i++) {
        size_t begin = block_begin(count, i), end = block_begin(count, i + 1);
        transpose_rows(blocks + i * block_cells, BLOCK_STRIDE, rows, begin, end - begin, cells, dtype);
    }
}

void attention_pack_panel(float *panel, struct rows rows, size_t first, size_t count, size_t head_dim, enum dtype dtype)
{
    for (size_t lane = 0; lane < PANEL; lane += TILE_ROWS) {
        size_t present = count > lane ? count - lane : 0;
        transpose_rows(panel + lane, PANEL, rows, first + lane, present, cells_of(head_dim, dtype), dtype);
    }
}

static void pack_steps_float32(float *steps, struct rows rows, size_t count, size_t head_dim)
{
    size_t width = attention_width(head_dim), whole = head_dim - head_dim % VECTOR_FLOATS;
    for (size_t i = 0; i < count; i++, steps += width) {
        const float *row = (const float *)rows.data + i * rows.stride;
        for (size_t j = 0; j < whole; j += VECTOR_FLOATS)
            vector_store(steps + j, vector_load(row + j));
        if (whole < head_dim)
            vector_store(steps + whole, vector_load_half_as(row, whole, DTYPE_FLOAT32));
    }
}

void attention_pack_steps(float *steps, struct rows rows, size_t count, size_t head_dim, enum dtype dtype)
{
    if (dtype == DTYPE_FLOAT32) {
        pack_steps_float32(steps, rows, count, head_dim);
        return;
    }
    size_t width = attention_width(head_dim);
    uint32_t *pairs = (uint32_t *)steps;
    for (size_t i = 0; i < count; i += 2, pairs += width) {
        const uint16_t *even = (const uint16_t *)rows.data + i * rows.stride;
        const uint16_t *odd = even + rows.stride;
        if (i + 1 < count)
            for (size_t j = 0; j < head_dim; j++)
                pairs[j] = even[j] | (uint32_t)odd[j] << 16;
        else
            for (size_t j = 0; j < head_dim; j++)
                pairs[j] = even[j];
        for (size_t j = head_dim; j < width; j++)
            pairs[j] = 0;
    }
}

void attention_unpack_panel(float *rows, const float *columns, size_t head_dim)
{
    struct rows of_columns = {columns, PANEL};
    size_t width = attention_width(head_dim);
    for (size_t i = 0; i < head_dim; i += TILE_ROWS)
        transpose_rows(rows + i, width, of_columns, i, TILE_ROWS, PANEL, DTYPE_FLOAT32);
}

void attention_prefetch(struct rows rows, size_t first, size_t count, size_t head_dim, enum dtype dtype)
{
    for (size_t i = first; i < first + count; i++) {
        const char *row = const_at(rows.data, i * rows.stride, dtype);
        for (size_t byte = 0; byte < head_dim * dtype_bytes(dtype); byte += 64)
            __builtin_prefetch(row + byte, 0, 2);
    }
}
