/* The op contract: one table of functions that the CPU backend (kernels/cpu) and the CUDA backend (kernels/cuda)
 * both fill in. Model code sees only this header and never asks which backend it runs on.
 *
 * Types.     T is the context's dtype: float32 or bfloat16 (2 bytes, the upper half of a float32). Activations and
 *            the *working* copies of parameters are T; master parameters, gradients of parameters, optimiser state,
 *            means, rstd and logsumexp are float32; all sums run in float32 or wider.
 * Layout.    Row-major, dense, last dimension fastest. `rows` is batch * tokens unless said otherwise.
 * Memory.    Pointers are device pointers of the backend (host memory on the CPU), 64-byte aligned, or 16 in the linear
 *            ops, which may begin at a row of a weight; every tensor may be read up to its end only. No op allocates:
 *            scratch comes from the context's workspace, sized at open.
 * Order.     Ops are queued in call order on the context's compute stream; the CPU runs them at once. Only functions
 *            that say "waits" block the host.
 * Gradients. Parameter gradients are accumulated (+=); once a step they are zeroed, or overwritten (linear_backward).
 *            Activation gradients are written (=).
 * Bits.      The same calls on the same machine with the same number of threads give the same bits.
 * Errors.    false with a message; an op fails only as a launch or a library call can. */
#ifndef QUEST_KERNELS_KERNELS_H
#define QUEST_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/attention.h"
#include "kernels/attention_cls.h"
#include "kernels/device_memory.h"
#include "kernels/launches.h"
#include "kernels/muon.h"
#include "kernels/optimisers.h"
#include "src/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum dtype { DTYPE_FLOAT32, DTYPE_BFLOAT16 };

/* The largest shapes that a context will meet: what scratch memory depends on. */
struct workload {
    size_t batch;   /* images a micro-step on this rank */
    size_t patches; /* tokens - 1 */
    size_t patch_dim, dim, hidden, heads, classes;
    enum attention_kind kind;
    bool weight_products; /* the optimiser multiplies matrices of the weights' shapes with themselves (Muon) */
};

struct context_options {
    enum dtype dtype;
    int device;  /* index of the GPU on this host; ignored by the CPU */
    int threads; /* CPU threads of this rank (0 = OMP_NUM_THREADS or what the affinity mask allows) */
    struct workload workload;
};

struct context; /* a device, its streams and workspace; each backend has its own */

/* AdamW as PyTorch's: decoupled decay, bias-corrected moments. `step` counts from 1. */
struct adamw {
    float lr, beta1, beta2, eps, weight_decay;
    uint64_t step;
    bool nesterov;        /* NAdamW: the step takes beta1 * m + (1 - beta1) * gradient for m */
    float clip_grad_norm; /* gradients are scaled by min(1, clip / (norm + 1e-6)) as torch's clip_grad_norm_; 0 = off */
    double sum_of_squares_limit; /* of the gradient: a step above it changes nothing; 0 = no limit */
    /* Device, or NULL: the sum of squares of a step that the host has not read yet. Where it is not finite this step
     * changes nothing either, so that the host finds the parameters as that step had them. */
    const double *earlier_sum_of_squares;
};

/* ---- input ---- */

/* A rectangle of an image's pixels; height or width 0: none. */
struct pixel_box {
    int32_t top, left, height, width;
};

/* Patches as the loader cuts them to normalised activations, with random erasing, mixup and cutmix on the way:
 *   out     T      [batch, patches, channels, patch, patch]
 *   pixels  uint8  [batch, patches, patch, patch, channels]; the image is `columns` patches wide
 *   scale, shift  float32 [channels]  (1 / (255 std) and -mean / std): normalised = pixel * scale[c] + shift[c]
 *   erase [batch], sample uint64 [batch]: normalised numbers inside the box become N(0, 1), a function of seed, sample
 *           and place alone (patches_noise, noise.h). Both NULL for none.
 *   partner int32 [batch], weight float32 [batch], box [batch]: of the image itself, erased or not, and its partner
 *           likewise: inside the box the partner's numbers, elsewhere the image's; without a box weight * image
 *           + (1 - weight) * partner. All three NULL for none. */
