/* A library for LD_PRELOAD that pretends what no test machine has. PRETEND:
 *   no_lt        cuBLASLt has no algorithm for any product
 *   no_nccl      no NCCL is installed
 *   mixed_nccl   rank 1's NCCL is another version than rank 0's
 *   one_gpu      every rank's GPU has the same PCI bus id */
#define _GNU_SOURCE
#include <cublasLt.h>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <nccl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool pretends(const char *what)
{
    const char *wish = getenv("PRETEND");
    return wish && strcmp(wish, what) == 0;
}

/* ISO C has no conversion from an object pointer to a function's; POSIX has this one. */
static void find(void *function, const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    memcpy(function, &found, sizeof found);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t lt, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t *results, int *found)
{
    static bool said;
    cublasStatus_t (*real)(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                           cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatmulPreference_t, int,
                           cublasLtMatmulHeuristicResult_t *, int *);
    if (pretends("no_lt")) {
        if (!said)
            fputs("pretend: cuBLASLt offers nothing\n", stderr);
        said = true;
        *found = 0;
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    find(&real, "cublasLtMatmulAlgoGetHeuristic");
    return real ? real(lt, operation, a, b, c, d, preference, requested, results, found)
                : CUBLAS_STATUS_NOT_INITIALIZED;
}

void *dlopen(const char *name, int mode)
{
    void *(*real)(const char *, int);
    find(&real, "dlopen");
    if (pretends("no_nccl") && name && strcmp(name, "libnccl.so.2") == 0)
        name = "libnccl.so.2 (pretended)"; /* so that dlerror has the loader's words */
    return real ? real(name, mode) : NULL;
}

ncclResult_t ncclGetVersion(int *version)
{
    ncclResult_t (*real)(int *);
    find(&real, "ncclGetVersion");
    ncclResult_t result = real ? real(version) : ncclInternalError;
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    if (pretends("mixed_nccl") && rank && strcmp(rank, "1") == 0)
        *version += 100;
    return result;
}

cudaError_t cudaDeviceGetPCIBusId(char *id, int bytes, int device)
{
    cudaError_t (*real)(char *, int, int);
    find(&real, "cudaDeviceGetPCIBusId");
    return real ? real(id, bytes, pretends("one_gpu") ? 0 : device) : cudaErrorNotSupported;
}
