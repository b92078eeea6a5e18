/* The matrix products of attention: C [rows][lanes] (+)= sum over steps of A [row][step] * B [step][lanes].
 *
 * A block of BLOCK_ROWS x 2 vectors of C stays in registers while the sum runs; a step loads two vectors of B,
 * broadcasts BLOCK_ROWS cells of A (one cache line of a packed operand) and does 28 multiply-adds, so that the
 * multiply-add unit is the limit and not the loads. Rows are shared out evenly over blocks (197 = 2 x 14 + 13 x 13), so
 * that none is left with a single row, whose two accumulators would wait for each other.
 *
 * On a Zen 4 core (114 GFLOP/s of float32 multiply-adds) these run at 111-116 GFLOP/s for 197 tokens and head_dim 64,
 * and at 210-224 in bfloat16. oneDNN's dnnl_sgemm on the packed QKV made 90 for Q K^T and 105 for P V, and would leave
 * the logits of a whole head in memory between the two. */
#include "kernels/cpu/attention/attention.h"

/* Operands of one block. A's cells lie at a[row * a_row + step * a_step]; every `segment_steps` steps it goes on
 * `a_segment` cells after the segment's begin. */
struct block {
    float *c;
    const cell *a, *b;
    size_t c_stride, a_step, a_segment, b_step;
    size_t steps, segment_steps;
    bool accumulate;
};

/* `a_row`, `rows`, `vectors` and `dtype` are constants after inlining, or the sums would not stay in registers. */
ALWAYS_INLINE void block_product(const struct block *block, size_t a_row, int rows, int vectors, enum dtype dtype)
{
    vector sum[BLOCK_ROWS][2];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++)
            sum[i][j] = block->accumulate ? vector_load(block->c + (size_t)i * block->c_stride + j * VECTOR_FLOATS)
                                          : (vector){0};
    const cell *segment = block->a, *b = block->b;
    size_t a_step = block->a_step, b_step = block->b_step;
    for (size_t remaining = block->steps; remaining > 0; segment += block->a_segment) {
        size_t steps = remaining < block->segment_steps ? remaining : block->segment_steps;
        const cell *a = segment;
        for (size_t step = 0; step < steps; step++, a += a_step, b += b_step) {
            vector right[2];
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++)
                right[j] = vector_load(b + j * VECTOR_FLOATS);
#pragma GCC unroll 16
            for (int i = 0; i < rows; i++) {
                vector left = vector_broadcast(a[(size_t)i * a_row]);
#pragma GCC unroll 2
                for (int j = 0; j < vectors; j++)
                    sum[i][j] = vector_dot(left, right[j], sum[i][j], dtype);
            }
        }
        remaining -= steps;
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++)
            vector_store(block->c + (size_t)i * block->c_stride + j * VECTOR_FLOATS, sum[i][j]);
}

#define ROWS_CASE(n)                                                                       \
    case n:                                                                                \
        block_product(block, a_row, (n) <= BLOCK_ROWS ? (n) : BLOCK_ROWS, vectors, dtype); \
        break;

ALWAYS_INLINE void product_of_rows(const struct block *block, size_t a_row, size_t rows, int vectors, enum dtype dtype)
{
    switch (rows) {
        ROWS_CASE(1)
        ROWS_CASE(2)
        ROWS_CASE(3)
        ROWS_CASE(4)
        ROWS_CASE(5)
        ROWS_CASE(6)
        ROWS_CASE(7)
        ROWS_CASE(8)
        ROWS_CASE(9)
        ROWS_CASE(10)
        ROWS_CASE(11)
        ROWS_CASE(12)
        ROWS_CASE(13)
        ROWS_CASE(14)
    }
}

/* The instances: A's rows next to each other (a packed operand), or a panel's row apart (a panel as A). */
static void block_of_packed(const struct block *block, size_t rows, size_t lanes, enum dtype dtype)
{
    bool wide = lanes > VECTOR_FLOATS;
    if (dtype == DTYPE_FLOAT32) {
        if (wide)
            product_of_rows(block, 1, rows, 2, DTYPE_FLOAT32);
        else
            product_of_rows(block, 1, rows, 1, DTYPE_FLOAT32);
    } else {
        if (wide)
            product_of_rows(block, 1, rows, 2, DTYPE_BFLOAT16);
        else
            product_of_rows(block, 1, rows, 1, DTYPE_BFLOAT16);
    }
}

static void block_of_panel(const struct block *block, size_t rows, size_t lanes, enum dtype dtype)
{
    bool wide = lanes > VECTOR_FLOATS;
    if (dtype == DTYPE_FLOAT32) {
        if (wide)
            product_of_rows(block, PANEL, rows, 2, DTYPE_FLOAT32);
        else
            product_of_rows(block, PANEL, rows, 1, DTYPE_FLOAT32);
    } else {
        if (wide)
            product_of_rows(block, PANEL / 2, rows, 2, DTYPE_BFLOAT16);
        else
            product_of_rows(block, PANEL / 2, rows, 1, DTYPE_BFLOAT16);
    }
}

void attention_scores(float *out, const float *blocks, const float *panel, size_t keys, size_t lanes, size_t head_dim,
                      enum dtype dtype)
{
    size_t steps = cells_of(head_dim, dtype), count = blocks_of(keys);
    size_t block_cells = cells_of(attention_width(head_dim), dtype) * BLOCK_STRIDE;
    for (size_t i = 0; i < count; i++) {
        size_t begin = block_begin(keys, i), end = block_begin(keys, i + 1);
        struct block block = {.c = out + begin * PANEL,
                              .c_stride = PANEL,
                              .a = blocks + i * block_cells,
                              .a_step = BLOCK_STRIDE,
                              .b = panel,
                              .b_step = PANEL,
                              .steps = steps,
                              .segment_steps = steps};
        block_of_packed(&block, end - begin, lanes, dtype);
    }
}

void attention_mix(float *out, const float *steps, const float *weights, size_t keys, size_t lanes, size_t head_dim,
                   enum dtype dtype)
{
    size_t count = blocks_of(head_dim);
    for (size_t i = 0; i < count; i++) {
        size_t begin = block_begin(head_dim, i), end = block_begin(head_dim, i + 1);
        struct block block = {.c = out + begin * PANEL,
                              .c_stride = PANEL,
                              .a = steps + begin,
                              .a_step = attention_width(head_dim),
                              .b = weights,
                              .b_step = PANEL,
                              .steps = cells_of(keys, dtype),
                              .segment_steps = cells_of(keys, dtype)};
        block_of_packed(&block, end - begin, lanes, dtype);
    }
}

void attention_collect(float *out, const float *weights, const float *steps, size_t keys, size_t queries,
                       size_t head_dim, bool accumulate, enum dtype dtype)
{
    size_t count = blocks_of(keys), panel_steps = cells_of(PANEL, dtype), width = attention_width(head_dim);
    for (size_t column = 0; column < head_dim; column += PANEL) {
        size_t lanes = head_dim - column <= VECTOR_FLOATS ? VECTOR_FLOATS : PANEL;
        for (size_t i = 0; i < count; i++) {
            size_t begin = block_begin(keys, i), end = block_begin(keys, i + 1);
            struct block block = {.c = out + begin * width + column,
                                  .c_stride = width,
                                  .a = weights + begin * panel_steps,
                                  .a_step = 1,
                                  .a_segment = keys * panel_steps,
                                  .b = steps + column,
                                  .b_step = width,
                                  .steps = cells_of(queries, dtype),
                                  .segment_steps = panel_steps,
                                  .accumulate = accumulate};
            block_of_panel(&block, end - begin, lanes, dtype);
        }
    }
}
