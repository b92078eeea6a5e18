/* Linear layers: cuBLASLt with the bias in the product's epilogue. cuBLASLt is asked for an algorithm once a shape; the
 * answer is kept. Where it has none, cublasGemmEx does the product and kernels of column_sum.cu the bias.
 *
 * Our matrices are row-major and the libraries' column-major, so a [rows, dim] tensor is their dim x rows matrix:
 *   forward          out [out_dim x rows]         = weight^T [out_dim x in_dim] * in [in_dim x rows]
 *   input gradient   in_gradient [in_dim x rows]  = weight [in_dim x out_dim] * out_gradient [out_dim x rows]
 *   weight gradient  [in_dim x out_dim] float32  += in [in_dim x rows] * out_gradient^T [rows x out_dim] */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cublas_library.h"
#include "kernels/cuda/cuda.h"

/* What NVIDIA recommends for Hopper; smaller ones exclude some split-k algorithms. */
enum { LIBRARY_WORKSPACE_BYTES = 32 << 20 };

/* Everything that the choice of an algorithm depends on; compared as bytes, so it has no padding. */
struct product {
    uint64_t m, n, k, lda, ldb, ldd;
    uint32_t transpose_a, transpose_b;
    uint32_t type_ab, type_d; /* cudaDataType_t */
    uint32_t accumulate;      /* D += instead of D = */
    uint32_t epilogue;        /* cublasLtEpilogue_t */
    uint32_t align_a, align_b, align_d, align_bias;
};

struct plan {
    struct product product;
    bool offered; /* by cuBLASLt; the rest is meaningless otherwise */
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algorithm;
};

struct matmul {
    struct cublas_library blas;
    cublasLtHandle_t lt;
    cublasHandle_t cublas;
    struct plan **plans;
    size_t count, capacity;
};

/* `blas` is the struct cublas_library that the call goes through. */
#define BLAS_TRY(call, error) blas_check(blas, blas->call, #call, __FILE__, __LINE__, (error))
static bool blas_check(const struct cublas_library *blas, cublasStatus_t status, const char *call, const char *file,
                       int line, struct error *error)
{
    if (status == CUBLAS_STATUS_SUCCESS)
        return true;
    return error_runtime(error, "%s:%d: %.200s: %s", file, line, call, blas->cublasGetStatusString(status));
}

size_t cuda_linear_workspace_bytes(const struct context_options *options)
{
    const struct workload *w = &options->workload;
    size_t widest = maximum(maximum(w->hidden, 3 * w->dim), maximum(w->classes, w->dim));
    return LIBRARY_WORKSPACE_BYTES + widest * sizeof(float);
}

bool cuda_matmul_open(struct matmul **matmul, struct error *error)
{
    struct matmul *opened = *matmul = calloc(1, sizeof *opened);
    if (!opened)
        return error_runtime(error, "out of memory");
    const struct cublas_library *blas = &opened->blas;
    return cublas_library_open(&opened->blas, error) && BLAS_TRY(cublasLtCreate(&opened->lt), error) &&
           BLAS_TRY(cublasCreate_v2(&opened->cublas), error);
}

static void release_plan(const struct cublas_library *blas, struct plan *plan)
{
    if (plan->operation)
        blas->cublasLtMatmulDescDestroy(plan->operation);
    cublasLtMatrixLayout_t layouts[] = {plan->a, plan->b, plan->d};
    for (int i = 0; i < 3; i++)
        if (layouts[i])
            blas->cublasLtMatrixLayoutDestroy(layouts[i]);
    free(plan);
}

void cuda_matmul_close(struct matmul *matmul)
{
    if (!matmul)
        return;
    for (size_t i = 0; i < matmul->count; i++)
        release_plan(&matmul->blas, matmul->plans[i]);
    free(matmul->plans);
    if (matmul->cublas)
        matmul->blas.cublasDestroy_v2(matmul->cublas);
    if (matmul->lt)
        matmul->blas.cublasLtDestroy(matmul->lt);
    free(matmul);
}

/* The largest power of two up to 256 that divides an address. */
static uint32_t alignment(const void *memory)
{
    uintptr_t address = (uintptr_t)memory | 256;
    return (uint32_t)(address & -address);
}

static bool describe(const struct cublas_library *blas, struct plan *plan, struct error *error)
{
    const struct product *p = &plan->product;
    cublasOperation_t a = p->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, b = p->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = (cublasLtEpilogue_t)p->epilogue;
    cudaDataType_t ab = (cudaDataType_t)p->type_ab, d = (cudaDataType_t)p->type_d;
    return BLAS_TRY(cublasLtMatmulDescCreate(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), error) &&
           BLAS_TRY(cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof a),
                    error) &&
           BLAS_TRY(cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof b),
                    error) &&
           BLAS_TRY(cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                                   sizeof epilogue),
                    error) &&
           BLAS_TRY(cublasLtMatrixLayoutCreate(&plan->a, ab, p->transpose_a ? p->k : p->m, p->transpose_a ? p->m : p->k,
                                               (int64_t)p->lda),
                    error) &&
           BLAS_TRY(cublasLtMatrixLayoutCreate(&plan->b, ab, p->transpose_b ? p->n : p->k, p->transpose_b ? p->k : p->n,
                                               (int64_t)p->ldb),
                    error) &&
           BLAS_TRY(cublasLtMatrixLayoutCreate(&plan->d, d, p->m, p->n, (int64_t)p->ldd), error);
}

