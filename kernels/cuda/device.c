/* Which GPU is taken, and why none can be. */
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/cuda.h"

/* Before CUDA's first call. A kernel that is loaded at its first launch takes memory after the plan was checked, and
 * holds up the stream in the middle of a step; who wants that may set the variable. */
static void load_kernels_at_once(void)
{
    setenv("CUDA_MODULE_LOADING", "EAGER", 0);
}

int cuda_device_count(void)
{
    int count = 0;
    load_kernels_at_once();
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

void cuda_no_device(char *text, size_t text_bytes)
{
    int count = 0, driver = 0, runtime = 0;
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    cudaError_t status = cudaGetDeviceCount(&count);
    cudaDriverGetVersion(&driver); /* stays 0 where there is none */
    cudaRuntimeGetVersion(&runtime);
    if (status == cudaErrorInsufficientDriver && driver == 0)
        snprintf(text, text_bytes, "it has no NVIDIA driver, or none that is loaded (does nvidia-smi work?)");
    else if (status == cudaErrorInsufficientDriver)
        snprintf(text, text_bytes,
                 "its driver is for CUDA %d.%d and this program was built with CUDA %d.%d; update the driver, or build "
                 "with CUDA %d",
                 driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10, driver / 1000);
    else if (visible && (status == cudaErrorNoDevice || status == cudaErrorInvalidDevice || status == cudaSuccess))
        snprintf(text, text_bytes,
                 "CUDA_VISIBLE_DEVICES='%.200s' leaves none to see; unset it, or name GPUs that nvidia-smi -L lists",
                 visible);
    else if (status == cudaErrorNoDevice || status == cudaSuccess)
        snprintf(text, text_bytes, "CUDA finds none (nvidia-smi -L should list it)");
    else
        snprintf(text, text_bytes, "CUDA says: %s (%s); does nvidia-smi work?", cudaGetErrorString(status),
                 cudaGetErrorName(status));
    (void)cudaGetLastError();
}

static bool read_properties(struct context *ctx, struct error *error)
{
    struct cudaDeviceProp properties;
    size_t total;
    if (!CUDA_TRY(cudaSetDevice(ctx->device), error) ||
        !CUDA_TRY(cudaGetDeviceProperties(&properties, ctx->device), error) ||
        !CUDA_TRY(cudaMemGetInfo(&ctx->free_at_open, &total), error))
        return false;
    struct cuda_device *device = &ctx->properties;
    snprintf(device->name, sizeof device->name, "%s", properties.name);
    device->major = properties.major;
    device->minor = properties.minor;
    device->multiprocessors = properties.multiProcessorCount;
    device->shared_bytes_per_block = properties.sharedMemPerBlockOptin;
    device->memory_bytes = properties.totalGlobalMem;
    return true;
}

bool cuda_choose_device(struct context *ctx, struct error *error)
{
    char reason[400];
    int count = cuda_device_count();
    if (count == 0) {
        cuda_no_device(reason, sizeof reason);
        return error_input(error, "no usable GPU on this host: %s; train on the CPU with --device cpu", reason);
    }
    if (ctx->device < 0 || ctx->device >= count)
        return error_input(error,
                           "GPU %d is asked for and this host has %d; start one rank per GPU (mpirun --map-by "
                           "ppr:%d:node) or let the ranks see more GPUs (CUDA_VISIBLE_DEVICES)",
                           ctx->device, count, count);
    if (!read_properties(ctx, error))
        return false;
    const struct cuda_device *device = &ctx->properties;
    if (device->major < 8)
        return error_input(error,
                           "GPU %d (%s) has compute capability %d.%d; 8.0 (Ampere) or newer is needed for bfloat16; "
                           "train on the CPU with --device cpu",
                           ctx->device, device->name, device->major, device->minor);
    return true;
}
