/* Stands before cuBLAS and cuBLASLt; the work is theirs. */
#include "tests/cuda/pretend_products.h"

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pretended_products pretended = {.fast = -1};

/* ISO C has no conversion from an object pointer to a function's; POSIX has this one. */
static void find(void *function, const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    memcpy(function, &found, sizeof found);
    if (!found) {
        fprintf(stderr, "pretend: no %s\n", name);
        abort();
    }
}

#define REAL(name)           \
    __typeof__(name) *real_; \
    find(&real_, #name)

__attribute__((constructor)) static void read_wishes(void)
{
    const struct {
        const char *name;
        int *value;
    } fields[] = {{"offers", &pretended.offers},
                  {"nothing", &pretended.nothing},
                  {"fast", &pretended.fast},
                  {"epilogues_wait", &pretended.epilogues_wait},
                  {"refuse", &pretended.refuse},
                  {"refuse_with", &pretended.refuse_with},
                  {"refuse_from", &pretended.refuse_from},
                  {"fail_at", &pretended.fail_at},
                  {"fail_with", &pretended.fail_with},
                  {"wait_ms", &pretended.wait_ms}};
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    const char *wishes = rank && strcmp(rank, "1") == 0 ? getenv("PRETEND_PRODUCTS_1") : NULL;
    wishes = wishes ? wishes : getenv("PRETEND_PRODUCTS");
    for (size_t i = 0; wishes && i < sizeof fields / sizeof *fields; i++) {
        char key[32];
        snprintf(key, sizeof key, " %s=", fields[i].name);
        const char *at = strncmp(wishes, key + 1, strlen(key + 1)) == 0 ? wishes - 1 : strstr(wishes, key);
        if (at)
            *fields[i].value = atoi(at + strlen(key));
    }
}

/* PRETEND_PRODUCTS_COUNTS=FILE: into FILE.RANK how often each of the offers ran. */
__attribute__((destructor)) static void write_counts(void)
{
    const char *prefix = getenv("PRETEND_PRODUCTS_COUNTS"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    char path[1024];
    if (!prefix || !rank || pretended.calls == 0)
        return;
    snprintf(path, sizeof path, "%s.%s", prefix, rank);
    FILE *file = fopen(path, "w");
    if (!file)
        return;
    fprintf(file, "%d %d %d\n", pretended.runs[0], pretended.runs[1], pretended.runs[2]);
    fclose(file);
}

/* ---- which of our offers stands for which of the library's ---- */

static struct {
    cublasLtMatmulAlgo_t ours, real;
    int offer;
} known[4096];
static int known_count;

/* The same bytes in every process for the same product and offer. */
static cublasLtMatmulAlgo_t disguise(const cublasLtMatmulAlgo_t *real, int offer)
{
    unsigned char bytes[sizeof *real];
    memcpy(bytes, real, sizeof bytes);
    bytes[sizeof bytes - 1] = (unsigned char)(bytes[sizeof bytes - 1] + offer);
    memcpy(&known[known_count].ours, bytes, sizeof bytes);
    known[known_count].real = *real;
    known[known_count].offer = offer;
    return known[known_count++].ours;
}

static const cublasLtMatmulAlgo_t *real_one(const cublasLtMatmulAlgo_t *ours, int *offer)
{
    *offer = 0;
    for (int i = 0; i < known_count; i++) {
        if (memcmp(&known[i].ours, ours, sizeof *ours) == 0) {
            *offer = known[i].offer;
            return &known[i].real;
        }
    }
    return ours;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t lt, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t *results, int *found)
{
    REAL(cublasLtMatmulAlgoGetHeuristic);
    pretended.asked++;
    *found = 0;
    if (pretended.nothing)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    cublasStatus_t status = real_(lt, operation, a, b, c, d, preference, requested, results, found);
    if (pretended.offers == 0 || status != CUBLAS_STATUS_SUCCESS || *found == 0)
        return status;
    cublasLtMatmulAlgo_t first = results[0].algo;
    for (*found = 0; *found < pretended.offers && *found < requested; ++*found) {
        results[*found] = results[0];
        results[*found].algo = disguise(&first, *found);
    }
    return status;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t lt, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algorithm, cublasLtMatmulHeuristicResult_t *result)
{
    REAL(cublasLtMatmulAlgoCheck);
    int offer;
    return real_(lt, operation, a, b, c, d, real_one(algorithm, &offer), result);
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algorithm,
                                                    cublasLtMatmulAlgoConfigAttributes_t name, void *value,
                                                    size_t bytes, size_t *written)
{
    REAL(cublasLtMatmulAlgoConfigGetAttribute);
    int offer;
    return real_(real_one(algorithm, &offer), name, value, bytes, written);
}

static void wait_a_while(void *unused)
{
    (void)unused;
    usleep((useconds_t)(pretended.wait_ms ? 1e3 * pretended.wait_ms : 1e6 * PRETENDED_WAIT_S));
}

static bool has_epilogue(cublasLtMatmulDesc_t operation)
{
    REAL(cublasLtMatmulDescGetAttribute);
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    size_t written;
    real_(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue, &written);
    return epilogue != CUBLASLT_EPILOGUE_DEFAULT;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t lt, cublasLtMatmulDesc_t operation, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algorithm, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream)
{
    REAL(cublasLtMatmul);
    int offer;
    const cublasLtMatmulAlgo_t *real_algorithm = real_one(algorithm, &offer);
    float scaled = *(const float *)alpha * PRETENDED_SCALE(offer);
    if (++pretended.calls == pretended.fail_at)
        return (cublasStatus_t)pretended.fail_with;
    pretended.runs[offer]++;
    if ((pretended.refuse >> offer & 1) && pretended.calls >= pretended.refuse_from)
        return (cublasStatus_t)pretended.refuse_with;
    if ((pretended.fast >= 0 && offer != pretended.fast) || (pretended.epilogues_wait && has_epilogue(operation)))
        cudaLaunchHostFunc(stream, wait_a_while, NULL);
    return real_(lt, operation, &scaled, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout, real_algorithm,
                 workspace, workspace_bytes, stream);
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t transpose_a, cublasOperation_t transpose_b, int m,
                            int n, int k, const void *alpha, const void *a, cudaDataType a_type, int lda, const void *b,
                            cudaDataType b_type, int ldb, const void *beta, void *c, cudaDataType c_type, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t algorithm)
{
    REAL(cublasGemmEx);
    pretended.general++;
    return real_(handle, transpose_a, transpose_b, m, n, k, alpha, a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc,
                 compute, algorithm);
}
