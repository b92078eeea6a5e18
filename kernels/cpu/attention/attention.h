/* What the files of the CPU's attention share.
 *
 * The work is cut into tasks of one (image, head); a thread does a task alone, in scratch of its own. Inside,
 * everything lies *queries along the lanes*: a panel of PANEL queries is one or two vectors wide, and the logits of a
 * panel are the matrix S^T [keys][PANEL]. Then softmax needs no sum or maximum across a vector, and probabilities leave
 * it in just the layout in which the next matrix product loads them. No [tokens, tokens] matrix is kept: forward needs
 * one panel [tokens][PANEL]; backward keeps two of them for each of the few panels of a tile (attention_tile_panels).
 *
 *   forward, a panel:    S^T = K Q^T           A = K blocks         B = Q panel      attention_scores
 *                        O^T = V^T P^T         A = V steps          B = P^T          attention_mix
 *   backward, a panel:   S^T again, dP^T = V dO^T                                    attention_scores
 *                        dQ^T = K^T dS^T       A = K steps          B = dS^T         attention_mix
 *   backward, a tile:    dV += P^T dO, dK += dS^T Q                 B = dO, Q steps  attention_collect
 *
 * Operands of these products are packed once a task into cells (vector.h), n of them along the sum:
 *
 *   operand   cells                      rows of a matrix                               the sum is over
 *   blocks    [block][n][BLOCK_STRIDE]   transposed, in blocks of BLOCK_ROWS or fewer   head_dim
 *   panel     [n][PANEL]                 PANEL of them transposed, missing ones zero    head_dim
 *   steps     [n][width]                 as they are; bfloat16: two rows interleaved    rows
 *
 * `width` is attention_width(head_dim).
 */
#ifndef QUEST_KERNELS_CPU_ATTENTION_ATTENTION_H
#define QUEST_KERNELS_CPU_ATTENTION_ATTENTION_H

#include "kernels/attention_kinds.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vector.h"

enum {
    PANEL = 2 * VECTOR_FLOATS,
    BLOCK_STRIDE = 16 /* cells between steps of a block: a cache line, and a row of the transposition */
};

/* Numbers from one row of scratch to the next: a head_dim that is an odd multiple of 8 is filled up to whole vectors.
 * Products skip what is filled up wherever they can. */
ALWAYS_INLINE size_t attention_width(size_t head_dim)
{
    return (head_dim + 15) / 16 * 16;
}

/* Rows of T, one a token, `stride` numbers apart. */
struct rows {
    const void *data;
    size_t stride;
};

/* Rows of one head of one image in the packed qkv (or its gradient); part 0, 1, 2: queries, keys, values. */
static inline struct rows attention_rows(const void *qkv, const struct attention_shape *shape, size_t part,
                                         size_t image, size_t head, enum dtype dtype)
{
    size_t first = ((image * shape->tokens * 3 + part) * shape->heads + head) * shape->head_dim;
    return (struct rows){const_at(qkv, first, dtype), 3 * shape->heads * shape->head_dim};
}

/* Cells that n numbers along a sum take. */
ALWAYS_INLINE size_t cells_of(size_t n, enum dtype dtype)
{
    return dtype == DTYPE_FLOAT32 ? n : (n + 1) / 2;
}

