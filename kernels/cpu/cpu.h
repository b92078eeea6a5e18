/* The CPU backend: its context and the ops of the table in kernels.h, one file an op.
 *
 * Ops run at once, one at a time, on `threads` OpenMP threads. Rows (or images, or heads) are split into one contiguous
 * span a thread by cpu_span, and sums over rows are kept one partial a thread in the workspace and added up in thread
 * order: the same threads give the same bits. */
#ifndef QUEST_KERNELS_CPU_CPU_H
#define QUEST_KERNELS_CPU_CPU_H

#include "kernels/kernels.h"

struct linear; /* oneDNN and the primitives that it has made, linear.c */

struct context {
    enum dtype dtype;
    int threads; /* for num_threads(); at least 1 */
    struct workload workload;
    /* Scratch, 64-byte aligned. It belongs to the op that runs: nothing in it outlives a call. Sized once, for the op
     * that needs most (cpu_workspace_bytes). */
    unsigned char *workspace;
    size_t workspace_bytes;
    struct linear *linear;
    double marks_s[8]; /* when each mark was set, which is when everything before it was done */
    double peak_flops; /* what limits has measured; 0 before */
};

/* The part [begin, end) of `count` items that falls to `thread`. */
static inline void cpu_span(size_t count, int threads, int thread, size_t *begin, size_t *end)
{
    *begin = count * (size_t)thread / (size_t)threads;
    *end = count * ((size_t)thread + 1) / (size_t)threads;
}

/* ---- context.c ---- */

/* Threads that a number in the options stands for: itself, or where it is 0 OMP_NUM_THREADS, or what the affinity mask
 * allows. */
int cpu_threads(int wanted);
/* Whether matrix products of the dtype run on this CPU; ERROR_INPUT if not. */
bool cpu_supports(enum dtype dtype, struct error *error);
bool cpu_allocate_zeroed(void **memory, size_t bytes, const char *what, struct error *error);
/* As kernels.h says. */
void cpu_describe(struct context *ctx, char *text, size_t text_bytes);

static inline size_t cpu_align(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

/* Scratch that each file's ops need under these options; the workspace holds the largest. */
size_t cpu_linear_workspace_bytes(const struct context_options *options);
size_t cpu_rows_workspace_bytes(const struct context_options *options); /* layernorm, gelu */
size_t cpu_attention_workspace_bytes(const struct context_options *options);

/* linear.c */
bool cpu_linear_open(struct context *ctx, struct error *error);
void cpu_linear_close(struct context *ctx);

/* The ops, as kernels.h says: cpu_linear_forward in linear.c, ... */
#define OP(name) name##_op cpu_##name;
FOR_EACH_OP(OP)
#undef OP

#endif
