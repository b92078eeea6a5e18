/* The table of products: how each is described to cuBLASLt, and which algorithms that offers. cuBLASLt is asked once a
 * product; the answer is kept. */
#include "kernels/cuda/products.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool blas_check(const struct cublas_library *blas, cublasStatus_t status, const char *call, const char *file, int line,
                struct error *error)
{
    if (status == CUBLAS_STATUS_SUCCESS)
        return true;
    return error_runtime(error, "%s:%d: %.200s: %s", file, line, call, blas->cublasGetStatusString(status));
}

bool blas_refuses(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE ||
           status == CUBLAS_STATUS_ARCH_MISMATCH;
}

static const char *type_name(uint32_t dtype)
{
    return dtype == DTYPE_FLOAT32 ? "fp32" : "bf16";
}

void product_describe(const struct product *p, char *text, size_t text_bytes)
{
    static const char *const epilogues[] = {"", ", with a bias", ", with column sums"};
    snprintf(text, text_bytes, "the product of %zu x %zu x %zu (%s to %s%s)", (size_t)p->m, (size_t)p->n, (size_t)p->k,
             type_name(p->dtype_in), type_name(p->dtype_out), epilogues[p->epilogue]);
}

/* ---- open and close ---- */

bool cuda_matmul_open(struct matmul **matmul, struct error *error)
{
    struct matmul *opened = *matmul = calloc(1, sizeof *opened);
    if (!opened)
        return error_runtime(error, "out of memory");
    opened->mode = PRODUCTS_FIRST;
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

void products_forget(struct matmul *matmul)
{
    for (size_t i = 0; i < matmul->count; i++)
        release_plan(&matmul->blas, matmul->plans[i]);
    matmul->count = 0;
}

void cuda_matmul_close(struct matmul *matmul)
{
    if (!matmul)
        return;
    products_forget(matmul);
    free(matmul->plans);
    if (matmul->cublas)
        matmul->blas.cublasDestroy_v2(matmul->cublas);
    if (matmul->lt)
        matmul->blas.cublasLtDestroy(matmul->lt);
    free(matmul);
}

/* ---- a product in cuBLASLt's words ---- */

static cudaDataType_t library_type(uint32_t dtype)
{
    return dtype == DTYPE_FLOAT32 ? CUDA_R_32F : CUDA_R_16BF;
}

static bool describe(const struct cublas_library *blas, struct plan *plan, struct error *error)
{
    static const cublasLtEpilogue_t epilogues[] = {CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_BIAS,
                                                   CUBLASLT_EPILOGUE_BGRADB};
    const struct product *p = &plan->product;
    cublasOperation_t a = p->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, b = p->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cudaDataType_t in = library_type(p->dtype_in), out = library_type(p->dtype_out);
    uint64_t a_rows = p->transpose_a ? p->k : p->m, b_rows = p->transpose_b ? p->n : p->k;
    const struct {
        cublasLtMatmulDescAttributes_t name;
        const void *value;
        size_t bytes;
    } attributes[] = {
        {CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof a},
        {CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof b},
        {CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogues[p->epilogue], sizeof *epilogues},
    };
    if (!BLAS_TRY(cublasLtMatmulDescCreate(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), error))
        return false;
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
        if (!BLAS_TRY(cublasLtMatmulDescSetAttribute(plan->operation, attributes[i].name, attributes[i].value,
                                                     attributes[i].bytes),
                      error))
            return false;
    return BLAS_TRY(cublasLtMatrixLayoutCreate(&plan->a, in, a_rows, p->transpose_a ? p->m : p->k, (int64_t)a_rows),
                    error) &&
           BLAS_TRY(cublasLtMatrixLayoutCreate(&plan->b, in, b_rows, p->transpose_b ? p->k : p->n, (int64_t)b_rows),
                    error) &&
           BLAS_TRY(cublasLtMatrixLayoutCreate(&plan->d, out, p->m, p->n, (int64_t)p->m), error);
}

/* What an algorithm may rely on: the workspace and the alignments of the product. Parts of a sum over k are added up in
 * float32 only, as kernels.h promises of every sum, and not in the type of the output. */
static bool set_preference(const struct cublas_library *blas, cublasLtMatmulPreference_t preference,
                           const struct product *p, struct error *error)
{
    size_t workspace_bytes = PRODUCT_WORKSPACE_BYTES;
    uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t bytes;
    } attributes[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes, sizeof workspace_bytes},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions},
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

