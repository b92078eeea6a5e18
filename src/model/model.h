/* The Vision Transformer of timm and DeiT on any backend: all of its memory and the forward and backward passes.
 *
 *   x_0 = embed(patches)                            h_0 = norm1_0(x_0)
 *   block b:  y = proj(attention(qkv(h)))           x' = x + y,  h' = norm2(x')
 *             z = fc2(gelu(fc1(h')))                x_{b+1} = x' + z,  h = the next norm1 (or the final norm)(x_{b+1})
 *   logits = head(h at CLS)
 *
 * Of the last block only CLS goes on, so there all tokens have keys and values, and only the CLS rows all else.
 *
 * A residual add, LayerScale, stochastic depth and the LayerNorm after it are one op (residual_layernorm_forward). */
#ifndef QUEST_MODEL_MODEL_H
#define QUEST_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "src/config/config.h"
#include "src/model/memory_plan.h"
#include "src/model/parameters.h"

/* Activations of one block that the backward pass reads, but for `activated`; all T unless said otherwise. `rows` is
 * batch * tokens; `tail` is as many, but in the last block `batch` (struct block_tail). */
struct block_activations {
    void *normed1;     /* [rows, dim] output of norm1, memory of its own or `block_normed` (keeps_inputs) */
    void *normed2;     /* [tail, dim] of norm2, likewise */
    void *qkv;         /* [batch, tokens, 3, heads, head_dim]; in the last block instead: */
    void *cls_normed1; /*   [batch, dim] its CLS rows, input of */
    void *query;       /*   [batch, heads, head_dim] */
    void *key_value;   /*   [batch, tokens, 2, heads, head_dim] */
    float *logsumexp;  /* [batch, heads, tokens], in the last block [batch, heads] */
    void *attended;    /* [tail, dim] */
    void *branch1;     /* [tail, dim] output of proj; own memory only under LayerScale */
    void *middle;      /* [tail, dim] residual after attention */
    void *hidden;      /* [tail, hidden] fc1's product without its bias */
    void *fc2_input;   /* [tail, hidden] where the backward pass has `activated`: there, or made again in `hidden` */
    void *activated;   /* [tail, hidden] GELU of it, until the next block: scratch, or where none is trained `hidden` */
    void *branch2;     /* [tail, dim] output of fc2; own memory only under LayerScale */
    void *out;         /* [tail, dim] residual after the MLP: x_{b+1} */
    float *mean1, *rstd1; /* [rows] of norm1 */
    float *mean2, *rstd2; /* [tail] of norm2 */
};

/* What training drew for the images of a pass, on the device. Of each pointer NULL: nothing. */
struct model_draws {
    const float *path_scale; /* stochastic depth: [depth, 2, model.batch] */
    /* Random erasing, mixup and cutmix, all [batch]: struct patches_normalise; noise of erased boxes under this seed.
     */
    const struct pixel_box *erase, *box;
    const uint64_t *sample;
    uint64_t noise_seed;
    const int32_t *partner, *partner_labels;
    const float *weight;
};

struct model {
    const struct kernels *kernels;
    struct context *context;
    struct parameters parameters;
    enum dtype dtype;
    enum attention_kind kind;
    size_t batch; /* the largest that a pass may have */
    size_t patches, columns, tokens, patch, channels, patch_dim, dim, hidden, heads, head_dim, depth, classes;
    bool training, recompute;
    /* Inputs of fc2, fc1 and qkv, 6 of a block's 16 activations, stay for the backward pass instead of being made again
     * by it: the same bits, 5 % less traffic, 1.6 x the memory. Where that is planned to fit, or train.keep_inputs. */
    bool keeps_inputs;
    size_t kept_bytes; /* beyond model_plan's */

    /* Flat buffers of parameters.total numbers (parameters.h). Without training only master and working exist. */
    float *master, *gradient, *m, *v; /* gradient, m and v of what is frozen stay zero */
    bool first_backward; /* the next backward pass is a step's first: it writes the gradients of the linear weights */
    void *working;       /* T; master itself where T is float32 */
    uint8_t *decay;
    struct {
        void *lying[2], *square[2]; /* T: of the largest matrix and of its product with itself */
    } muon;                         /* NULL but with optim.kind muon and nmuon */
    float *lr_scale;                /* [total / 64], NULL where it is 1 everywhere */
    struct {
        uint32_t *tensor_first;
        uint16_t *tensor_of;
        float *group_sums, *tensor_factors;
        double *tensor_sums;
    } lamb; /* as lamb_moments has them; NULL under other optimisers */

    /* Input, on the device: filled by input.c. */
    float *pixel_scale, *pixel_shift; /* [channels] */
    struct model_draws draws;         /* of the pass to come; set by whoever owns the input */

