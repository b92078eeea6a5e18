/* The ops of the optimisers beside AdamW (kernels.h, whose conventions hold): SGD with momentum, and LAMB. Each may be
 * given a part of the flat buffers, any multiple of 64 numbers. A step whose gradient's sum of squares is not finite or
 * above the limit, or behind one that was not finite, changes nothing: decided on the device, as adamw_update does. */
#ifndef QUEST_KERNELS_OPTIMISERS_H
#define QUEST_KERNELS_OPTIMISERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct context;
struct adamw;

/* SGD as PyTorch's, without dampening:
 *   g = clipped gradient + weight_decay * w (where decay applies);  m = momentum * m + g
 *   w -= lr * (nesterov ? g + momentum * m : m)
 * PyTorch's first step, m = g, is this with m = 0. Fields as those of struct adamw. */
struct sgd {
    float lr, momentum, weight_decay;
    bool nesterov;
    float clip_grad_norm;
    double sum_of_squares_limit;
    const double *earlier_sum_of_squares;
};
/* Moves 20 bytes a number, and the working copy; arguments as those of struct adamw_update. */
struct sgd_update {
    float *master, *m;
    void *working;
    const float *gradient;
    const uint8_t *decay;
    const float *lr_scale;
    const double *gradient_sum_of_squares;
    size_t count;
    const struct sgd *sgd;
};
typedef bool sgd_update_op(struct context *ctx, const struct sgd_update *op, struct error *error);

/* LAMB (You et al. 2020) as timm's Lamb, a step in two ops:
 *   g = gradient / max(norm / clip_grad_norm, 1);  m, v as Adam's, bias-corrected: m', v'
 *   u = m' / (sqrt(v') + eps) + weight_decay * w (where decay applies)
 *   w -= lr * ratio * u;  ratio = |w| / |u| of the tensor, at most 1 under trust_clip; 1 where either norm is 0 or the
 *   tensor has no decay
 * lamb_moments updates m and v and sums w^2 and u^2 of every tensor (24 bytes a number), lamb_apply makes u again and
 * applies it (16, and the working copy). Ranks that hold a part each add their tensor_sums up in between.
 *   master, m, v, working, gradient, decay, lr_scale   of the part, which begins at number `first` of the whole buffer
 *   tensor_first  uint32 [tensors + 1]: each tensor's first group of 64 numbers in the whole buffer, and its groups
 *   tensor_of     uint16 [count / 64]: the tensor of each group of the part; its decay and lr_scale are one each
 *   group_sums    float32 [count / 64, 2], tensor_factors float32 [tensors, 2]: scratch
 *   tensor_sums   float64 [tensors, 2]: |w|^2, |u|^2 of the part's numbers, of every tensor, 0 where it has none
 * The sums depend on neither threads nor grid. */
struct lamb_update {
    float *master, *m, *v;
    void *working;
    const float *gradient;
    const uint8_t *decay;
    const float *lr_scale;
    const double *gradient_sum_of_squares;
    size_t first, count;
    const uint32_t *tensor_first;
    const uint16_t *tensor_of;
    size_t tensors;
    float *group_sums, *tensor_factors;
    double *tensor_sums;
    const struct adamw *adamw;
    bool trust_clip;
};
typedef bool lamb_moments_op(struct context *ctx, const struct lamb_update *op, struct error *error);
typedef bool lamb_apply_op(struct context *ctx, const struct lamb_update *op, struct error *error);

#ifdef __cplusplus
}
#endif
#endif