struct patches_normalise {
    void *out;
    const uint8_t *pixels;
    const float *scale, *shift;
    const struct pixel_box *erase;
    const uint64_t *sample;
    uint64_t seed;
    const int32_t *partner;
    const float *weight;
    const struct pixel_box *box;
    size_t batch, patches, columns, patch, channels;
};
typedef bool patches_normalise_op(struct context *ctx, const struct patches_normalise *op, struct error *error);

/* Tokens from projected patches: out[b, 0] = cls + position[0], out[b, 1 + p] = projected[b, p] + position[1 + p].
 *   out T [batch, patches + 1, dim], projected T [batch, patches, dim], cls float32 [dim], position float32
 *   [patches + 1, dim] */
struct embed_forward {
    void *out;
    const void *projected;
    const float *cls, *position;
    size_t batch, patches, dim;
};
typedef bool embed_forward_op(struct context *ctx, const struct embed_forward *op, struct error *error);
struct embed_backward {
    void *projected_gradient;
    float *cls_gradient, *position_gradient;
    const void *out_gradient;
    size_t batch, patches, dim;
};
typedef bool embed_backward_op(struct context *ctx, const struct embed_backward *op, struct error *error);

/* ---- linear ---- */

/* out T [rows, out_dim] = in T [rows, in_dim] * weight^T (T [out_dim, in_dim], as PyTorch) + bias (T [out_dim] or
 * NULL). 2 * rows * in_dim * out_dim FLOP. */
struct linear_forward {
    void *out;
    const void *in, *weight, *bias;
    size_t rows, in_dim, out_dim;
};
typedef bool linear_forward_op(struct context *ctx, const struct linear_forward *op, struct error *error);
/* in_gradient = out_gradient * weight (skipped where NULL); weight_gradient += out_gradient^T * in, or = where it is to
 * be overwritten; bias_gradient += column sums of out_gradient (the latter skipped where NULL, both where
 * weight_gradient is). Two calls, one for each half, give the bits of one. */
struct linear_backward {
    void *in_gradient;
    float *weight_gradient, *bias_gradient;
    const void *out_gradient, *in, *weight;
    size_t rows, in_dim, out_dim;
    bool overwrite;
};
typedef bool linear_backward_op(struct context *ctx, const struct linear_backward *op, struct error *error);

/* ---- residual add, LayerScale, stochastic depth and LayerNorm in one pass (Ba et al. 2016, eps 1e-6) ----
 *   residual_out = residual_in + path_scale[image] * gamma * branch
 *   normed = (residual_out - mean) * rstd * weight + bias
 *     residual_in, branch, residual_out, normed  T [rows, dim]; residual_out may be residual_in
 *     gamma [dim] or NULL (1): LayerScale.  path_scale [rows / tokens] or NULL (1): 0 for a dropped image, else
 *     1 / (1 - p).  weight, bias [dim].  mean, rstd [rows], written, read by the backward pass. All float32.
 * branch NULL: plain LayerNorm of residual_in; residual_out is not touched (may be NULL). */
struct residual_layernorm_forward {
    void *residual_out, *normed;
    float *mean, *rstd;
    const void *residual_in, *branch;
    const float *gamma, *path_scale, *weight, *bias;
    size_t rows, tokens, dim;
};
typedef bool residual_layernorm_forward_op(struct context *ctx, const struct residual_layernorm_forward *op,
                                           struct error *error);
/* residual_gradient comes in as the gradient of residual_out by all other uses and goes out with LayerNorm's part
 * added: the gradient of residual_in. branch_gradient = path_scale * gamma * that; NULL where there is no branch,
 * or neither gamma nor path_scale (then it equals residual_gradient, which the caller uses). `branch` and
 * gamma_gradient are read and written only where gamma is given. normed, where not NULL, becomes again what the forward
 * pass made, bit for bit; it is memory of its own, and only then is `bias` read. */
struct residual_layernorm_backward {
    void *residual_gradient, *branch_gradient, *normed;
    float *weight_gradient, *bias_gradient, *gamma_gradient;
    const void *normed_gradient, *residual_out, *branch;
    const float *mean, *rstd, *gamma, *path_scale, *weight, *bias;
    size_t rows, tokens, dim;
};
typedef bool residual_layernorm_backward_op(struct context *ctx, const struct residual_layernorm_backward *op,
                                            struct error *error);

