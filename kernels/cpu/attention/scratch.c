/* Where attention's scratch lies in the context's workspace. One function lays it out, for the sizes that open plans
 * and for the pointers that a call uses, so that the two cannot disagree. */
#include "kernels/cpu/attention/attention.h"

/* Scores and their gradients of a tile: small enough that, with the packed operands, they stay in the second-level
 * cache (1 MiB on Zen 4). */
static const size_t TILE_BYTES = 256 << 10;

size_t attention_tile_panels(size_t tokens)
{
    size_t panels = (tokens + PANEL - 1) / PANEL, panel_bytes = 2 * tokens * PANEL * sizeof(float);
    size_t most = TILE_BYTES / panel_bytes ? TILE_BYTES / panel_bytes : 1;
    size_t tiles = (panels + most - 1) / most;
    return (panels + tiles - 1) / tiles; /* even tiles rather than a small last one */
}

/* Takes `bytes` from the memory that begins at base; base NULL only counts. */
static void *take(unsigned char *base, size_t *used, size_t bytes)
{
    void *taken = base ? base + *used : NULL;
    *used += cpu_align(bytes);
    return taken;
}

static size_t lay_out(struct attention_scratch *scratch, unsigned char *base, size_t tokens, size_t head_dim,
                      enum dtype dtype)
{
    size_t used = 0, number = sizeof(float), tile = attention_tile_panels(tokens), width = attention_width(head_dim);
    size_t blocks_bytes = blocks_of(tokens) * cells_of(width, dtype) * BLOCK_STRIDE * number;
    size_t steps_bytes = cells_of(tokens, dtype) * width * number;
    size_t panel_bytes = width * PANEL * number;
    bool wide = dtype == DTYPE_FLOAT32;
    size_t scores_bytes = (wide ? tile : 1) * tokens * PANEL * number;
    size_t rounded_bytes = wide ? 0 : tile * tokens * PANEL / 2 * number;
    size_t pairs_bytes = wide ? 0 : cells_of(tokens, dtype) * PANEL * number;
    size_t rows_bytes = tokens * width * number;
    size_t factors_bytes = tokens * number;
    scratch->key_blocks = take(base, &used, blocks_bytes);
    scratch->value_blocks = take(base, &used, blocks_bytes);
    scratch->key_steps = take(base, &used, steps_bytes);
    scratch->value_steps = take(base, &used, steps_bytes);
    scratch->query_steps = take(base, &used, steps_bytes);
    scratch->out_gradient_steps = take(base, &used, steps_bytes);
    scratch->query_panel = take(base, &used, panel_bytes);
    scratch->out_gradient_panel = take(base, &used, panel_bytes);
    scratch->scores = take(base, &used, scores_bytes);
    scratch->score_gradients = take(base, &used, scores_bytes);
    scratch->probabilities = wide ? scratch->scores : take(base, &used, rounded_bytes);
    scratch->gradients = wide ? scratch->score_gradients : take(base, &used, rounded_bytes);
    scratch->key_pairs = take(base, &used, pairs_bytes);
    scratch->columns = take(base, &used, panel_bytes);
    scratch->panel_rows = take(base, &used, panel_bytes);
    scratch->key_gradients = take(base, &used, rows_bytes);
    scratch->value_gradients = take(base, &used, rows_bytes);
    scratch->query_factors = take(base, &used, factors_bytes);
    scratch->key_factors = take(base, &used, factors_bytes);
    scratch->delta = take(base, &used, factors_bytes);
    scratch->query_copy = take(base, &used, rows_bytes);
    scratch->key_copy = take(base, &used, rows_bytes);
    return used;
}

/* Bytes in all; the pointers where base is not NULL. */
static size_t lay_out_workspace(struct attention_workspace *workspace, unsigned char *base, size_t tasks, size_t tokens,
                                size_t head_dim, int threads, enum dtype dtype)
{
    struct attention_scratch scratch;
    size_t used = 0;
    workspace->extras = take(base, &used, tasks * sizeof *workspace->extras);
    workspace->records = take(base, &used, tasks * ATTENTION_STATISTICS * sizeof(double));
    workspace->scratch_bytes = lay_out(&scratch, NULL, tokens, head_dim, dtype);
    workspace->scratch = take(base, &used, workspace->scratch_bytes * (size_t)threads);
    return used;
}

size_t cpu_attention_workspace_bytes(const struct context_options *options)
{
    const struct workload *workload = &options->workload;
    struct attention_workspace workspace;
    if (workload->heads == 0)
        return 0;
    return lay_out_workspace(&workspace, NULL, workload->batch * workload->heads, workload->patches + 1,
                             workload->dim / workload->heads, cpu_threads(options->threads), options->dtype);
}

bool attention_workspace_open(struct attention_workspace *workspace, const struct context *ctx,
                              const struct attention_shape *shape, struct error *error)
{
    if (!attention_head_dim_fits(shape->head_dim))
        return error_input(error, "attention: a head dimension of %zu; multiples of 8 up to %d are possible",
                           shape->head_dim, ATTENTION_MOST_HEAD_DIM);
    size_t bytes = lay_out_workspace(workspace, ctx->workspace, shape->batch * shape->heads, shape->tokens,
                                     shape->head_dim, ctx->threads, ctx->dtype);
    if (bytes > ctx->workspace_bytes)
        return error_runtime(error,
                             "attention: %zu images of %zu tokens need %zu bytes of scratch, but the CPU context was "
                             "opened for less (%zu bytes)",
                             shape->batch, shape->tokens, bytes, ctx->workspace_bytes);
    return true;
}

struct attention_scratch attention_scratch_of(const struct attention_workspace *workspace,
                                              const struct attention_shape *shape, int thread, enum dtype dtype)
{
    struct attention_scratch scratch;
    lay_out(&scratch, workspace->scratch + (size_t)thread * workspace->scratch_bytes, shape->tokens, shape->head_dim,
            dtype);
    return scratch;
}
