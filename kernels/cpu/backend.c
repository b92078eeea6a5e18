/* The CPU backend's table: opening and closing, copies and order here, the ops in their own files. Everything runs at
 * once on the calling thread's OpenMP team, so that the functions about order have nothing to do. */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/host_memory.h"
#include "kernels/cpu/signal_shield.h"
#include "kernels/gemm_rate.h"
#include "src/base/clock.h"

static size_t backend_workspace_bytes(const struct context_options *options)
{
    size_t parts[] = {
        cpu_linear_workspace_bytes(options),
        cpu_rows_workspace_bytes(options),
        cpu_attention_workspace_bytes(options),
    };
    size_t most = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        most = parts[i] > most ? parts[i] : most;
    return cpu_align(most);
}

static void backend_close(struct context *ctx)
{
    if (!ctx)
        return;
    cpu_linear_close(ctx);
    free(ctx->workspace);
    free(ctx);
}

static bool backend_open(struct context **out, const struct context_options *options, struct error *error)
{
    *out = NULL;
    if (!cpu_supports(options->dtype, error))
        return false;
    struct context *ctx = calloc(1, sizeof *ctx);
    if (!ctx)
        return error_runtime(error, "out of memory for the CPU backend");
    ctx->dtype = options->dtype;
    ctx->threads = cpu_threads(options->threads);
    ctx->workload = options->workload;
    ctx->workspace_bytes = backend_workspace_bytes(options);
    void *workspace;
    if (!cpu_allocate_zeroed(&workspace, ctx->workspace_bytes, "the CPU backend's workspace", error)) {
        free(ctx);
        return false;
    }
    ctx->workspace = workspace;
    if (!signal_shield_workers(ctx->threads, error) || !cpu_linear_open(ctx, error)) {
        backend_close(ctx);
        return false;
    }
    *out = ctx;
    return true;
}

/* The rate of a product that fits in the cache, measured once (some 20 ms); memory's speed is not known without a test
 * larger than the caches, which would break the memory plan. */
static void backend_limits(struct context *ctx, double *flops, double *bytes_per_s)
{
    struct error ignored;
    int threads = ctx->threads;
    if (ctx->peak_flops == 0 && !cpu_gemm_rate(&ctx->peak_flops, 512, &threads, ctx->dtype, 0.02, &ignored))
        ctx->peak_flops = 0;
    *flops = ctx->peak_flops;
    *bytes_per_s = 0;
}

static int backend_device_count(void)
{
    return 1;
}

static const void *backend_host_view(struct context *ctx, const void *device)
{
    (void)ctx;
    return device;
}

static bool backend_memory_available(struct context *ctx, size_t *bytes, struct error *error)
{
    (void)ctx;
    return host_memory_available(bytes, error);
}

static bool backend_memory_state(struct context *ctx, struct device_memory *memory, struct error *error)
{
    struct rusage usage;
    (void)ctx;
    *memory = (struct device_memory){.total = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE)};
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        memory->taken = (size_t)usage.ru_maxrss * 1024;
    return host_memory_available(&memory->free, error);
}

/* Everybody's memory: no single process would be worth naming. */
static void backend_memory_holders(struct context *ctx, char *text, size_t text_bytes)
{
    (void)ctx, (void)text_bytes;
    *text = '\0';
}

static bool backend_allocate(struct context *ctx, void **memory, size_t bytes, const char *what, struct error *error)
{
    (void)ctx;
    return cpu_allocate_zeroed(memory, bytes, what, error);
}

static void backend_release(struct context *ctx, void *memory)
{
    (void)ctx;
    free(memory);
}

static bool backend_zero(struct context *ctx, void *memory, size_t bytes, struct error *error)
{
    (void)ctx, (void)error;
    memset(memory, 0, bytes);
    return true;
}

/* Uploads, downloads and prefetches alike. */
static bool backend_copy(struct context *ctx, void *to, const void *from, size_t bytes, struct error *error)
{
    (void)ctx, (void)error;
    memcpy(to, from, bytes);
    return true;
}

static bool nothing_queued(struct context *ctx, struct error *error)
{
    (void)ctx, (void)error;
    return true;
}

static bool backend_mark(struct context *ctx, int slot, struct error *error)
{
    (void)error;
    ctx->marks_s[slot] = clock_s();
    return true;
}

static bool backend_wait_mark(struct context *ctx, int slot, struct error *error)
{
    (void)ctx, (void)slot, (void)error;
    return true;
}

static bool backend_elapsed(struct context *ctx, int from, int to, double *seconds, struct error *error)
{
    (void)error;
    *seconds = ctx->marks_s[to] - ctx->marks_s[from];
    return true;
}

static void *no_stream(struct context *ctx)
{
    (void)ctx;
    return NULL;
}

#define OP(name) .name = cpu_##name,

const struct kernels *kernels_cpu(void)
{
    /* clang-format off */
    static const struct kernels table = {
        .name = "cpu",
        .on_host = true,
        .device_count = backend_device_count,
        .workspace_bytes = backend_workspace_bytes,
        .open = backend_open,
        .close = backend_close,
        .describe = cpu_describe,
        .limits = backend_limits,
        .memory_available = backend_memory_available,
        .memory_state = backend_memory_state,
        .memory_holders = backend_memory_holders,
        .allocate = backend_allocate,
        .release = backend_release,
        .host_view = backend_host_view,
        .allocate_host = backend_allocate,
        .release_host = backend_release,
        .zero = backend_zero,
        .upload = backend_copy,
        .download = backend_copy,
        .prefetch_begin = nothing_queued,
        .prefetch = backend_copy,
        .prefetch_end = nothing_queued,
        .mark = backend_mark,
        .wait_mark = backend_wait_mark,
        .elapsed = backend_elapsed,
        .synchronise = nothing_queued,
        .stream = no_stream,
        FOR_EACH_OP(OP) /* .patches_normalise = cpu_patches_normalise, ... */
    };
    /* clang-format on */
    return &table;
}