/* ---- GELU, exact: x * (1 + erf(x / sqrt 2)) / 2, with the bias of the product before it ---- */

/* out = gelu(in + bias); in, out T [rows, dim], bias T [dim]; out may be in only if no backward pass follows. */
typedef bool gelu_forward_op(struct context *ctx, void *out, const void *in, const void *bias, size_t rows, size_t dim,
                             struct error *error);
/* in_gradient = out_gradient * gelu'(in + bias), in place allowed; bias_gradient += its column sums. out, where not
 * NULL, becomes again what the forward pass made, bit for bit; it may be `in`. */
struct gelu_backward {
    void *in_gradient, *out;
    float *bias_gradient;
    const void *out_gradient, *in, *bias;
    size_t rows, dim;
};
typedef bool gelu_backward_op(struct context *ctx, const struct gelu_backward *op, struct error *error);

/* ---- the CLS rows ---- */

/* Between T [batch, tokens, dim] at token 0 and T [batch, dim]: gather takes the rows out, scatter puts them back with
 * zeros for the other tokens, add adds them to what is there. */
typedef bool cls_gather_op(struct context *ctx, void *out, const void *in, size_t batch, size_t tokens, size_t dim,
                           struct error *error);
typedef bool cls_scatter_op(struct context *ctx, void *out, const void *in, size_t batch, size_t tokens, size_t dim,
                            struct error *error);
typedef bool cls_add_op(struct context *ctx, void *out, const void *in, size_t batch, size_t tokens, size_t dim,
                        struct error *error);

/* ---- loss ---- */

/* Softmax cross-entropy and its gradient in one pass, with label smoothing and soft targets:
 *   target = smoothing / classes + (1 - smoothing) * (w onehot(label) + (1 - w) onehot(partner label))
 *   loss       float32 [batch], natural logarithm; infinite or NaN logits make it NaN, and so does a label (or a
 *              partner's) that is none of the classes; the row's gradient is NaN then too
 *   label_rank int32 [batch]: how many classes have a larger logit than `label` (ties: a lower index counts as
 *              larger; NaN logits, or no such class: `classes`), so top-1 is rank 0 and top-5 rank < 5
 *   gradient   T [batch, classes] = gradient_scale * (softmax - target); NULL in evaluation
 *   logits     T [batch, classes];  labels int32 [batch]
 *   partner_labels int32 [batch], weights float32 [batch]: mixup; both NULL for none (w = 1) */
struct cross_entropy {
    float *loss;
    int32_t *label_rank;
    void *gradient;
    const void *logits;
    const int32_t *labels, *partner_labels;
    const float *weights;
    float smoothing, gradient_scale;
    size_t batch, classes;
};
typedef bool cross_entropy_op(struct context *ctx, const struct cross_entropy *op, struct error *error);
/* Sigmoid cross-entropy of each class by itself (DeiT III, timm's BinaryCrossEntropy), its gradient in the same pass.
 * Targets, labels, ranks and what makes a row NaN are as in cross_entropy.
 *   threshold  a target above it counts as 1, any other as 0 (DeiT III: 0); negative: targets as they are
 *   sum        over the classes instead of their mean
 *   loss       float32 [batch] = sum or mean over c of log(1 + exp(x_c)) - x_c target_c
 *   gradient   T [batch, classes] = gradient_scale * (sigmoid - target) [/ classes where it is the mean] */
struct binary_cross_entropy {
    float *loss;
    int32_t *label_rank;
    void *gradient;
    const void *logits;
    const int32_t *labels, *partner_labels;
    const float *weights;
    float smoothing, gradient_scale, threshold;
    bool sum;
    size_t batch, classes;
};
typedef bool binary_cross_entropy_op(struct context *ctx, const struct binary_cross_entropy *op, struct error *error);

/* ---- optimiser ---- */

