/* One product, in the way that was chosen for it. Where cuBLASLt refuses at the call what it had offered, the next
 * offer is taken; where none is left, the product goes without its epilogue, which a kernel of ours does, and without
 * cuBLASLt by cublasGemmEx. */
#include "kernels/cuda/products.h"

int product_next_offer(const struct plan *plan)
{
    for (int i = 0; i < plan->offered; i++)
        if (!plan->offers[i].refused)
            return i;
    return -1;
}

/* cuBLASLt's column sums overwrite and ours accumulate, so it writes behind its workspace. */
static bool scratch(struct context *ctx, const struct product *p, float **sums, struct error *error)
{
    void *workspace;
    size_t bytes = p->epilogue == PRODUCT_COLUMN_SUMS ? p->n * sizeof(float) : 0;
    if (!cuda_workspace(ctx, &workspace, PRODUCT_WORKSPACE_BYTES + bytes, "linear", error))
        return false;
    *sums = (float *)((char *)workspace + PRODUCT_WORKSPACE_BYTES);
    return true;
}

cublasStatus_t product_run_offer(struct context *ctx, struct plan *plan, int offer, const struct operands *operands,
                                 bool *ok, struct error *error)
{
    const struct cublas_library *blas = &ctx->matmul->blas;
    const struct product *p = &plan->product;
    float one = 1, beta = p->accumulate ? 1 : 0, *sums;
    *ok = scratch(ctx, p, &sums, error);
    if (!*ok)
        return CUBLAS_STATUS_INTERNAL_ERROR;
    const void *bias = p->epilogue == PRODUCT_BIAS ? operands->bias : sums;
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    if (p->epilogue != PRODUCT_ALONE)
        status = blas->cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                                      sizeof bias);
    if (status == CUBLAS_STATUS_SUCCESS)
        status =
            blas->cublasLtMatmul(ctx->matmul->lt, plan->operation, &one, operands->a, plan->a, operands->b, plan->b,
                                 &beta, operands->d, plan->d, operands->d, plan->d, &plan->offers[offer].algorithm,
                                 ctx->workspace, PRODUCT_WORKSPACE_BYTES, ctx->compute);
    ctx->launches.products += status == CUBLAS_STATUS_SUCCESS;
    if (status == CUBLAS_STATUS_SUCCESS && p->epilogue == PRODUCT_COLUMN_SUMS)
        *ok = cuda_column_sum_finish(ctx, &operands->sums, 1, sums, 1, p->n, error);
    return status;
}

/* By the offers, from the chosen one on. *done = false, and nothing is queued, where none is left. */
static bool run_library(struct context *ctx, struct plan *plan, const struct operands *operands, bool *done,
                        struct error *error)
{
    for (*done = false; plan->chosen >= 0 && !*done;) {
        bool ok;
        cublasStatus_t status = product_run_offer(ctx, plan, plan->chosen, operands, &ok, error);
        if (!ok)
            return false;
        *done = status == CUBLAS_STATUS_SUCCESS;
        if (!*done && !blas_refuses(status)) {
            char what[PRODUCT_TEXT_BYTES];
            product_describe(&plan->product, what, sizeof what);
            blas_check(&ctx->matmul->blas, status, "cublasLtMatmul", __FILE__, __LINE__, error);
            return error_prefix(error, "GPU %d, %s", ctx->device, what);
        }
        if (!*done) {
            (void)cudaGetLastError(); /* so that the next launch of ours is not blamed */
            plan->offers[plan->chosen].refused = true;
            plan->chosen = product_next_offer(plan);
            ctx->matmul->refused++;
        }
    }
    return true;
}

/* By cublasGemmEx, which knows no epilogues. */
static bool run_general(struct context *ctx, const struct product *p, const struct operands *operands,
                        struct error *error)
{
    float one = 1, beta = p->accumulate ? 1 : 0;
    const struct cublas_library *blas = &ctx->matmul->blas;
    cublasHandle_t cublas = ctx->matmul->cublas;
    cudaDataType_t in = p->dtype_in == DTYPE_FLOAT32 ? CUDA_R_32F : CUDA_R_16BF;
    cudaDataType_t out = p->dtype_out == DTYPE_FLOAT32 ? CUDA_R_32F : CUDA_R_16BF;
    ctx->launches.products++;
    int lda = (int)(p->transpose_a ? p->k : p->m), ldb = (int)(p->transpose_b ? p->n : p->k);
    return BLAS_TRY(cublasSetStream_v2(cublas, ctx->compute), error) &&
           BLAS_TRY(cublasSetWorkspace_v2(cublas, ctx->workspace, PRODUCT_WORKSPACE_BYTES), error) &&
           BLAS_TRY(cublasGemmEx(cublas, p->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N,
                                 p->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N, (int)p->m, (int)p->n, (int)p->k, &one,
                                 operands->a, in, lda, operands->b, in, ldb, &beta, operands->d, out, (int)p->m,
                                 CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                    error);
}

static bool run_alone(struct context *ctx, struct plan *plan, const struct operands *operands, struct error *error)
{
    bool done;
    float *unused;
    return scratch(ctx, &plan->product, &unused, error) && run_library(ctx, plan, operands, &done, error) &&
           (done || run_general(ctx, &plan->product, operands, error));
}

bool product_run_parts(struct context *ctx, struct plan *plan, const struct operands *operands, struct error *error)
{
    const struct product *p = &plan->product;
    struct plan *alone;
    if (!product_plan_alone(ctx, &alone, plan, error) || !run_alone(ctx, alone, operands, error))
        return false;
    return p->epilogue == PRODUCT_BIAS ? cuda_add_bias(ctx, operands->d, operands->bias, p->n, p->m, error)
                                       : cuda_column_sum(ctx, operands->sums, operands->b, p->k, p->n, error);
}

bool product_run(struct context *ctx, struct plan *plan, const struct operands *operands, struct error *error)
{
    bool done;
    if (plan->product.epilogue == PRODUCT_ALONE)
        return run_alone(ctx, plan, operands, error);
    return run_library(ctx, plan, operands, &done, error) && (done || product_run_parts(ctx, plan, operands, error));
}
