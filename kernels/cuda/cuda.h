/* What the files of the CUDA backend share: the context, checked calls, and the functions that each file gives to the
 * table in backend.c. Plain C, so that host code is compiled by the C compiler
 * and only kernels by nvcc. */
#ifndef QUEST_KERNELS_CUDA_CUDA_H
#define QUEST_KERNELS_CUDA_CUDA_H

#include "kernels/cuda_streams.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CUDA_MARKS = 8 };

/* What kernels choose their launch by; read once at open. */
struct cuda_device {
    char name[256];
    int major, minor; /* compute capability */
    int multiprocessors;
    size_t shared_bytes_per_block; /* with the opt-in of cudaFuncSetAttribute */
    size_t memory_bytes;
};

struct context {
    int device; /* index on this host; current in the thread that calls ops */
    enum dtype dtype;
    struct cuda_device properties;
    /* Ops run on compute in call order; gradients are reduced on communication; batches come up on copy. */
    cudaStream_t compute, communication, copy;
    cudaEvent_t compute_reached, prefetched; /* order between compute and copy */
    cudaEvent_t marks[CUDA_MARKS];
    /* Scratch for the op that runs: ops follow each other on one stream, so each may use all of it. */
    void *workspace;
    size_t workspace_bytes;
    size_t free_at_open;     /* of the device, when the driver had its part for this process and we had none yet */
    struct matmul *matmul;   /* cuBLASLt handle and its cached choices: products.h */
    const char *last_kernel; /* newest launch, for the message when an earlier one failed */
    struct launches launches, recorded; /* so far; when a recording began */
};

/* ---- checked launches (for calls: CUDA_TRY) and scratch ---- */

/* After a launch, `return cuda_launched(ctx, "layernorm_forward", error);`: false where the launch was refused. A
 * kernel that fails while it runs is reported by whichever call waits next, which can only name the newest launch. */
#define cuda_launched(ctx, kernel, error) cuda_check_launch((ctx), (kernel), __FILE__, __LINE__, (error))
bool cuda_check_launch(struct context *ctx, const char *kernel, const char *file, int line, struct error *error);

/* The context's scratch, 256-byte aligned, if it has `bytes`; else an error that names `op` (a mistake in
 * workspace_bytes, not in the input). Contents last until the next op. */
bool cuda_workspace(struct context *ctx, void **memory, size_t bytes, const char *op, struct error *error);

static inline unsigned div_up(size_t n, size_t d)
{
    return (unsigned)((n + d - 1) / d);
}

static inline size_t minimum(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t maximum(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* ---- scratch that ops need for a workload; open takes the largest ---- */

size_t cuda_linear_workspace_bytes(const struct context_options *options);
size_t cuda_attention_workspace_bytes(const struct context_options *options);
size_t cuda_column_sum_workspace_bytes(const struct context_options *options); /* LayerNorm and GELU too */
size_t cuda_embed_workspace_bytes(const struct context_options *options);
size_t cuda_optimiser_workspace_bytes(const struct context_options *options);

/* ---- the device (device.c) and the context (context.c): as kernels.h says ---- */

int cuda_device_count(void);
void cuda_no_device(char *text, size_t text_bytes);
/* Makes ctx->device current and reads its properties. ERROR_INPUT: there is no such GPU, or our kernels are not
 * compiled for it. */
bool cuda_choose_device(struct context *ctx, struct error *error);
size_t cuda_workspace_bytes(const struct context_options *options);
bool cuda_open(struct context **opened, const struct context_options *options, struct error *error);
void cuda_close(struct context *ctx);
void cuda_describe(struct context *ctx, char *text, size_t text_bytes);
void cuda_limits(struct context *ctx, double *flops, double *bytes_per_s);
bool cuda_memory_available(struct context *ctx, size_t *bytes, struct error *error);
bool cuda_memory_state(struct context *ctx, struct device_memory *memory, struct error *error);
bool cuda_allocate(struct context *ctx, void **memory, size_t bytes, const char *what, struct error *error);
void cuda_release(struct context *ctx, void *memory);
const void *cuda_host_view(struct context *ctx, const void *device);
bool cuda_allocate_host(struct context *ctx, void **memory, size_t bytes, const char *what, struct error *error);
void cuda_release_host(struct context *ctx, void *memory);
bool cuda_zero(struct context *ctx, void *memory, size_t bytes, struct error *error);
bool cuda_upload(struct context *ctx, void *device, const void *host, size_t bytes, struct error *error);
bool cuda_download(struct context *ctx, void *host, const void *device, size_t bytes, struct error *error);
bool cuda_prefetch_begin(struct context *ctx, struct error *error);
bool cuda_prefetch(struct context *ctx, void *device, const void *host, size_t bytes, struct error *error);
bool cuda_prefetch_end(struct context *ctx, struct error *error);
bool cuda_mark(struct context *ctx, int slot, struct error *error);
bool cuda_wait_mark(struct context *ctx, int slot, struct error *error);
bool cuda_elapsed(struct context *ctx, int from, int to, double *seconds, struct error *error);
bool cuda_synchronise(struct context *ctx, struct error *error);
void cuda_count_launches(const struct context *ctx, struct launches *launches);
void *cuda_stream(struct context *ctx);
/* holders.c */
void cuda_memory_holders(struct context *ctx, char *text, size_t text_bytes);

/* ---- recordings (graph.c): as kernels.h says ---- */

bool cuda_record_begin(struct context *ctx, struct error *error);
bool cuda_record_end(struct context *ctx, struct recording **out, struct error *error);
bool cuda_replay(struct context *ctx, struct recording *recording, struct error *error);
void cuda_forget(struct context *ctx, struct recording *recording);

/* ---- ops, as kernels.h says: cuda_linear_forward in linear.c, ... ---- */

#define OP(name) name##_op cuda_##name;
FOR_EACH_OP(OP)
#undef OP

/* ---- what ops share ---- */

bool cuda_matmul_open(struct matmul **matmul, struct error *error);
void cuda_matmul_close(struct matmul *matmul);
extern const struct kernels_products cuda_products;

/* sums[a][column] += partial[0][a][column] + partial[1][a][column] + ... for up to three arrays of dim numbers. Reads 4
 * bytes a partial number. */
bool cuda_column_sum_finish(struct context *ctx, float *const sums[], int arrays, const float *partial, size_t lines,
                            size_t dim, struct error *error);
/* sums float32 [dim] += column sums of x T [rows, dim]. */
bool cuda_column_sum(struct context *ctx, float *sums, const void *x, size_t rows, size_t dim, struct error *error);
/* out T [rows, dim] += bias T [dim]. */
bool cuda_add_bias(struct context *ctx, void *out, const void *bias, size_t rows, size_t dim, struct error *error);

#ifdef __cplusplus
}
#endif
#endif