/* *sum (float64, device) = sum of x[i]^2. Reads 4 * count bytes. Deterministic. */
typedef bool sum_of_squares_op(struct context *ctx, double *sum, const float *x, size_t count, struct error *error);
/* One AdamW step over flat buffers of `count` (a multiple of 64) numbers.
 *   working  T [count], written as the rounded master; may be NULL or equal to master where T is float32
 *   decay    uint8 [count / 64]: 1 where weight decay applies to those 64 numbers
 *   lr_scale float32 [count / 64]: what the learning rate is multiplied by there, 0 and on; NULL for 1 everywhere
 *   gradient_sum_of_squares: float64 on the device, for clipping; where it is not finite, or above the limit,
 *            nothing is changed: master, m, v and working stay as they are, bit for bit. */
struct adamw_update {
    float *master, *m, *v;
    void *working;
    const float *gradient;
    const uint8_t *decay;
    const float *lr_scale;
    const double *gradient_sum_of_squares;
    size_t count;
    const struct adamw *adamw;
};
typedef bool adamw_update_op(struct context *ctx, const struct adamw_update *op, struct error *error);
/* A running average of the parameters, after a step: average += (1 - decay) * (master - average), float32 [count, a
 * multiple of 64]; decay 0: average = master, bit for bit, whatever it held. Where the step changed nothing, as the
 * three last tell it (struct adamw_update, struct adamw), neither does this. 12 bytes a number; both backends' bits
 * agree. */
struct average_update {
    float *average;
    const float *master;
    double decay;
    size_t count;
    const double *gradient_sum_of_squares, *earlier_sum_of_squares;
    double sum_of_squares_limit;
};
typedef bool average_update_op(struct context *ctx, const struct average_update *op, struct error *error);
/* working T [count] = rounded master; nothing to do where they are the same memory. */
typedef bool round_parameters_op(struct context *ctx, void *working, const float *master, size_t count,
                                 struct error *error);
/* x [count, a multiple of 64] = 0, but for the groups of 64 numbers that `keep`, uint8 [count / 64], has a 1 for. */
typedef bool zero_groups_op(struct context *ctx, float *x, const uint8_t *keep, size_t count, struct error *error);

/* ---- looking for the cause of a NaN ---- */

/* Waits. *first = index of the first number of x (dtype given, not the context's) that is not finite, or count. */
typedef bool find_nonfinite_op(struct context *ctx, size_t *first, const void *x, enum dtype dtype, size_t count,
                               struct error *error);

/* Every op once. Of this list are made the table's fields, and in each backend the prototypes and the table's entries.
 */
/* clang-format off */
#define FOR_EACH_OP(OP) \
    OP(patches_normalise) \
    OP(embed_forward) \
    OP(embed_backward) \
    OP(linear_forward) \
    OP(linear_backward) \
    OP(residual_layernorm_forward) \
    OP(residual_layernorm_backward) \
    OP(attention_forward) \
    OP(attention_backward) \
    OP(attention_cls_forward) \
    OP(attention_cls_backward) \
    OP(gelu_forward) \
    OP(gelu_backward) \
    OP(cls_gather) \
    OP(cls_scatter) \
    OP(cls_add) \
    OP(cross_entropy) \
    OP(binary_cross_entropy) \
    OP(sum_of_squares) \
    OP(adamw_update) \
    OP(average_update) \
    OP(sgd_update) \
    OP(lamb_moments) \
    OP(lamb_apply) \
    FOR_EACH_MUON_OP(OP) \
    OP(round_parameters) \
    OP(zero_groups) \
    OP(find_nonfinite)
/* clang-format on */

struct kernels {
    const char *name; /* "cpu", "cuda" */
    /* Ops run on the host's cores and in its memory, which all ranks of the host share. */
    bool on_host;

    /* ---- context and memory ---- */

