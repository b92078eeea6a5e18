/* The CUDA backend's table: context.c's functions, then the ops, each in the file of its name. */
#include "kernels/cuda/cuda.h"

#define OP(name) .name = cuda_##name,

const struct kernels *kernels_cuda(void)
{
    /* clang-format off */
    static const struct kernels table = {
        .name = "cuda",
        .device_count = cuda_device_count,
        .no_device = cuda_no_device,
        .workspace_bytes = cuda_workspace_bytes,
        .open = cuda_open,
        .close = cuda_close,
        .describe = cuda_describe,
        .limits = cuda_limits,
        .memory_available = cuda_memory_available,
        .memory_state = cuda_memory_state,
        .memory_holders = cuda_memory_holders,
        .allocate = cuda_allocate,
        .release = cuda_release,
        .host_view = cuda_host_view,
        .allocate_host = cuda_allocate_host,
        .release_host = cuda_release_host,
        .zero = cuda_zero,
        .upload = cuda_upload,
        .download = cuda_download,
        .prefetch_begin = cuda_prefetch_begin,
        .prefetch = cuda_prefetch,
        .prefetch_end = cuda_prefetch_end,
        .mark = cuda_mark,
        .wait_mark = cuda_wait_mark,
        .elapsed = cuda_elapsed,
        .synchronise = cuda_synchronise,
        .record_begin = cuda_record_begin,
        .record_end = cuda_record_end,
        .replay = cuda_replay,
        .forget = cuda_forget,
        .count_launches = cuda_count_launches,
        .stream = cuda_stream,
        .products = &cuda_products,
        FOR_EACH_OP(OP) /* .patches_normalise = cuda_patches_normalise, ... */
    };
    /* clang-format on */
    return &table;
}
