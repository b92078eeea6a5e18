/* The streams and the memory of a device: everything of the CUDA backend that is no op. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

/* With less left than this a GPU is full: a context, cuBLAS and a small model want more. */
#define FULL_BYTES ((size_t)1 << 30)

size_t cuda_workspace_bytes(const struct context_options *options)
{
    size_t (*const needs[])(const struct context_options *) = {
        cuda_linear_workspace_bytes, cuda_attention_workspace_bytes, cuda_column_sum_workspace_bytes,
        cuda_embed_workspace_bytes, cuda_optimiser_workspace_bytes};
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        bytes = maximum(bytes, needs[i](options));
    return bytes;
}

/* Communication comes first where both could run: the optimiser waits for it, and its kernels are small. */
static bool create_streams(struct context *ctx, struct error *error)
{
    int least, greatest;
    if (!CUDA_TRY(cudaDeviceGetStreamPriorityRange(&least, &greatest), error) ||
        !CUDA_TRY(cudaStreamCreateWithPriority(&ctx->compute, cudaStreamNonBlocking, least), error) ||
        !CUDA_TRY(cudaStreamCreateWithPriority(&ctx->communication, cudaStreamNonBlocking, greatest), error) ||
        !CUDA_TRY(cudaStreamCreateWithPriority(&ctx->copy, cudaStreamNonBlocking, least), error) ||
        !CUDA_TRY(cudaEventCreateWithFlags(&ctx->compute_reached, cudaEventDisableTiming), error) ||
        !CUDA_TRY(cudaEventCreateWithFlags(&ctx->prefetched, cudaEventDisableTiming), error))
        return false;
    for (int i = 0; i < CUDA_MARKS; i++) /* blocking: a host thread that waits leaves its core to the loader */
        if (!CUDA_TRY(cudaEventCreateWithFlags(&ctx->marks[i], cudaEventBlockingSync), error))
            return false;
    return true;
}

/* The workspace is scratch: it is not filled with zeros. */
static bool allocate_workspace(struct context *ctx, const struct context_options *options, struct error *error)
{
    ctx->workspace_bytes = cuda_workspace_bytes(options);
    if (CUDA_TRY(cudaMalloc(&ctx->workspace, ctx->workspace_bytes), error))
        return true;
    ctx->workspace = NULL;
    return error_prefix(error, "%zu MiB for the workspace on GPU %d", ctx->workspace_bytes >> 20, ctx->device);
}

/* Where opening failed for want of memory, whatever library said so: who has it. */
static void explain_full_device(struct context *ctx, struct error *error)
{
    size_t available = 0, total;
    char holders[384];
    if (error->status == ERROR_INPUT || (cudaMemGetInfo(&available, &total) == cudaSuccess && available > FULL_BYTES))
        return;
    (void)cudaGetLastError();
    cuda_memory_holders(ctx, holders, sizeof holders);
    if (*holders)
        error_append(error, "; %s", holders);
}

void cuda_close(struct context *ctx)
{
    if (!ctx)
        return;
    cudaStream_t streams[] = {ctx->compute, ctx->communication, ctx->copy};
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++) {
        if (streams[i]) {
            cudaStreamSynchronize(streams[i]);
            cudaStreamDestroy(streams[i]);
        }
    }
    cuda_matmul_close(ctx->matmul);
    for (int i = 0; i < CUDA_MARKS; i++)
        if (ctx->marks[i])
            cudaEventDestroy(ctx->marks[i]);
    if (ctx->compute_reached)
        cudaEventDestroy(ctx->compute_reached);
    if (ctx->prefetched)
        cudaEventDestroy(ctx->prefetched);
    cudaFree(ctx->workspace);
    free(ctx);
}

bool cuda_open(struct context **opened, const struct context_options *options, struct error *error)
{
    *opened = NULL;
    struct context *ctx = calloc(1, sizeof *ctx);
    if (!ctx)
        return error_runtime(error, "out of memory");
    ctx->device = options->device;
    ctx->dtype = options->dtype;
    if (!cuda_choose_device(ctx, error) || !create_streams(ctx, error) || !cuda_matmul_open(&ctx->matmul, error) ||
        !allocate_workspace(ctx, options, error)) {
        explain_full_device(ctx, error);
        cuda_close(ctx);
        return false;
    }
    *opened = ctx;
    return true;
}

