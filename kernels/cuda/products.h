/* Matrix products on cuBLASLt and what is chosen for each. Internal to kernels/cuda.
 *   products.c          the table of products that were met, and what the library offers for each
 *   products_run.c      one product: an algorithm, the next one where it is refused, in parts, by the general call
 *   products_tune.c     which is the fastest
 *   products_choices.c  choices out and in: struct kernels_products
 *   linear.c            which products a linear layer is */
#ifndef QUEST_KERNELS_CUDA_PRODUCTS_H
#define QUEST_KERNELS_CUDA_PRODUCTS_H

#include "kernels/cuda/cublas_library.h"
#include "kernels/cuda/cuda.h"
#include "kernels/products.h"

/* What NVIDIA recommends for Hopper; smaller ones exclude some split-k algorithms. */
enum { PRODUCT_WORKSPACE_BYTES = 32 << 20 };
/* Algorithms asked for; one more may come from a file. */
enum { PRODUCT_OFFERS = 16 };

struct offer {
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace_bytes;
    float waves;
    bool refused; /* by cublasLtMatmul */
};

/* A product that was met, with the way in which it is computed. */
struct plan {
    struct product product;
    struct plan *alone; /* the same product without its epilogue, once it is wanted */
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, d;
    struct offer offers[PRODUCT_OFFERS + 1];
    int offered;
    int chosen; /* index of an offer; -1: none is left, so in parts or by the general call */
    bool tuned;
    double time_s, first_s;
};

struct matmul {
    struct cublas_library blas;
    cublasLtHandle_t lt;
    cublasHandle_t cublas;
    enum products_mode mode;
    struct plan **plans;
    size_t count, capacity, refused;
};

struct operands {
    const void *a, *b;
    void *d;
    const void *bias; /* PRODUCT_BIAS: added */
    float *sums;      /* PRODUCT_COLUMN_SUMS: the sums are added to these */
};

/* "the product of 768 x 50432 x 3072 (bf16 to fp32, with column sums)" */
void product_describe(const struct product *product, char *text, size_t text_bytes);
#define PRODUCT_TEXT_BYTES 128

/* ---- the table ---- */

/* `blas` is the struct cublas_library that the call goes through. */
#define BLAS_TRY(call, error) blas_check(blas, blas->call, #call, __FILE__, __LINE__, (error))
bool blas_check(const struct cublas_library *blas, cublasStatus_t status, const char *call, const char *file, int line,
                struct error *error);
/* Statuses by which cuBLAS says, before anything is queued, that it is not this that it can do: wrong for the problem,
 * not supported, not on this GPU. Not so ALLOC_FAILED: what is computed must not depend on how full a GPU is. */
bool blas_refuses(cublasStatus_t status);
/* The plan of a product, made at its first use. A run has some twenty: a search through them costs nothing. */
bool product_plan(struct context *ctx, struct plan **found, const struct product *product, struct error *error);
/* The plan of the same product without its epilogue, which it has. */
bool product_plan_alone(struct context *ctx, struct plan **alone, struct plan *plan, struct error *error);
void products_forget(struct matmul *matmul);

/* ---- running ---- */

/* Queues one product by one offer, epilogue included; nothing is queued where the status is not SUCCESS. PRODUCT_BIAS
 * and PRODUCT_COLUMN_SUMS as the struct operands says. *ok is false, with an error, where a kernel of ours could not be
 * launched. */
cublasStatus_t product_run_offer(struct context *ctx, struct plan *plan, int offer, const struct operands *operands,
                                 bool *ok, struct error *error);
/* The same in parts. */
bool product_run_parts(struct context *ctx, struct plan *plan, const struct operands *operands, struct error *error);
/* The same in the way that was chosen. An offer that is refused is never taken again; the next one is. */
bool product_run(struct context *ctx, struct plan *plan, const struct operands *operands, struct error *error);
/* The first offer that was not refused; -1: none. */
int product_next_offer(const struct plan *plan);

/* ---- the fastest ---- */

/* Times everything that could be chosen and chooses, for the plan and for the one that it is alone; waits. The operands
 * are read, and d is written where the product does not accumulate; nothing else of the caller's is touched. */
bool product_tune(struct context *ctx, struct plan *plan, const struct operands *operands, struct error *error);

#endif