static inline size_t blocks_of(size_t rows)
{
    return (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
}

/* First row of a block: rows are shared out evenly. */
static inline size_t block_begin(size_t rows, size_t block)
{
    return rows * block / blocks_of(rows);
}

/* ---- pack.c: operands of the products ---- */

/* Blocks of all `count` rows: cells [blocks_of(count)][cells_of(width)][BLOCK_STRIDE]. */
void attention_pack_blocks(float *blocks, struct rows rows, size_t count, size_t head_dim, enum dtype dtype);
/* Panel of rows first..: cells [cells_of(width)][PANEL]. `count` rows exist from `first` on; the others are zero. */
void attention_pack_panel(float *panel, struct rows rows, size_t first, size_t count, size_t head_dim,
                          enum dtype dtype);
/* Steps of all `count` rows: cells [cells_of(count)][width]; zero where they are filled up. */
void attention_pack_steps(float *steps, struct rows rows, size_t count, size_t head_dim, enum dtype dtype);
/* rows [PANEL][width] = the transposed columns [width][PANEL]. */
void attention_unpack_panel(float *rows, const float *columns, size_t head_dim);

/* Asks for `count` rows from `first` on in the second-level cache: of the next task, while this one multiplies. Its
 * rows lie too far apart for the CPU to foresee. */
void attention_prefetch(struct rows rows, size_t first, size_t count, size_t head_dim, enum dtype dtype);

/* ---- product.c: the matrix products; `lanes` is VECTOR_FLOATS or PANEL ---- */

/* out [keys][PANEL] = rows of `blocks` times the panel, summed over head_dim. */
void attention_scores(float *out, const float *blocks, const float *panel, size_t keys, size_t lanes, size_t head_dim,
                      enum dtype dtype);
/* out [head_dim][PANEL] = sum over keys of steps[key][:] * weights[key][PANEL] (cells). */
void attention_mix(float *out, const float *steps, const float *weights, size_t keys, size_t lanes, size_t head_dim,
                   enum dtype dtype);
/* out [keys][width] (+)= sum over `queries` of weights * steps[query][:]. The weights of a tile are cells
 * [panel][keys][PANEL / (1 or 2)], the steps begin with the tile's first query. */
void attention_collect(float *out, const float *weights, const float *steps, size_t keys, size_t queries,
                       size_t head_dim, bool accumulate, enum dtype dtype);

/* ---- normalise.c: from rows of Q or K to what enters the product, and back ---- */

/* What a kind does to the rows of one side (Q or K) of one head:  row' = factor * (weight * x + bias)
 *   NORM_NONE   factor = 1;               NORM_UNIT   factor = 1 / max(|x|, 1e-6)
 *   NORM_LAYER  factor = 1, x replaced by (x - mean) * rstd
 * weight and bias may be NULL (1, 0). The factor is applied to the logits, after the product, so that most kinds need
 * no copy of their rows and bfloat16 none rounded twice. */
struct side {
    enum attention_norm norm;
    const float *weight, *bias;
};

/* Gradients of the learned extras from one task. */
struct attention_extras {
    float of_channel[EXTRA_SCALE][ATTENTION_MOST_HEAD_DIM]; /* all but the last extra */
    double scale;
};

struct side attention_query_side(enum attention_kind kind, const struct attention_parameters *parameters);
struct side attention_key_side(enum attention_kind kind, const struct attention_parameters *parameters);
/* The number that multiplies all logits of the head besides the factors. */
float attention_logit_scale(const struct attention_shape *shape, const struct attention_parameters *parameters,
                            size_t head);

/* dots [count] = a row . b row; norms [count] = |row|. */
void attention_row_dots(float *dots, struct rows a, struct rows b, size_t count, size_t head_dim, enum dtype dtype);
void attention_row_norms(float *norms, struct rows rows, size_t count, size_t head_dim, enum dtype dtype);
/* factors [count], and where the side changes rows (weight, bias or LayerNorm), `copy` T [count][width] gets the
 * new ones; returns the rows that enter the product. */
struct rows attention_normalise(float *factors, void *copy, struct side side, struct rows rows, size_t count,
                                size_t head_dim, enum dtype dtype);
/* Where the gradients of a side go: of its rows, T, as far apart as those; of weight and bias, added, [head_dim]. */
struct side_gradients {
    unsigned char *rows;
    float *weight, *bias;
};
/* product_gradient [count][width], times `scale`, is the gradient of the rows that entered the product, with the
 * factors as constants. */
void attention_normalise_backward(struct side_gradients to, const float *product_gradient, float scale,
                                  struct side side, struct rows rows, size_t count, size_t head_dim, enum dtype dtype);

/* ---- extras.c ---- */

/* One query's part of the gradient of the logits' scale. In float64: the terms of a head nearly cancel. */
double attention_scale_gradient(const float *product_gradient, const void *query, size_t head_dim, enum dtype dtype);
/* Adds up the tasks' gradients of the learned extras in the order of (image, head), whatever thread made them. */
void attention_reduce_extras(const struct attention_gradients *gradients, const struct attention_extras *extras,
                             const struct attention_shape *shape);

/* ---- softmax.c: between the products, over the keys of a panel ---- */

/* What softmax knows of each query of a panel. */
struct panel_sums {
    float maximum[PANEL];
    float sum[PANEL];      /* of exp(logit - maximum) */
    float weighted[PANEL]; /* of exp(logit - maximum) * (logit - maximum); zero without statistics */
};

/* What softmax's backward needs of each query: the logits' scale with the query's factor, the factor alone, ... */
struct panel_lanes {
    float scale[PANEL], factor[PANEL], logsumexp[PANEL], delta[PANEL];
};

/* Where softmax's backward puts a panel's P and H, as the products want them. */
struct panel_weights {
    float *probabilities, *gradients; /* cells [keys][PANEL], bfloat16 [keys][PANEL / 2] */
    float *key_pairs;                 /* bfloat16 only: H in cells [cells_of(keys)][PANEL] */
};

/* weights: cells [cells_of(keys)][PANEL] of exp(logit - maximum), from scores [keys][PANEL], raw products of rows; the
 * logit is that times lane_scale [PANEL] and key_factors [keys]. weights may be scores in float32. */
void attention_softmax(float *weights, const float *scores, struct panel_sums *sums, const float *key_factors,
                       const float *lane_scale, size_t keys, size_t lanes, bool statistics, enum dtype dtype);
/* From scores as above and gradients [keys][PANEL], dP; both may be the out's in float32. */
void attention_softmax_backward(const struct panel_weights *out, const float *scores, const float *gradients,
                                const struct panel_lanes *of, const float *key_factors, size_t keys, size_t lanes,
                                enum dtype dtype);

/* ---- statistics.c ---- */

/* One task's record: empty; with the norms [count] of rows in record[first] (sum, sum of squares, min, max); with a
 * panel's logits and entropies. */
void attention_statistics_begin(double *record);
void attention_norm_statistics(double *record, enum attention_statistic first, const float *norms, size_t count);
void attention_panel_statistics(double *record, const struct panel_sums *sums, size_t queries);
/* statistics [heads] combined with the tasks' records [batch][heads], images in order. */
void attention_statistics_combine(double *statistics, const double *records, size_t batch, size_t heads);

/* ---- scratch.c ---- */

/* A thread's scratch, in cells unless said otherwise. `tile` stands for attention_tile_panels(tokens). */
struct attention_scratch {
    float *key_blocks, *value_blocks;        /* blocks of all keys */
    float *key_steps, *value_steps;          /* steps of all keys */
    float *query_steps, *out_gradient_steps; /* steps of all queries */
    float *query_panel, *out_gradient_panel; /* [width][PANEL] */
    float *scores, *score_gradients;         /* float [tokens][PANEL]; float32: [tile][tokens][PANEL] */
    float *probabilities, *gradients;        /* the tile's: those, or bfloat16 [tile][tokens][PANEL / 2] */
    float *key_pairs;                        /* bfloat16 only: [cells_of(tokens)][PANEL] */
    float *columns, *panel_rows;             /* float [width][PANEL] and its transpose */
    float *key_gradients, *value_gradients;  /* float [tokens][width] */
    float *query_factors, *key_factors;      /* float [tokens] */
    float *delta;                            /* float [tokens], backward; norms with statistics */
    void *query_copy, *key_copy;             /* T [tokens][width] */
};

/* The workspace of one call: a thread's scratch each, then the tasks' results, [batch * heads] each. */
struct attention_workspace {
    struct attention_extras *extras;
    double *records; /* [ATTENTION_STATISTICS] a task */
    unsigned char *scratch;
    size_t scratch_bytes; /* a thread */
};

/* Panels whose probabilities backward keeps before it collects dK and dV. */
size_t attention_tile_panels(size_t tokens);
/* Fails where the shape is none that these files can do, or larger than the workload that the context was opened for.
 */
bool attention_workspace_open(struct attention_workspace *workspace, const struct context *ctx,
                              const struct attention_shape *shape, struct error *error);
struct attention_scratch attention_scratch_of(const struct attention_workspace *workspace,
                                              const struct attention_shape *shape, int thread, enum dtype dtype);

#endif