void cuda_describe(struct context *ctx, char *text, size_t text_bytes)
{
    int runtime = 0, driver = 0;
    cudaRuntimeGetVersion(&runtime); /* both stay 0 where they cannot be told */
    cudaDriverGetVersion(&driver);
    snprintf(text, text_bytes,
             "GPU %d: %s, compute capability %d.%d, %d multiprocessors, %.1f GiB, CUDA runtime %d.%d, driver %d.%d",
             ctx->device, ctx->properties.name, ctx->properties.major, ctx->properties.minor,
             ctx->properties.multiprocessors, (double)ctx->properties.memory_bytes / (1 << 30), runtime / 1000,
             runtime % 100 / 10, driver / 1000, driver % 100 / 10);
}

/* FLOP a clock and multiprocessor of dense products with float32 sums (CUDA C++ Programming Guide, arithmetic
 * instructions, and the architecture white papers). GeForce cards of 8.6, 8.9 and 12.0 reach half of it for bfloat16.
 */
static double flops_per_clock(const struct cuda_device *device, enum dtype dtype)
{
    if (dtype == DTYPE_FLOAT32)
        return device->major == 8 && device->minor == 0 ? 128 : 256;
    switch (device->major) {
    case 8:
        return device->minor == 0 ? 2048 : 1024;
    case 9:
        return 4096;
    case 10:
        return 8192;
    case 12:
        return 1024;
    default:
        return 0;
    }
}

void cuda_limits(struct context *ctx, double *flops, double *bytes_per_s)
{
    int clock_khz = 0, memory_khz = 0, bus_bits = 0;
    *flops = *bytes_per_s = 0;
    if (cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, ctx->device) == cudaSuccess)
        *flops = 1e3 * clock_khz * ctx->properties.multiprocessors * flops_per_clock(&ctx->properties, ctx->dtype);
    if (cudaDeviceGetAttribute(&memory_khz, cudaDevAttrMemoryClockRate, ctx->device) == cudaSuccess &&
        cudaDeviceGetAttribute(&bus_bits, cudaDevAttrGlobalMemoryBusWidth, ctx->device) == cudaSuccess)
        *bytes_per_s = 2.0 * 1e3 * memory_khz * bus_bits / 8; /* two transfers a clock */
    (void)cudaGetLastError();
}

bool cuda_memory_available(struct context *ctx, size_t *bytes, struct error *error)
{
    (void)ctx;
    size_t total;
    return CUDA_TRY(cudaMemGetInfo(bytes, &total), error);
}

bool cuda_memory_state(struct context *ctx, struct device_memory *memory, struct error *error)
{
    if (!CUDA_TRY(cudaMemGetInfo(&memory->free, &memory->total), error))
        return false;
    memory->taken = ctx->free_at_open - minimum(ctx->free_at_open, memory->free);
    return true;
}

bool cuda_allocate(struct context *ctx, void **memory, size_t bytes, const char *what, struct error *error)
{
    *memory = NULL;
    size_t wanted = maximum(bytes, 1);
    cudaError_t status = cudaMalloc(memory, wanted);
    if (status != cudaSuccess) {
        size_t available = 0, total = 0;
        cudaMemGetInfo(&available, &total);
        *memory = NULL;
        (void)cudaGetLastError();
        return error_runtime(error,
                             "GPU %d has %.2f GiB of %.2f GiB left and %s needs %.2f GiB (%s); use a smaller "
                             "train.batch_size, more ranks or train.recompute",
                             ctx->device, (double)available / (1 << 30), (double)total / (1 << 30), what,
                             (double)bytes / (1 << 30), cudaGetErrorName(status));
    }
    /* Waits, as the other streams may be the first to use the memory. */
    return CUDA_TRY(cudaMemsetAsync(*memory, 0, wanted, ctx->compute), error) &&
           CUDA_TRY(cudaStreamSynchronize(ctx->compute), error);
}

void cuda_release(struct context *ctx, void *memory)
{
    (void)ctx;
    cudaFree(memory);
}

