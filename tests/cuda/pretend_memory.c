/* A library for LD_PRELOAD that pretends things about a GPU's memory which no test machine has. PRETEND:
 *   held            another process holds PRETEND_MIB of it, which NVML tells: process PRETEND_PID
 *   held_by_whom    the same, and NVML is not there
 *   full            the same as held, and not even a stream can be made
 *   late            the first product takes PRETEND_MIB, as a library does that loads or allocates late
 *   module_loading  says how the first call finds CUDA_MODULE_LOADING
 *   pageable        says of each download whether it goes into pageable memory, which makes it wait */
#define _GNU_SOURCE
#include <cublasLt.h>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool pretends(const char *what)
{
    const char *wish = getenv("PRETEND");
    return wish && strcmp(wish, what) == 0;
}

static size_t number(const char *name)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : 0;
}

/* ISO C has no conversion from an object pointer to a function's; POSIX has this one. */
static void find(void *function, const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    memcpy(function, &found, sizeof found);
}

static bool somebody_holds(void)
{
    return pretends("held") || pretends("held_by_whom") || pretends("full");
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    cudaError_t (*real)(size_t *, size_t *);
    find(&real, "cudaMemGetInfo");
    cudaError_t status = real ? real(available, total) : cudaErrorNotSupported;
    size_t held = number("PRETEND_MIB") << 20;
    if (status == cudaSuccess && somebody_holds())
        *available = *available > held ? *available - held : 0;
    return status;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    cudaError_t (*real)(int *);
    static bool said;
    find(&real, "cudaGetDeviceCount");
    if (pretends("module_loading") && !said)
        fprintf(stderr, "pretend: CUDA_MODULE_LOADING is %s\n", getenv("CUDA_MODULE_LOADING"));
    said = true;
    return real ? real(count) : cudaErrorNotSupported;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
    cudaError_t (*real)(cudaStream_t *, unsigned, int);
    find(&real, "cudaStreamCreateWithPriority");
    if (pretends("full"))
        return cudaErrorMemoryAllocation;
    return real ? real(stream, flags, priority) : cudaErrorNotSupported;
}

/* ---- NVML: its functions are looked for in what dlopen gives, here the program with what is preloaded ---- */

struct nvml_process {
    unsigned pid;
    unsigned long long bytes;
    unsigned gpu_instance, compute_instance;
};

void *dlopen(const char *name, int mode)
{
    void *(*real)(const char *, int);
    find(&real, "dlopen");
    if (name && strcmp(name, "libnvidia-ml.so.1") == 0)
        return pretends("held_by_whom") || !real ? NULL : real(NULL, mode);
    return real ? real(name, mode) : NULL;
}

int nvmlInit_v2(void)
{
    return 0;
}

int nvmlShutdown(void)
{
    return 0;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **device)
{
    static char handle;
    *device = &handle;
    return strchr(bus_id, ':') ? 0 : 2;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct nvml_process *processes)
{
    (void)device;
    if (*count < 2)
        return 7;
    processes[0] = (struct nvml_process){.pid = (unsigned)getpid(), .bytes = 300ULL << 20};
    processes[1] = (struct nvml_process){.pid = (unsigned)number("PRETEND_PID"), .bytes = number("PRETEND_MIB") << 20};
    *count = somebody_holds() ? 2 : 1;
    return 0;
}

/* ---- libraries ---- */

cublasStatus_t cublasLtMatmul(cublasLtHandle_t lt, cublasLtMatmulDesc_t operation, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algorithm, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream)
{
    static void *taken;
    cublasStatus_t (*real)(cublasLtHandle_t, cublasLtMatmulDesc_t, const void *, const void *, cublasLtMatrixLayout_t,
                           const void *, cublasLtMatrixLayout_t, const void *, const void *, cublasLtMatrixLayout_t,
                           void *, cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t *, void *, size_t, cudaStream_t);
    find(&real, "cublasLtMatmul");
    if (pretends("late") && !taken && cudaMalloc(&taken, number("PRETEND_MIB") << 20) != cudaSuccess)
        return CUBLAS_STATUS_ALLOC_FAILED;
    return real ? real(lt, operation, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout, algorithm,
                       workspace, workspace_bytes, stream)
                : CUBLAS_STATUS_NOT_INITIALIZED;
}

/* ---- downloads ---- */

enum { MOST_PINNED = 256 };
static struct {
    const char *start;
    size_t bytes;
} pinned[MOST_PINNED];

cudaError_t cudaMallocHost(void **memory, size_t bytes)
{
    cudaError_t (*real)(void **, size_t);
    find(&real, "cudaMallocHost");
    cudaError_t status = real ? real(memory, bytes) : cudaErrorNotSupported;
    for (size_t i = 0; status == cudaSuccess && i < MOST_PINNED; i++)
        if (!pinned[i].start) {
            pinned[i].start = *memory;
            pinned[i].bytes = bytes;
            break;
        }
    return status;
}

cudaError_t cudaFreeHost(void *memory)
{
    cudaError_t (*real)(void *);
    find(&real, "cudaFreeHost");
    for (size_t i = 0; i < MOST_PINNED; i++)
        if (pinned[i].start == memory)
            pinned[i].start = NULL;
    return real ? real(memory) : cudaErrorNotSupported;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    cudaError_t (*real)(void *, const void *, size_t, enum cudaMemcpyKind, cudaStream_t);
    find(&real, "cudaMemcpyAsync");
    bool found = false;
    for (size_t i = 0; i < MOST_PINNED && !found; i++)
        found =
            pinned[i].start && (char *)to >= pinned[i].start && (char *)to + bytes <= pinned[i].start + pinned[i].bytes;
    if (pretends("pageable") && kind == cudaMemcpyDeviceToHost)
        fprintf(stderr, "pretend: a download into %s memory\n", found ? "pinned" : "pageable");
    return real ? real(to, from, bytes, kind, stream) : cudaErrorNotSupported;
}
