#include <string.h>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#include "kernels/cpu/rows.h"

/* The longest row of this workload: LayerNorm sums three gradients (weight, bias, LayerScale's gamma) side by side. */
static size_t longest_row(const struct workload *load)
{
    size_t most = 3 * load->dim;
    most = load->hidden > most ? load->hidden : most;
    return load->classes > most ? load->classes : most;
}

static size_t row_floats(const struct workload *load)
{
    return cpu_align(longest_row(load) * sizeof(float)) / sizeof(float);
}

size_t cpu_rows_workspace_bytes(const struct context_options *options)
{
    return (size_t)cpu_threads(options) * (1 + ROW_BUFFERS) * row_floats(&options->workload) * sizeof(float);
}

bool rows_fit(const struct context *ctx, size_t columns, struct error *error)
{
    if (columns <= longest_row(&ctx->workload))
        return true;
    return error_runtime(error, "rows of %zu numbers were not in the workload that the context was opened for (%zu)",
                         columns, longest_row(&ctx->workload));
}

static float *thread_floats(const struct context *ctx, int thread)
{
    return (float *)(void *)ctx->workspace + (size_t)thread * (1 + ROW_BUFFERS) * row_floats(&ctx->workload);
}

struct row_scratch rows_scratch(const struct context *ctx, int thread, size_t columns)
{
    struct row_scratch scratch = {.sums = thread_floats(ctx, thread)};
    for (size_t i = 0; i < ROW_BUFFERS; i++)
        scratch.buffers[i] = scratch.sums + (i + 1) * row_floats(&ctx->workload);
    memset(scratch.sums, 0, columns * sizeof *scratch.sums);
    return scratch;
}

void rows_add_sums(const struct context *ctx, float *sum, size_t first, size_t count)
{
    for (int thread = 0; thread < ctx->threads; thread++) {
        const float *restrict part = thread_floats(ctx, thread) + first;
        for (size_t i = 0; i < count; i++)
            sum[i] += part[i];
    }
}

/* Four rows at a time: the sums are read and written a quarter as often. */
ALWAYS_INLINE void sum_rows(float *restrict sums, const void *x, size_t begin, size_t end, size_t columns,
                            enum dtype dtype)
{
    size_t row = begin;
    for (; row + 4 <= end; row += 4) {
        const void *x0 = const_at(x, row * columns, dtype), *x1 = const_at(x0, columns, dtype);
        const void *x2 = const_at(x1, columns, dtype), *x3 = const_at(x2, columns, dtype);
        for (size_t i = 0; i < columns; i++)
            sums[i] += (load(x0, i, dtype) + load(x1, i, dtype)) + (load(x2, i, dtype) + load(x3, i, dtype));
    }
    for (; row < end; row++) {
        const void *x0 = const_at(x, row * columns, dtype);
        for (size_t i = 0; i < columns; i++)
            sums[i] += load(x0, i, dtype);
    }
}

bool rows_column_sums(struct context *ctx, float *sum, const void *x, size_t rows, size_t columns, struct error *error)
{
    if (!rows_fit(ctx, columns, error))
        return false;
#pragma omp parallel for schedule(static, 1) num_threads(ctx->threads) if (ctx->threads > 1)
    for (int thread = 0; thread < ctx->threads; thread++) {
        size_t begin, end;
        cpu_span(rows, ctx->threads, thread, &begin, &end);
        float *sums = rows_scratch(ctx, thread, columns).sums;
        if (ctx->dtype == DTYPE_FLOAT32)
            sum_rows(sums, x, begin, end, columns, DTYPE_FLOAT32);
        else
            sum_rows(sums, x, begin, end, columns, DTYPE_BFLOAT16);
    }
    rows_add_sums(ctx, sum, 0, columns);
    return true;
}

void rows_widen(float *restrict out, const uint16_t *restrict in, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = float_from_bf16(in[i]);
}

/* The instruction rounds as bf16_from_float does, but for denormals, which it makes 0. */
void rows_round(uint16_t *restrict out, const float *restrict in, size_t count)
{
    size_t i = 0;
#ifdef __AVX512BF16__
    for (; i + 16 <= count; i += 16) {
        __m256bh rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(in + i));
        memcpy(out + i, &rounded, sizeof rounded);
    }
#endif
    for (; i < count; i++)
        out[i] = bf16_from_float(in[i]);
}
