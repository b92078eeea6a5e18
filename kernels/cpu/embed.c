/* From projected patches to tokens and back, and the CLS rows: copies and sums. */
#include <string.h>

#include "kernels/bfloat16.h"
#include "kernels/cpu/cpu.h"

ALWAYS_INLINE void add_rows(void *restrict out, const void *restrict row, const float *restrict position, size_t dim,
                            enum dtype dtype)
{
    for (size_t i = 0; i < dim; i++)
        store(out, i, load(row, i, dtype) + position[i], dtype);
}

bool cpu_embed_forward(struct context *ctx, const struct embed_forward *op, struct error *error)
{
    (void)error;
    enum dtype dtype = ctx->dtype;
    size_t tokens = op->patches + 1, dim = op->dim;
#pragma omp parallel for schedule(static) num_threads(ctx->threads) if (ctx->threads > 1)
    for (size_t row = 0; row < op->batch * tokens; row++) {
        size_t image = row / tokens, token = row % tokens;
        void *to = at(op->out, row * dim, dtype);
        if (token == 0) {
            for (size_t i = 0; i < dim; i++)
                store(to, i, op->cls[i] + op->position[i], dtype);
            continue;
        }
        const void *from = const_at(op->projected, (image * op->patches + token - 1) * dim, dtype);
        if (dtype == DTYPE_FLOAT32)
            add_rows(to, from, op->position + token * dim, dim, DTYPE_FLOAT32);
        else
            add_rows(to, from, op->position + token * dim, dim, DTYPE_BFLOAT16);
    }
    return true;
}

ALWAYS_INLINE void accumulate_row(float *restrict sum, const void *restrict row, size_t dim, enum dtype dtype)
{
    for (size_t i = 0; i < dim; i++)
        sum[i] += load(row, i, dtype);
}

/* A thread takes tokens and sums over the images, in order: no partial sums are needed. */
bool cpu_embed_backward(struct context *ctx, const struct embed_backward *op, struct error *error)
{
    (void)error;
    enum dtype dtype = ctx->dtype;
    size_t tokens = op->patches + 1, dim = op->dim;
#pragma omp parallel for schedule(static) num_threads(ctx->threads) if (ctx->threads > 1)
    for (size_t token = 0; token < tokens; token++)
        for (size_t image = 0; image < op->batch; image++) {
            const void *from = const_at(op->out_gradient, (image * tokens + token) * dim, dtype);
            float *position = op->position_gradient + token * dim;
            if (dtype == DTYPE_FLOAT32)
                accumulate_row(position, from, dim, DTYPE_FLOAT32);
            else
                accumulate_row(position, from, dim, DTYPE_BFLOAT16);
            if (token > 0) {
                memcpy(at(op->projected_gradient, (image * op->patches + token - 1) * dim, dtype), from,
                       dim * dtype_bytes(dtype));
            } else {
                for (size_t i = 0; i < dim; i++)
                    op->cls_gradient[i] += load(from, i, dtype);
            }
        }
    return true;
}

bool cpu_cls_gather(struct context *ctx, void *out, const void *in, size_t batch, size_t tokens, size_t dim,
                    struct error *error)
{
    (void)error;
    for (size_t image = 0; image < batch; image++)
        memcpy(at(out, image * dim, ctx->dtype), const_at(in, image * tokens * dim, ctx->dtype),
               dim * dtype_bytes(ctx->dtype));
    return true;
}

bool cpu_cls_scatter(struct context *ctx, void *out, const void *in, size_t batch, size_t tokens, size_t dim,
                     struct error *error)
{
    (void)error;
    size_t row_bytes = dim * dtype_bytes(ctx->dtype);
#pragma omp parallel for schedule(static) num_threads(ctx->threads) if (ctx->threads > 1)
    for (size_t image = 0; image < batch; image++) {
        char *to = at(out, image * tokens * dim, ctx->dtype);
        memcpy(to, const_at(in, image * dim, ctx->dtype), row_bytes);
        memset(to + row_bytes, 0, (tokens - 1) * row_bytes);
    }
    return true;
}

bool cpu_cls_add(struct context *ctx, void *out, const void *in, size_t batch, size_t tokens, size_t dim,
                 struct error *error)
{
    (void)error;
    for (size_t image = 0; image < batch; image++)
        for (size_t i = 0; i < dim; i++) {
            size_t to = image * tokens * dim + i;
            float sum = load(out, to, ctx->dtype) + load(in, image * dim + i, ctx->dtype);
            store(out, to, sum, ctx->dtype);
        }
    return true;
}