/* What an algorithm may rely on: the workspace and the alignments of the product. */
static bool set_preference(const struct cublas_library *blas, cublasLtMatmulPreference_t preference,
                           const struct product *p, struct error *error)
{
    size_t workspace_bytes = LIBRARY_WORKSPACE_BYTES;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t bytes;
    } attributes[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes, sizeof workspace_bytes},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &p->align_a, sizeof p->align_a},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &p->align_b, sizeof p->align_b},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &p->align_d, sizeof p->align_d},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &p->align_d, sizeof p->align_d},
    };
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
        if (!BLAS_TRY(cublasLtMatmulPreferenceSetAttribute(preference, attributes[i].name, attributes[i].value,
                                                           attributes[i].bytes),
                      error))
            return false;
    return true;
}

/* Asks cuBLASLt; plan->offered says whether it has an algorithm. */
static bool choose(struct matmul *matmul, struct plan *plan, const void *bias, struct error *error)
{
    const struct cublas_library *blas = &matmul->blas;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;
    if (!BLAS_TRY(cublasLtMatmulPreferenceCreate(&preference), error))
        return false;
    bool ok = set_preference(blas, preference, &plan->product, error) &&
              (!bias || BLAS_TRY(cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                                                &bias, sizeof bias),
                                 error));
    if (ok) {
        cublasStatus_t status = blas->cublasLtMatmulAlgoGetHeuristic(matmul->lt, plan->operation, plan->a, plan->b,
                                                                     plan->d, plan->d, preference, 1, &result, &found);
        plan->offered = status == CUBLAS_STATUS_SUCCESS && found == 1 && result.state == CUBLAS_STATUS_SUCCESS;
        if (plan->offered)
            plan->algorithm = result.algo;
        else if (status != CUBLAS_STATUS_SUCCESS && status != CUBLAS_STATUS_NOT_SUPPORTED)
            ok = blas_check(blas, status, "cublasLtMatmulAlgoGetHeuristic", __FILE__, __LINE__, error);
    }
    blas->cublasLtMatmulPreferenceDestroy(preference);
    return ok;
}

/* The plan of a product, made at its first use. A run has some twenty: a search through them costs nothing. */
static bool find_plan(struct matmul *matmul, struct plan **found, const struct product *product, const void *bias,
                      struct error *error)
{
    for (size_t i = 0; i < matmul->count; i++) {
        *found = matmul->plans[i];
        if (memcmp(&(*found)->product, product, sizeof *product) == 0)
            return true;
    }
    if (matmul->count == matmul->capacity) {
        size_t capacity = matmul->capacity ? 2 * matmul->capacity : 32;
        struct plan **grown = realloc(matmul->plans, capacity * sizeof(struct plan *));
        if (!grown)
            return error_runtime(error, "out of memory");
        matmul->plans = grown;
        matmul->capacity = capacity;
    }
    struct plan *plan = calloc(1, sizeof *plan);
    if (!plan)
        return error_runtime(error, "out of memory");
    plan->product = *product;
    if (!describe(&matmul->blas, plan, error) || !choose(matmul, plan, bias, error)) {
        release_plan(&matmul->blas, plan);
        return error_prefix(error, "the product of %zu x %zu x %zu", (size_t)product->m, (size_t)product->n,
                            (size_t)product->k);
    }
    *found = matmul->plans[matmul->count++] = plan;
    return true;
}

/* D = A B (+ D) by cuBLASLt; *done = false, and nothing queued, where it offers no algorithm for this product. */
static bool multiply_lt(struct context *ctx, const struct product *shape, void *d, const void *a, const void *b,
                        const void *bias, bool *done, struct error *error)
{
    const struct cublas_library *blas = &ctx->matmul->blas;
    struct product product = *shape;
    product.align_a = alignment(a);
    product.align_b = alignment(b);
    product.align_d = alignment(d);
    product.align_bias = alignment(bias);
    struct plan *plan = NULL;
    void *workspace;
    if (!find_plan(ctx->matmul, &plan, &product, bias, error) ||
        !cuda_workspace(ctx, &workspace, LIBRARY_WORKSPACE_BYTES, "linear", error))
        return false;
    *done = plan->offered;
    if (!plan->offered)
        return true;
    if (bias && !BLAS_TRY(cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                                         sizeof bias),
                          error))
        return false;
    float one = 1, beta = product.accumulate ? 1 : 0;
    return BLAS_TRY(cublasLtMatmul(ctx->matmul->lt, plan->operation, &one, a, plan->a, b, plan->b, &beta, d, plan->d, d,
                                   plan->d, &plan->algorithm, workspace, LIBRARY_WORKSPACE_BYTES, ctx->compute),
                    error);
}

