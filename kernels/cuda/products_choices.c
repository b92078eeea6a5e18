/* The choices of a context out and in: struct kernels_products. */
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/products.h"

_Static_assert(sizeof(cublasLtMatmulAlgo_t) == PRODUCT_ALGORITHM_BYTES, "an algorithm is kept whole");

static void identity(struct context *ctx, char *text, size_t text_bytes)
{
    int runtime = 0, driver = 0;
    cudaRuntimeGetVersion(&runtime); /* both stay 0 where they cannot be told */
    cudaDriverGetVersion(&driver);
    snprintf(text, text_bytes,
             "%.120s, compute capability %d.%d, %d multiprocessors, CUDA driver %d, runtime %d, cuBLASLt %zu",
             ctx->properties.name, ctx->properties.major, ctx->properties.minor, ctx->properties.multiprocessors,
             driver, runtime, ctx->matmul->blas.cublasLtGetVersion());
}

static enum products_mode resolve(struct context *ctx, enum products_mode mode)
{
    if (mode != PRODUCTS_AUTO)
        return mode;
    /* gpusim's events tell how long the host took to simulate. */
    return strstr(ctx->properties.name, "gpusim") ? PRODUCTS_FIRST : PRODUCTS_TUNED;
}

static void forget(struct context *ctx)
{
    products_forget(ctx->matmul);
}

static void set_mode(struct context *ctx, enum products_mode mode)
{
    enum products_mode wanted = resolve(ctx, mode);
    if ((wanted == PRODUCTS_PLAIN) != (ctx->matmul->mode == PRODUCTS_PLAIN))
        forget(ctx); /* plans of PLAIN were made without asking cuBLASLt */
    ctx->matmul->mode = wanted;
}

static size_t count(struct context *ctx)
{
    return ctx->matmul->count;
}

static size_t refused(struct context *ctx)
{
    return ctx->matmul->refused;
}

/* -1 where cuBLASLt does not say. */
static int32_t attribute(const struct cublas_library *blas, const cublasLtMatmulAlgo_t *algorithm,
                         cublasLtMatmulAlgoConfigAttributes_t name)
{
    int32_t value = -1;
    size_t written;
    return blas->cublasLtMatmulAlgoConfigGetAttribute(algorithm, name, &value, sizeof value, &written) ==
                   CUBLAS_STATUS_SUCCESS
               ? value
               : -1;
}

static enum product_way way_of(const struct plan *plan)
{
    if (plan->chosen >= 0)
        return PRODUCT_BY_LIBRARY;
    return plan->product.epilogue == PRODUCT_ALONE ? PRODUCT_BY_GENERAL : PRODUCT_IN_PARTS;
}

static void get(struct context *ctx, size_t index, struct product_choice *choice)
{
    const struct plan *plan = ctx->matmul->plans[index];
    const struct cublas_library *blas = &ctx->matmul->blas;
    *choice = (struct product_choice){.product = plan->product,
                                      .way = way_of(plan),
                                      .tuned = plan->tuned,
                                      .id = -1,
                                      .tile = -1,
                                      .stages = -1,
                                      .split_k = -1,
                                      .offered = plan->offered,
                                      .time_s = plan->time_s,
                                      .first_s = plan->first_s};
    for (int i = 0; i < plan->offered; i++)
        choice->refused += plan->offers[i].refused;
    if (plan->chosen < 0)
        return;
    const struct offer *offer = &plan->offers[plan->chosen];
    memcpy(choice->algorithm, &offer->algorithm, sizeof choice->algorithm);
    choice->id = attribute(blas, &offer->algorithm, CUBLASLT_ALGO_CONFIG_ID);
    choice->tile = attribute(blas, &offer->algorithm, CUBLASLT_ALGO_CONFIG_TILE_ID);
    choice->stages = attribute(blas, &offer->algorithm, CUBLASLT_ALGO_CONFIG_STAGES_ID);
    choice->split_k = attribute(blas, &offer->algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
    choice->waves = (double)offer->waves;
    choice->workspace_bytes = offer->workspace_bytes;
}

/* ---- in ---- */

/* An algorithm that is not among the offers must at least be one that cuBLASLt would run for this product. */
static bool add_offer(struct context *ctx, struct plan *plan, const cublasLtMatmulAlgo_t *algorithm)
{
    cublasLtMatmulHeuristicResult_t result = {.state = CUBLAS_STATUS_NOT_SUPPORTED};
    const struct cublas_library *blas = &ctx->matmul->blas;
    cublasStatus_t status = blas->cublasLtMatmulAlgoCheck(ctx->matmul->lt, plan->operation, plan->a, plan->b, plan->d,
                                                          plan->d, algorithm, &result);
    if (status != CUBLAS_STATUS_SUCCESS || result.state != CUBLAS_STATUS_SUCCESS ||
        result.workspaceSize > PRODUCT_WORKSPACE_BYTES || plan->offered > PRODUCT_OFFERS)
        return false;
    plan->offers[plan->offered] =
        (struct offer){.algorithm = *algorithm, .workspace_bytes = result.workspaceSize, .waves = result.wavesCount};
    plan->chosen = plan->offered++;
    return true;
}

static bool take_algorithm(struct context *ctx, struct plan *plan, const struct product_choice *choice)
{
    cublasLtMatmulAlgo_t algorithm;
    memcpy(&algorithm, choice->algorithm, sizeof algorithm);
    for (int i = 0; i < plan->offered; i++) {
        if (memcmp(&plan->offers[i].algorithm, &algorithm, sizeof algorithm) == 0) {
            plan->offers[i].refused = false;
            plan->chosen = i;
            return true;
        }
    }
    return add_offer(ctx, plan, &algorithm);
}

static bool take(struct context *ctx, const struct product_choice *choice, struct error *error)
{
    struct plan *plan;
    if (!product_plan(ctx, &plan, &choice->product, error))
        return false;
    bool possible;
    if (choice->way == PRODUCT_BY_LIBRARY) {
        possible = ctx->matmul->mode != PRODUCTS_PLAIN && take_algorithm(ctx, plan, choice);
    } else {
        possible = (choice->way == PRODUCT_IN_PARTS) == (plan->product.epilogue != PRODUCT_ALONE);
        plan->chosen = possible ? -1 : plan->chosen;
    }
    if (!possible) {
        char what[PRODUCT_TEXT_BYTES];
        product_describe(&choice->product, what, sizeof what);
        return error_runtime(error, "cuBLASLt does not know the way that was chosen for %s", what);
    }
    plan->tuned = choice->tuned;
    plan->time_s = choice->time_s;
    plan->first_s = choice->first_s;
    return true;
}

const struct kernels_products cuda_products = {
    .identity = identity,
    .resolve = resolve,
    .set_mode = set_mode,
    .count = count,
    .get = get,
    .refused = refused,
    .take = take,
    .forget = forget,
};
