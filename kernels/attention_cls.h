/* Part of the op contract, kernels.h: attention of the CLS query alone, token 0, for a layer of which nothing reads
 * what the other tokens attend to. 1 / tokens of the FLOP of attention_forward and attention_backward. */
#ifndef QUEST_KERNELS_ATTENTION_CLS_H
#define QUEST_KERNELS_ATTENTION_CLS_H

#include <stdbool.h>

#include "src/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct context;
struct attention_shape;
struct attention_parameters;
struct attention_gradients;

/* Reads keys and values once, which bounds it; the backward pass also writes as much.
 *   query      T [batch, heads, head_dim]      key_value  T [batch, tokens, 2, heads, head_dim]: keys, values
 *   out        T [batch, heads, head_dim]      logsumexp  float32 [batch, heads] */
struct attention_cls_forward {
    void *out;
    float *logsumexp;
    const void *query, *key_value;
    const struct attention_parameters *parameters;
    const struct attention_shape *shape;
};
typedef bool attention_cls_forward_op(struct context *ctx, const struct attention_cls_forward *op, struct error *error);
/* The first two as query and key_value, written whole. Gradients of the learned extras are accumulated. */
struct attention_cls_backward {
    void *query_gradient, *key_value_gradient;
    const struct attention_gradients *gradients;
    const void *out_gradient, *out;
    const float *logsumexp;
    const void *query, *key_value;
    const struct attention_parameters *parameters;
    const struct attention_shape *shape;
};
typedef bool attention_cls_backward_op(struct context *ctx, const struct attention_cls_backward *op,
                                       struct error *error);

#ifdef __cplusplus
}
#endif
#endif
