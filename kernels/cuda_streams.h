/* What code outside the CUDA backend needs to queue work on its streams, as NCCL's sum of gradients does: the streams,
 * checked calls, and gradients on the wire. */
#ifndef QUEST_KERNELS_CUDA_STREAMS_H
#define QUEST_KERNELS_CUDA_STREAMS_H

#include <cuda_runtime_api.h>

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* `if (!CUDA_TRY(cudaMalloc(...), error)) return false;` */
#define CUDA_TRY(call, error) cuda_check((call), #call, __FILE__, __LINE__, (error))
/* false with the call, its place and CUDA's own words in `error` unless status is cudaSuccess. */
bool cuda_check(cudaError_t status, const char *call, const char *file, int line, struct error *error);

/* Ops run on compute in call order; gradients are reduced on communication. What must follow the other waits for an
 * event. Both belong to the context. */
struct cuda_streams {
    int device; /* index on this host; current in the thread that calls ops */
    cudaStream_t compute, communication;
};
struct cuda_streams cuda_streams_of(const struct context *ctx);

/* wire bfloat16 [count] = gradient float32 [count], and back, on communication; both start on a multiple of 16 bytes.
 */
bool cuda_wire_pack(struct context *ctx, void *wire, const float *gradient, size_t count, struct error *error);
bool cuda_wire_unpack(struct context *ctx, float *gradient, const void *wire, size_t count, struct error *error);

#ifdef __cplusplus
}
#endif
#endif