    /* Devices that this process can see: GPUs; 1 on the CPU. 0: the backend cannot run here. */
    int (*device_count)(void);
    /* Why there is none, for a message; NULL where there always is one. */
    void (*no_device)(char *text, size_t text_bytes);
    /* Bytes of scratch that open will allocate for these options; they are part of the memory plan. */
    size_t (*workspace_bytes)(const struct context_options *options);
    bool (*open)(struct context **ctx, const struct context_options *options, struct error *error);
    void (*close)(struct context *ctx);
    /* One line on the device for the log: model, threads or SMs, instruction set, memory. */
    void (*describe)(struct context *ctx, char *text, size_t text_bytes);
    /* Peak FLOP/s of matrix products of T and bytes/s of memory on this device, both at the highest clock that it may
     * have (not the lower boost clock of data sheets: docs/products.md); 0 where unknown. */
    void (*limits)(struct context *ctx, double *flops, double *bytes_per_s);
    bool (*memory_available)(struct context *ctx, size_t *bytes, struct error *error);
    memory_state_of *memory_state;
    memory_holders_text *memory_holders;
    /* Device memory, 64-byte aligned, filled with zeros; `what` names it in the error. */
    bool (*allocate)(struct context *ctx, void **memory, size_t bytes, const char *what, struct error *error);
    void (*release)(struct context *ctx, void *memory);
    /* The same memory where the host can read it in place (the CPU), else NULL: then it must be downloaded. */
    const void *(*host_view)(struct context *ctx, const void *device);
    /* Host memory from which uploads overlap with compute (pinned under CUDA). */
    bool (*allocate_host)(struct context *ctx, void **memory, size_t bytes, const char *what, struct error *error);
    void (*release_host)(struct context *ctx, void *memory);

    /* ---- copies and order ---- */

    bool (*zero)(struct context *ctx, void *memory, size_t bytes, struct error *error);
    /* In order with the ops. `host` must stay unchanged until a later mark has been waited for. */
    bool (*upload)(struct context *ctx, void *device, const void *host, size_t bytes, struct error *error);
    bool (*download)(struct context *ctx, void *host, const void *device, size_t bytes, struct error *error);
    /* On the copy stream, beside the ops: prefetch_begin waits (on the device) until the ops queued so far have read
     * the old contents, prefetch copies, prefetch_end makes ops queued after it wait for the copies. */
    bool (*prefetch_begin)(struct context *ctx, struct error *error);
    bool (*prefetch)(struct context *ctx, void *device, const void *host, size_t bytes, struct error *error);
    bool (*prefetch_end)(struct context *ctx, struct error *error);
    /* mark remembers everything queued so far in one of 8 slots; wait_mark (waits) until that is done. */
    bool (*mark)(struct context *ctx, int slot, struct error *error);
    bool (*wait_mark)(struct context *ctx, int slot, struct error *error);
    /* Waits for the mark `to`; *seconds = time on the device between the two (events under CUDA). */
    bool (*elapsed)(struct context *ctx, int from, int to, double *seconds, struct error *error);
    /* Waits until everything queued is done. */
    bool (*synchronise)(struct context *ctx, struct error *error);
    /* Ops between the two, none of which may be a copy to or from the host, are recorded instead of run, *recording
     * says what; replay queues them all, as they were with all their pointers. They must have run before. record_end
     * follows record_begin whatever happens between. forget: none is under way. NULL on the CPU. */
    bool (*record_begin)(struct context *ctx, struct error *error);
    bool (*record_end)(struct context *ctx, struct recording **recording, struct error *error);
    bool (*replay)(struct context *ctx, struct recording *recording, struct error *error);
    void (*forget)(struct context *ctx, struct recording *recording);
    /* Since open. NULL where nothing is launched, on the CPU. */
    void (*count_launches)(const struct context *ctx, struct launches *launches);
    /* The compute stream (cudaStream_t), for NCCL; NULL on the CPU. */
    void *(*stream)(struct context *ctx);

    /* The choice of matrix products' algorithms: products.h. NULL: there is none. */
    const struct kernels_products *products;

    /* ---- ops ---- */

#define OP(name) name##_op *name; /* NOLINT(bugprone-macro-parentheses): a declaration */
    FOR_EACH_OP(OP)
#undef OP
};

const struct kernels *kernels_cpu(void);
/* NULL in a build without CUDA. */
const struct kernels *kernels_cuda(void);

static inline size_t dtype_bytes(enum dtype dtype)
{
    return dtype == DTYPE_FLOAT32 ? 4 : 2;
}

#ifdef __cplusplus
}
#endif
#endif
