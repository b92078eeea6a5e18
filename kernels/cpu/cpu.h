/* The CPU backend: its context and the ops of the table in kernels.h, one file an op.
 *
 * Ops run at once, one at a time, on `threads` OpenMP threads. Rows (or images, or heads) are split into one contiguous
 * span a thread by cpu_span, and sums over rows are kept one partial a thread in the workspace and added up in thread
 * order: the same threads give the same bits. */
#ifndef QUEST_KERNELS_CPU_H
#define QUEST_KERNELS_CPU_H

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
bool cpu_linear_forward(struct context *ctx, void *out, const void *in, const void *weight, const void *bias,
                        size_t rows, size_t in_dim, size_t out_dim, struct error *error);
bool cpu_linear_backward(struct context *ctx, void *in_gradient, float *weight_gradient, float *bias_gradient,
                         const void *out_gradient, const void *in, const void *weight, size_t rows, size_t in_dim,
                         size_t out_dim, struct error *error);

/* patches.c, embed.c */
bool cpu_patches_normalise(struct context *ctx, void *out, const uint8_t *pixels, const float *scale,
                           const float *shift, const int32_t *partner, const float *weight, size_t batch,
                           size_t patches, size_t patch, size_t channels, struct error *error);
bool cpu_embed_forward(struct context *ctx, void *out, const void *projected, const float *cls, const float *position,
                       size_t batch, size_t patches, size_t dim, struct error *error);
bool cpu_embed_backward(struct context *ctx, void *projected_gradient, float *cls_gradient, float *position_gradient,
                        const void *out_gradient, size_t batch, size_t patches, size_t dim, struct error *error);
bool cpu_cls_gather(struct context *ctx, void *out, const void *in, size_t batch, size_t tokens, size_t dim,
                    struct error *error);
bool cpu_cls_scatter(struct context *ctx, void *out, const void *in, size_t batch, size_t tokens, size_t dim,
                     struct error *error);

/* layernorm.c */
bool cpu_residual_layernorm_forward(struct context *ctx, void *residual_out, void *normed, float *mean, float *rstd,
                                    const void *residual_in, const void *branch, const float *gamma,
                                    const float *path_scale, const float *weight, const float *bias, size_t rows,
                                    size_t tokens, size_t dim, struct error *error);
bool cpu_residual_layernorm_backward(struct context *ctx, void *residual_gradient, void *branch_gradient,
                                     float *weight_gradient, float *bias_gradient, float *gamma_gradient,
                                     const void *normed_gradient, const void *residual_out, const void *branch,
                                     const float *mean, const float *rstd, const float *gamma, const float *path_scale,
                                     const float *weight, size_t rows, size_t tokens, size_t dim, struct error *error);

/* attention_forward.c, attention_backward.c */
bool cpu_attention_forward(struct context *ctx, void *out, float *logsumexp, const void *qkv,
                           const struct attention_parameters *parameters, double *statistics,
                           const struct attention_shape *shape, struct error *error);
bool cpu_attention_backward(struct context *ctx, void *qkv_gradient, const struct attention_gradients *gradients,
                            const void *out_gradient, const void *out, const float *logsumexp, const void *qkv,
                            const struct attention_parameters *parameters, const struct attention_shape *shape,
                            struct error *error);

/* gelu.c */
bool cpu_gelu_forward(struct context *ctx, void *out, const void *in, const void *bias, size_t rows, size_t dim,
                      struct error *error);
bool cpu_gelu_backward(struct context *ctx, void *in_gradient, float *bias_gradient, const void *out_gradient,
                       const void *in, const void *bias, size_t rows, size_t dim, struct error *error);

/* cross_entropy.c */
bool cpu_cross_entropy(struct context *ctx, float *loss, int32_t *label_rank, void *gradient, const void *logits,
                       const int32_t *labels, const int32_t *partner_labels, const float *weights, float smoothing,
                       float gradient_scale, size_t batch, size_t classes, struct error *error);

/* adamw.c, nonfinite.c */
bool cpu_sum_of_squares(struct context *ctx, double *sum, const float *x, size_t count, struct error *error);
bool cpu_adamw_update(struct context *ctx, float *master, float *m, float *v, void *working, const float *gradient,
                      const uint8_t *decay, const double *gradient_sum_of_squares, size_t count,
                      const struct adamw *adamw, struct error *error);
bool cpu_round_parameters(struct context *ctx, void *working, const float *master, size_t count, struct error *error);
bool cpu_find_nonfinite(struct context *ctx, size_t *first, const void *x, enum dtype dtype, size_t count,
                        struct error *error);

#endif
