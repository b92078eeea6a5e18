/* A library for LD_PRELOAD that pretends what no test machine has. PRETEND:
 *   no_lt        cuBLASLt has no algorithm for any product
 *   count        (nothing, but says at the end how many products cuBLASLt was given, and how many graphs were launched)
 *   fast_gpu     the same, and all that is timed on the GPU took a nanosecond
 *   no_nccl      no NCCL is installed
 *   no_cublas    no cuBLASLt is installed
 *   no_driver, old_driver   there is no driver; it is for CUDA 12.4
 *   no_gpu       the driver shows none
 *   broken       CUDA answers with an error of its own
 *   old_gpu      GPUs are V100s
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

static unsigned products, graphs;

static void say_counts(void)
{
    fprintf(stderr, "pretend: %u products, %u graphs\n", products, graphs);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t lt, cublasLtMatmulDesc_t operation, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algorithm, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream)
{
    __typeof__(cublasLtMatmul) *real;
    find(&real, "cublasLtMatmul");
    if ((pretends("count") || pretends("fast_gpu")) && products++ == 0)
        atexit(say_counts);
    return real ? real(lt, operation, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout, algorithm,
                       workspace, workspace_bytes, stream)
                : CUBLAS_STATUS_NOT_INITIALIZED;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream)
{
    __typeof__(cudaGraphLaunch) *real;
    find(&real, "cudaGraphLaunch");
    graphs++;
    return real ? real(graph, stream) : cudaErrorNotSupported;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    __typeof__(cudaEventElapsedTime) *real;
    find(&real, "cudaEventElapsedTime");
    cudaError_t status = real ? real(ms, from, to) : cudaErrorNotSupported;
    if (pretends("fast_gpu"))
        *ms = 1e-6F;
    return status;
}

void *dlopen(const char *name, int mode)
{
    void *(*real)(const char *, int);
    find(&real, "dlopen");
    if (pretends("no_nccl") && name && strcmp(name, "libnccl.so.2") == 0)
        name = "libnccl.so.2 (pretended)"; /* so that dlerror has the loader's words */
    if (pretends("no_cublas") && name && strncmp(name, "libcublasLt.so.", 15) == 0)
        name = "libcublasLt.so (pretended)";
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

cudaError_t cudaGetDeviceCount(int *count)
{
    cudaError_t (*real)(int *);
    find(&real, "cudaGetDeviceCount");
    if (pretends("no_driver") || pretends("old_driver"))
        return cudaErrorInsufficientDriver;
    if (pretends("no_gpu"))
        return cudaErrorNoDevice;
    if (pretends("broken"))
        return cudaErrorSystemDriverMismatch;
    return real ? real(count) : cudaErrorNotSupported;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    cudaError_t (*real)(int *);
    find(&real, "cudaDriverGetVersion");
    if (pretends("no_driver") || pretends("old_driver")) {
        *version = pretends("no_driver") ? 0 : 12040;
        return cudaSuccess;
    }
    return real ? real(version) : cudaErrorNotSupported;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
    cudaError_t (*real)(struct cudaDeviceProp *, int);
    find(&real, "cudaGetDeviceProperties");
    cudaError_t status = real ? real(properties, device) : cudaErrorNotSupported;
    if (pretends("old_gpu")) {
        snprintf(properties->name, sizeof properties->name, "Tesla V100-SXM2-16GB");
        properties->major = 7;
        properties->minor = 0;
    }
    return status;
}