    /* Activations. */
    void *patch_pixels; /* [batch, patches, patch_dim] normalised */
    void *projected;    /* [batch, patches, dim]; also the gradient of it */
    void *embedded;     /* [rows, dim] x_0 */
    struct block_activations *blocks;
    void *block_normed; /* [rows, dim] scratch: output of norm1, then of norm2, of the block at work, in both passes */
    void *normed;       /* [batch, dim] final norm, of the CLS rows */
    float *mean, *rstd;
    void *logits;        /* [batch, classes] */
    float *loss;         /* [batch] */
    int32_t *label_rank; /* [batch] */
    double *statistics;  /* [depth, heads, ATTENTION_STATISTICS] */
    double
        *sum_of_squares; /* [2, 1 + depth], even and odd steps: of the whole gradient; of each block's qkv gradient */

    /* Gradients of activations. In the forward pass, where no gradient lives, they are scratch (blocks_forward.c). */
    void *logits_gradient;
    void *residual_gradient, *branch_gradient, *normed_gradient, *attended_gradient; /* [rows, dim] */
    void *activated;     /* [rows, hidden] scratch of the forward pass: wide_gradient, or memory of its own */
    void *wide_gradient; /* [rows, max(hidden, 3 dim)]: of hidden, then of qkv or key_value */
    void *cls_residual_gradient, *cls_normed1_gradient, *query_gradient; /* [batch, dim], of the last block */

    struct replays *replays; /* replay.h */
    void *allocations[4];    /* parameters, optimiser, activations, gradients of activations */
};

struct model_options {
    const struct kernels *kernels;
    const struct config *config; /* classes known */
    size_t channels;
    size_t batch; /* images a rank and micro-step */
    bool training;
    int device, threads;
    /* Where given: checked against the device's free memory (shared by so many ranks) before the model is allocated. */
    const struct memory_wish *memory;
    size_t ranks_on_device;
};

/* Adds what the model will allocate to the plan; no memory is taken. */
bool model_plan(struct memory_plan *plan, const struct model_options *options, struct error *error);
/* Opens the context and allocates everything; parameters are zero until they are set. */
bool model_open(struct model **model, const struct model_options *options, struct error *error);
void model_close(struct model *model);

/* Sets the normalisation of pixels from a dataset's mean and std [channels]. */
bool model_set_normalisation(struct model *model, const float *mean, const float *std, struct error *error);
/* Host [total] float32 -> master and working copies. */
bool model_set_parameters(struct model *model, const float *master, struct error *error);

/* Queues the forward pass over `batch` images of device `pixels` (uint8 [batch, patches, patch, patch, channels]) up to
 * the logits. with_draws: images and branches as `draws` says, else as they are. with_statistics: attention adds to
 * `statistics`, of all tokens in the last block too, whose attention is run in full for it, beside the pass, which has
 * the same bits with and without; only of a model that is open for training. */
bool model_forward(struct model *model, const uint8_t *pixels, size_t batch, bool with_draws, bool with_statistics,
                   struct error *error);
/* Softmax cross-entropy without smoothing where all is zero. */
struct model_loss_kind {
    enum loss kind;
    float smoothing, bce_threshold; /* struct binary_cross_entropy */
    bool bce_sum;
};
/* What a loss is taken against. */
struct model_targets {
    const int32_t *labels; /* device [batch]; with_draws mixed with draws.partner_labels */
    bool with_draws;
    struct model_loss_kind loss;
};
/* What training takes, as train.loss and its keys say. */
struct model_loss_kind model_training_loss(const struct config *config);
/* Queues loss, label ranks and, where gradient_scale is not 0, the logits' gradient. */
bool model_loss(struct model *model, const struct model_targets *targets, size_t batch, float gradient_scale,
                struct error *error);
/* Called when gradient[0 .. done) has its final value of this micro-step; the last time with parameters.trained. */
typedef bool (*model_gradient_ready)(void *owner, size_t done, struct error *error);
/* Queues the backward pass of the last forward; gradients of parameters are accumulated. `ready` may be NULL. */
bool model_backward(struct model *model, size_t batch, bool with_draws, model_gradient_ready ready, void *owner,
                    struct error *error);
/* Begins a step. Most of the gradient, that of the linear layers' weights, is not zeroed but left for the next backward
 * pass to write. */
bool model_zero_gradient(struct model *model, struct error *error);

/* Waits. Names the first tensor of the last forward pass, of a model open for training, that holds a number that is not
 * finite, in the order of computation: "blocks.3.attn.qkv output"; false in *found where there is none. *layer: its
 * block, or -1. */
bool model_find_nonfinite(struct model *model, size_t batch, bool *found, char *name, size_t name_bytes, long *layer,
                          struct error *error);
/* The same over the parameters' gradients, last layer first, as the backward pass goes. */
bool model_find_nonfinite_gradient(struct model *model, bool *found, char *name, size_t name_bytes, long *layer,
                                   struct error *error);

/* FLOPs of one image's forward pass, products and attention only (2 per multiply-add). */
double model_forward_flops(const struct model *model);
/* Of both passes: a trained layer counts 3 times, a frozen one once. */
double model_training_flops(const struct model *model);

#endif
