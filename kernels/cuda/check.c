/* Turns CUDA's status codes into our errors. */
#include "kernels/cuda/cuda.h"

bool cuda_check(cudaError_t status, const char *call, const char *file, int line, struct error *error)
{
    if (status == cudaSuccess)
        return true;
    return error_runtime(error, "%s:%d: %.200s: %s (%s)", file, line, call, cudaGetErrorString(status),
                         cudaGetErrorName(status));
}

bool cuda_check_launch(struct context *ctx, const char *kernel, const char *file, int line, struct error *error)
{
    const char *before = ctx->last_kernel ? ctx->last_kernel : "none";
    ctx->last_kernel = kernel;
    ctx->launches.kernels++;
    cudaError_t status = cudaGetLastError();
    if (status == cudaSuccess)
        return true;
    return error_runtime(error,
                         "%s:%d: GPU %d, kernel %s: %s (%s); if an earlier kernel is at fault (the one before was %s), "
                         "CUDA_LAUNCH_BLOCKING=1 names it",
                         file, line, ctx->device, kernel, cudaGetErrorString(status), cudaGetErrorName(status), before);
}

bool cuda_workspace(struct context *ctx, void **memory, size_t bytes, const char *op, struct error *error)
{
    *memory = ctx->workspace;
    if (bytes <= ctx->workspace_bytes)
        return true;
    return error_runtime(error,
                         "%s needs %zu bytes of scratch memory and the context was opened with %zu; its workload is "
                         "smaller than what is run",
                         op, bytes, ctx->workspace_bytes);
}
