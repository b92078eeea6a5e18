/* Ops recorded as a CUDA graph, so that a pass of hundreds of launches is one. */
#include <stdlib.h>

#include "kernels/cuda/cuda.h"

struct recording {
    cudaGraphExec_t graph;
};

bool cuda_record_begin(struct context *ctx, struct error *error)
{
    ctx->recorded = ctx->launches;
    /* Of this thread's calls only: the loader's threads allocate, which a capture of all would forbid. */
    return CUDA_TRY(cudaStreamBeginCapture(ctx->compute, cudaStreamCaptureModeThreadLocal), error);
}

bool cuda_record_end(struct context *ctx, struct recording **out, struct error *error)
{
    cudaGraph_t graph = NULL;
    struct recording *recording = *out = calloc(1, sizeof *recording);
    bool ok = CUDA_TRY(cudaStreamEndCapture(ctx->compute, &graph), error);
    ctx->launches = ctx->recorded; /* nothing has run */
    if (!recording)
        ok = error_runtime(error, "out of memory for a recorded pass");
    ok = ok && CUDA_TRY(cudaGraphInstantiate(&recording->graph, graph, 0), error);
    if (graph)
        cudaGraphDestroy(graph);
    if (ok)
        return true;
    (void)cudaGetLastError();
    free(recording);
    *out = NULL;
    return false;
}

bool cuda_replay(struct context *ctx, struct recording *recording, struct error *error)
{
    ctx->launches.graphs++;
    ctx->last_kernel = "a recorded pass";
    return CUDA_TRY(cudaGraphLaunch(recording->graph, ctx->compute), error);
}

void cuda_forget(struct context *ctx, struct recording *recording)
{
    (void)ctx;
    if (!recording)
        return;
    cudaGraphExecDestroy(recording->graph);
    free(recording);
}
