/* A thread's buffers and partial sums in the workspace, and rows of bfloat16 widened and rounded. */
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
    return (size_t)cpu_threads(options->threads) * (1 + ROW_BUFFERS) * row_floats(&options->workload) * sizeof(float);
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