/* The same by cublasGemmEx, which knows no epilogues. */
static bool multiply_plain(struct context *ctx, const struct product *p, void *d, const void *a, const void *b,
                           struct error *error)
{
    float one = 1, beta = p->accumulate ? 1 : 0;
    const struct cublas_library *blas = &ctx->matmul->blas;
    cublasHandle_t cublas = ctx->matmul->cublas;
    return BLAS_TRY(cublasSetStream_v2(cublas, ctx->compute), error) &&
           BLAS_TRY(cublasSetWorkspace_v2(cublas, ctx->workspace, LIBRARY_WORKSPACE_BYTES), error) &&
           BLAS_TRY(cublasGemmEx(cublas, p->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N,
                                 p->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N, (int)p->m, (int)p->n, (int)p->k, &one, a,
                                 (cudaDataType_t)p->type_ab, (int)p->lda, b, (cudaDataType_t)p->type_ab, (int)p->ldb,
                                 &beta, d, (cudaDataType_t)p->type_d, (int)p->ldd, CUBLAS_COMPUTE_32F,
                                 CUBLAS_GEMM_DEFAULT),
                    error);
}

static bool multiply(struct context *ctx, const struct product *product, void *d, const void *a, const void *b,
                     struct error *error)
{
    bool done;
    return multiply_lt(ctx, product, d, a, b, NULL, &done, error) &&
           (done || multiply_plain(ctx, product, d, a, b, error));
}

static uint32_t library_type(enum dtype dtype)
{
    return dtype == DTYPE_FLOAT32 ? CUDA_R_32F : CUDA_R_16BF;
}

bool cuda_linear_forward(struct context *ctx, const struct linear_forward *op, struct error *error)
{
    size_t in_dim = op->in_dim, out_dim = op->out_dim;
    struct product product = {.m = out_dim,
                              .n = op->rows,
                              .k = in_dim,
                              .lda = in_dim,
                              .ldb = in_dim,
                              .ldd = out_dim,
                              .transpose_a = 1,
                              .type_ab = library_type(ctx->dtype),
                              .type_d = library_type(ctx->dtype),
                              .epilogue = CUBLASLT_EPILOGUE_DEFAULT};
    if (!op->bias)
        return multiply(ctx, &product, op->out, op->weight, op->in, error);
    struct product with_bias = product;
    with_bias.epilogue = CUBLASLT_EPILOGUE_BIAS;
    bool done;
    return multiply_lt(ctx, &with_bias, op->out, op->weight, op->in, op->bias, &done, error) &&
           (done || (multiply(ctx, &product, op->out, op->weight, op->in, error) &&
                     cuda_add_bias(ctx, op->out, op->bias, op->rows, out_dim, error)));
}

bool cuda_linear_backward(struct context *ctx, const struct linear_backward *op, struct error *error)
{
    size_t rows = op->rows, in_dim = op->in_dim, out_dim = op->out_dim;
    uint32_t type = library_type(ctx->dtype);
    struct product input = {.m = in_dim,
                            .n = rows,
                            .k = out_dim,
                            .lda = in_dim,
                            .ldb = out_dim,
                            .ldd = in_dim,
                            .type_ab = type,
                            .type_d = type,
                            .epilogue = CUBLASLT_EPILOGUE_DEFAULT};
    struct product weights = {.m = in_dim,
                              .n = out_dim,
                              .k = rows,
                              .lda = in_dim,
                              .ldb = out_dim,
                              .ldd = in_dim,
                              .transpose_b = 1,
                              .type_ab = type,
                              .type_d = CUDA_R_32F,
                              .accumulate = !op->overwrite,
                              .epilogue = CUBLASLT_EPILOGUE_DEFAULT};
    if (op->in_gradient && !multiply(ctx, &input, op->in_gradient, op->weight, op->out_gradient, error))
        return false;
    if (!op->bias_gradient)
        return multiply(ctx, &weights, op->weight_gradient, op->in, op->out_gradient, error);
    /* The epilogue overwrites its sums and ours accumulate, so it writes behind the library's workspace. */
    struct product with_bias = weights;
    with_bias.epilogue = CUBLASLT_EPILOGUE_BGRADB;
    void *workspace;
    if (!cuda_workspace(ctx, &workspace, LIBRARY_WORKSPACE_BYTES + out_dim * sizeof(float), "linear_backward", error))
        return false;
    float *sums = (float *)((char *)workspace + LIBRARY_WORKSPACE_BYTES);
    bool done;
    if (!multiply_lt(ctx, &with_bias, op->weight_gradient, op->in, op->out_gradient, sums, &done, error))
        return false;
    if (done)
        return cuda_column_sum_finish(ctx, &op->bias_gradient, 1, sums, 1, out_dim, error);
    return multiply(ctx, &weights, op->weight_gradient, op->in, op->out_gradient, error) &&
           cuda_column_sum(ctx, op->bias_gradient, op->out_gradient, rows, out_dim, error);
}
