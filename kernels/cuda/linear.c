/* Linear layers as matrix products with an epilogue: which products a layer is.
 *
 * Our matrices are row-major and cuBLAS's column-major, so a [rows, dim] tensor is its dim x rows matrix:
 *   forward          out [out_dim x rows]         = weight^T [out_dim x in_dim] * in [in_dim x rows]
 *   input gradient   in_gradient [in_dim x rows]  = weight [in_dim x out_dim] * out_gradient [out_dim x rows]
 *   weight gradient  [in_dim x out_dim] float32  += in [in_dim x rows] * out_gradient^T [rows x out_dim] */
#include "kernels/cuda/products.h"

size_t cuda_linear_workspace_bytes(const struct context_options *options)
{
    const struct workload *w = &options->workload;
    size_t widest = maximum(maximum(w->hidden, 3 * w->dim), maximum(w->classes, w->dim));
    return PRODUCT_WORKSPACE_BYTES + widest * sizeof(float);
}

/* The largest power of two up to 16 that divides an address; 16 for NULL. */
static uint32_t alignment(const void *memory)
{
    uintptr_t address = (uintptr_t)memory | 16;
    return (uint32_t)(address & -address);
}

static bool multiply(struct context *ctx, struct product *product, const struct operands *operands, struct error *error)
{
    struct plan *plan;
    product->dtype_in = ctx->dtype;
    product->align_a = alignment(operands->a);
    product->align_b = alignment(operands->b);
    product->align_d = alignment(operands->d);
    product->align_bias = product->epilogue == PRODUCT_BIAS ? alignment(operands->bias) : 16;
    return product_plan(ctx, &plan, product, error) &&
           (ctx->matmul->mode != PRODUCTS_TUNED || product_tune(ctx, plan, operands, error)) &&
           product_run(ctx, plan, operands, error);
}

bool cuda_linear_forward(struct context *ctx, const struct linear_forward *op, struct error *error)
{
    struct product product = {.m = op->out_dim,
                              .n = op->rows,
                              .k = op->in_dim,
                              .transpose_a = 1,
                              .dtype_out = ctx->dtype,
                              .epilogue = op->bias ? PRODUCT_BIAS : PRODUCT_ALONE};
    struct operands operands = {.a = op->weight, .b = op->in, .d = op->out, .bias = op->bias};
    return multiply(ctx, &product, &operands, error);
}

bool cuda_linear_backward(struct context *ctx, const struct linear_backward *op, struct error *error)
{
    struct product input = {.m = op->in_dim, .n = op->rows, .k = op->out_dim, .dtype_out = ctx->dtype};
    struct operands for_input = {.a = op->weight, .b = op->out_gradient, .d = op->in_gradient};
    struct product weights = {.m = op->in_dim,
                              .n = op->out_dim,
                              .k = op->rows,
                              .transpose_b = 1,
                              .dtype_out = DTYPE_FLOAT32,
                              .accumulate = !op->overwrite,
                              .epilogue = op->bias_gradient ? PRODUCT_COLUMN_SUMS : PRODUCT_ALONE};
    struct operands for_weights = {
        .a = op->in, .b = op->out_gradient, .d = op->weight_gradient, .sums = op->bias_gradient};
    return (!op->in_gradient || multiply(ctx, &input, &for_input, error)) &&
           (!op->weight_gradient || multiply(ctx, &weights, &for_weights, error));
}
