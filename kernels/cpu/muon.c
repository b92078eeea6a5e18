/* Muon's ops on one weight matrix: its running mean, normalised and lying; the polynomial between the products; the
 * step. */
#include "kernels/cpu/optimiser.h"

/* A tile of a matrix that is transposed: its rows' cache lines stay until all of their numbers are used. */
enum { TILE = 16 };

/* A norm is summed over so many parts, whatever the number of threads: ranks with more of them must find the same. */
enum { SPANS = 64 };

static bool is_withheld(const struct muon *muon, double sum_of_squares)
{
    return optimiser_withholds(sum_of_squares, muon->sum_of_squares_limit, muon->earlier_sum_of_squares);
}

struct mean {
    float take, momentum, gradient_scale;
    bool nesterov;
};

ALWAYS_INLINE float direction_at(float m, float gradient, const struct mean *k)
{
    float g = gradient * k->gradient_scale;
    return k->nesterov ? fmaf(k->momentum, m - g, g) : m;
}

/* m, and the sum of squares of the direction. */
static double update_span(float *restrict m, const float *restrict gradient, size_t count, const struct mean *k)
{
    double squares = 0;
#pragma omp simd reduction(+ : squares)
    for (size_t i = 0; i < count; i++) {
        m[i] = fmaf(k->take, gradient[i] * k->gradient_scale - m[i], m[i]);
        double u = (double)direction_at(m[i], gradient[i], k);
        squares += u * u;
    }
    return squares;
}

static double update_mean(struct context *ctx, const struct muon_direction *op, const struct mean *k)
{
    double partials[SPANS], squares = 0;
#pragma omp parallel for schedule(static) num_threads(ctx->threads) if (ctx->threads > 1)
    for (int span = 0; span < SPANS; span++) {
        size_t begin, end;
        cpu_span(op->rows * op->columns, SPANS, span, &begin, &end);
        partials[span] = update_span(op->m + begin, op->gradient + begin, end - begin, k);
    }
    for (int span = 0; span < SPANS; span++)
        squares += partials[span];
    return squares;
}

/* Where number (row, column) of the weight is in the matrix that lies. */
static size_t lying(size_t rows, size_t columns, size_t row, size_t column)
{
    return rows > columns ? column * rows + row : row * columns + column;
}

static void write_tile(const struct muon_direction *op, size_t first_row, size_t first_column, float scale,
                       const struct mean *k, enum dtype dtype)
{
    for (size_t row = first_row; row < first_row + TILE && row < op->rows; row++)
        for (size_t column = first_column; column < first_column + TILE && column < op->columns; column++) {
            size_t i = row * op->columns + column;
            store(op->out, lying(op->rows, op->columns, row, column),
                  scale * direction_at(op->m[i], op->gradient[i], k), dtype);
        }
}

bool cpu_muon_direction(struct context *ctx, const struct muon_direction *op, struct error *error)
{
    (void)error;
    if (is_withheld(op->muon, *op->gradient_sum_of_squares))
        return true;
    const struct mean k = {.take = (float)(1.0 - (double)op->muon->momentum),
                           .momentum = op->muon->momentum,
                           .gradient_scale = optimiser_clip(op->muon->clip_grad_norm, *op->gradient_sum_of_squares),
                           .nesterov = op->muon->nesterov};
    float scale = (float)(1.0 / fmax(sqrt(update_mean(ctx, op, &k)), (double)op->muon->eps));
#pragma omp parallel for schedule(static) num_threads(ctx->threads) if (ctx->threads > 1)
    for (size_t row = 0; row < op->rows; row += TILE)
        for (size_t column = 0; column < op->columns; column += TILE)
            write_tile(op, row, column, scale, &k, ctx->dtype);
    return true;
}

bool cpu_muon_polynomial(struct context *ctx, const struct muon_polynomial *op, struct error *error)
{
    (void)error;
    size_t n = op->n;
#pragma omp parallel for schedule(static) num_threads(ctx->threads) if (ctx->threads > 1)
    for (size_t row = 0; row < n; row++)
        for (size_t i = row * n; i < (row + 1) * n; i++) {
            float sum = fmaf(op->square, load(op->x_squared, i, ctx->dtype), op->linear * load(op->x, i, ctx->dtype));
            store(op->out, i, i == row * n + row ? op->identity + sum : sum, ctx->dtype);
        }
    return true;
}

static void apply_tile(const struct muon_apply *op, size_t first_row, size_t first_column, enum dtype dtype)
{
    bool copy = op->working && op->working != op->master;
    for (size_t row = first_row; row < first_row + TILE && row < op->rows; row++)
        for (size_t column = first_column; column < first_column + TILE && column < op->columns; column++) {
            size_t i = row * op->columns + column;
            float x = load(op->direction, lying(op->rows, op->columns, row, column), dtype);
            op->master[i] = fmaf(-op->step, x, op->keep * op->master[i]);
            if (copy)
                store(op->working, i, op->master[i], dtype);
        }
}

bool cpu_muon_apply(struct context *ctx, const struct muon_apply *op, struct error *error)
{
    (void)error;
    if (is_withheld(op->muon, *op->gradient_sum_of_squares))
        return true;
#pragma omp parallel for schedule(static) num_threads(ctx->threads) if (ctx->threads > 1)
    for (size_t row = 0; row < op->rows; row += TILE)
        for (size_t column = 0; column < op->columns; column += TILE)
            apply_tile(op, row, column, ctx->dtype);
    return true;
}