const void *cuda_host_view(struct context *ctx, const void *device)
{
    (void)ctx;
    (void)device;
    return NULL;
}

bool cuda_allocate_host(struct context *ctx, void **memory, size_t bytes, const char *what, struct error *error)
{
    (void)ctx;
    if (CUDA_TRY(cudaMallocHost(memory, maximum(bytes, 1)), error)) {
        memset(*memory, 0, bytes);
        return true;
    }
    *memory = NULL;
    return error_prefix(error, "%zu bytes of pinned host memory for %s", bytes, what);
}

void cuda_release_host(struct context *ctx, void *memory)
{
    (void)ctx;
    cudaFreeHost(memory);
}

bool cuda_zero(struct context *ctx, void *memory, size_t bytes, struct error *error)
{
    ctx->launches.copies++;
    return CUDA_TRY(cudaMemsetAsync(memory, 0, bytes, ctx->compute), error);
}

bool cuda_upload(struct context *ctx, void *device, const void *host, size_t bytes, struct error *error)
{
    ctx->launches.copies++;
    return CUDA_TRY(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, ctx->compute), error);
}

bool cuda_download(struct context *ctx, void *host, const void *device, size_t bytes, struct error *error)
{
    ctx->launches.copies++;
    return CUDA_TRY(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, ctx->compute), error);
}

bool cuda_prefetch_begin(struct context *ctx, struct error *error)
{
    return CUDA_TRY(cudaEventRecord(ctx->compute_reached, ctx->compute), error) &&
           CUDA_TRY(cudaStreamWaitEvent(ctx->copy, ctx->compute_reached, 0), error);
}

bool cuda_prefetch(struct context *ctx, void *device, const void *host, size_t bytes, struct error *error)
{
    ctx->launches.copies++;
    return CUDA_TRY(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, ctx->copy), error);
}

bool cuda_prefetch_end(struct context *ctx, struct error *error)
{
    return CUDA_TRY(cudaEventRecord(ctx->prefetched, ctx->copy), error) &&
           CUDA_TRY(cudaStreamWaitEvent(ctx->compute, ctx->prefetched, 0), error);
}

bool cuda_mark(struct context *ctx, int slot, struct error *error)
{
    return CUDA_TRY(cudaEventRecord(ctx->marks[slot], ctx->compute), error);
}

/* A kernel that failed shows here first; all that is known is that it was one up to the newest. */
static bool waited(struct context *ctx, cudaError_t status, struct error *error)
{
    if (status == cudaSuccess)
        return true;
    return error_runtime(error,
                         "GPU %d: %s (%s) in the kernels up to %s; run again with CUDA_LAUNCH_BLOCKING=1 to learn in "
                         "which",
                         ctx->device, cudaGetErrorString(status), cudaGetErrorName(status),
                         ctx->last_kernel ? ctx->last_kernel : "the first");
}

bool cuda_wait_mark(struct context *ctx, int slot, struct error *error)
{
    return waited(ctx, cudaEventSynchronize(ctx->marks[slot]), error);
}

bool cuda_elapsed(struct context *ctx, int from, int to, double *seconds, struct error *error)
{
    float milliseconds = 0;
    if (!cuda_wait_mark(ctx, to, error) ||
        !CUDA_TRY(cudaEventElapsedTime(&milliseconds, ctx->marks[from], ctx->marks[to]), error))
        return false;
    *seconds = 1e-3 * (double)milliseconds;
    return true;
}

bool cuda_synchronise(struct context *ctx, struct error *error)
{
    return waited(ctx, cudaStreamSynchronize(ctx->copy), error) &&
           waited(ctx, cudaStreamSynchronize(ctx->communication), error) &&
           waited(ctx, cudaStreamSynchronize(ctx->compute), error);
}

void cuda_count_launches(const struct context *ctx, struct launches *launches)
{
    *launches = ctx->launches;
}

void *cuda_stream(struct context *ctx)
{
    return ctx->compute;
}

struct cuda_streams cuda_streams_of(const struct context *ctx)
{
    return (struct cuda_streams){ctx->device, ctx->compute, ctx->communication};
}