/* cuBLASLt looks at the alignment of the bias when it is asked; any address of that alignment does. */
static bool set_example_bias(struct context *ctx, struct plan *plan, struct error *error)
{
    const struct cublas_library *blas = &ctx->matmul->blas;
    uint32_t align = plan->product.align_bias;
    const void *bias = (const char *)ctx->workspace + (align < 16 ? align : 0);
    return plan->product.epilogue == PRODUCT_ALONE ||
           BLAS_TRY(
               cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias),
               error);
}

static void keep_offers(struct plan *plan, const cublasLtMatmulHeuristicResult_t *results, int count)
{
    for (int i = 0; i < count; i++) {
        if (results[i].state != CUBLAS_STATUS_SUCCESS || results[i].workspaceSize > PRODUCT_WORKSPACE_BYTES)
            continue;
        plan->offers[plan->offered++] = (struct offer){
            .algorithm = results[i].algo, .workspace_bytes = results[i].workspaceSize, .waves = results[i].wavesCount};
    }
}

/* Asks cuBLASLt, whose first answer is what it takes for the fastest. */
static bool ask(struct context *ctx, struct plan *plan, struct error *error)
{
    struct matmul *matmul = ctx->matmul;
    const struct cublas_library *blas = &matmul->blas;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t results[PRODUCT_OFFERS];
    int found = 0;
    if (!BLAS_TRY(cublasLtMatmulPreferenceCreate(&preference), error))
        return false;
    bool ok = set_preference(blas, preference, &plan->product, error) && set_example_bias(ctx, plan, error);
    if (ok) {
        cublasStatus_t status =
            blas->cublasLtMatmulAlgoGetHeuristic(matmul->lt, plan->operation, plan->a, plan->b, plan->d, plan->d,
                                                 preference, PRODUCT_OFFERS, results, &found);
        if (status == CUBLAS_STATUS_SUCCESS)
            keep_offers(plan, results, found);
        else if (!blas_refuses(status))
            ok = blas_check(blas, status, "cublasLtMatmulAlgoGetHeuristic", __FILE__, __LINE__, error);
    }
    blas->cublasLtMatmulPreferenceDestroy(preference);
    return ok;
}

/* ---- the table ---- */

static bool make_room(struct matmul *matmul, struct error *error)
{
    if (matmul->count < matmul->capacity)
        return true;
    size_t capacity = matmul->capacity ? 2 * matmul->capacity : 32;
    struct plan **grown = realloc(matmul->plans, capacity * sizeof(struct plan *));
    if (!grown)
        return error_runtime(error, "out of memory");
    matmul->plans = grown;
    matmul->capacity = capacity;
    return true;
}

static bool add_plan(struct context *ctx, struct plan **added, const struct product *product, struct error *error)
{
    struct matmul *matmul = ctx->matmul;
    struct plan *plan = calloc(1, sizeof *plan);
    if (!plan)
        return error_runtime(error, "out of memory");
    plan->product = *product;
    bool plain = matmul->mode == PRODUCTS_PLAIN;
    if (!make_room(matmul, error) || (!plain && (!describe(&matmul->blas, plan, error) || !ask(ctx, plan, error)))) {
        char what[PRODUCT_TEXT_BYTES];
        product_describe(product, what, sizeof what);
        release_plan(&matmul->blas, plan);
        return error_prefix(error, "%s", what);
    }
    plan->chosen = plan->offered > 0 ? 0 : -1;
    *added = matmul->plans[matmul->count++] = plan;
    return true;
}

bool product_plan(struct context *ctx, struct plan **found, const struct product *product, struct error *error)
{
    const struct matmul *matmul = ctx->matmul;
    for (size_t i = 0; i < matmul->count; i++) {
        *found = matmul->plans[i];
        if (memcmp(&(*found)->product, product, sizeof *product) == 0)
            return true;
    }
    return add_plan(ctx, found, product, error);
}

bool product_plan_alone(struct context *ctx, struct plan **alone, struct plan *plan, struct error *error)
{
    struct product without = plan->product;
    without.epilogue = PRODUCT_ALONE;
    without.align_bias = 16;
    if (!plan->alone && !product_plan(ctx, &plan->alone, &without, error))
        return false;
    *alone = plan->alone;
    return true;
}
