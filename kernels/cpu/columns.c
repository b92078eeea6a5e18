/* Sums over rows: each thread adds up its span of rows in its own part of the workspace, and the parts are added to the
 * result in thread order, so that the same number of threads gives the same bits. */
#include <string.h>

#include "kernels/cpu/bf16.h"
#include "kernels/cpu/columns.h"

static size_t stride(size_t columns)
{
    return cpu_align(columns * sizeof(float)) / sizeof(float);
}

size_t cpu_rows_workspace_bytes(const struct context_options *options)
{
    const struct workload *load = &options->workload;
    size_t columns = 3 * load->dim; /* LayerNorm's weight, bias and LayerScale's gamma; the bias of QKV */
    columns = load->hidden > columns ? load->hidden : columns;
    columns = load->classes > columns ? load->classes : columns;
    return (size_t)cpu_threads(options) * stride(columns) * sizeof(float);
}

float *column_partial(struct context *ctx, int thread, size_t columns)
{
    float *partial = (float *)(void *)ctx->workspace + (size_t)thread * stride(columns);
    memset(partial, 0, columns * sizeof *partial);
    return partial;
}

void column_add(struct context *ctx, float *sum, size_t first, size_t count, size_t columns)
{
    const float *partials = (const float *)(const void *)ctx->workspace;
    for (int thread = 0; thread < ctx->threads; thread++) {
        const float *restrict partial = partials + (size_t)thread * stride(columns) + first;
        for (size_t i = 0; i < count; i++)
            sum[i] += partial[i];
    }
}

/* Four rows at a time: the partial sums are read and written a quarter as often. */
ALWAYS_INLINE void sum_rows(float *restrict partial, const void *x, size_t begin, size_t end, size_t columns,
                            enum dtype dtype)
{
    size_t row = begin;
    for (; row + 4 <= end; row += 4) {
        const void *x0 = const_at(x, row * columns, dtype), *x1 = const_at(x0, columns, dtype);
        const void *x2 = const_at(x1, columns, dtype), *x3 = const_at(x2, columns, dtype);
        for (size_t i = 0; i < columns; i++)
            partial[i] += (load(x0, i, dtype) + load(x1, i, dtype)) + (load(x2, i, dtype) + load(x3, i, dtype));
    }
    for (; row < end; row++) {
        const void *x0 = const_at(x, row * columns, dtype);
        for (size_t i = 0; i < columns; i++)
            partial[i] += load(x0, i, dtype);
    }
}

void column_sums(struct context *ctx, float *sum, const void *x, size_t rows, size_t columns)
{
#pragma omp parallel for schedule(static, 1) num_threads(ctx->threads) if (ctx->threads > 1)
    for (int thread = 0; thread < ctx->threads; thread++) {
        size_t begin, end;
        cpu_span(rows, ctx->threads, thread, &begin, &end);
        float *partial = column_partial(ctx, thread, columns);
        if (ctx->dtype == DTYPE_FLOAT32)
            sum_rows(partial, x, begin, end, columns, DTYPE_FLOAT32);
        else
            sum_rows(partial, x, begin, end, columns, DTYPE_BFLOAT16);
    }
    column_add(ctx, sum, 0, columns, columns);
}
