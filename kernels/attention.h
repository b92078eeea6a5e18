/* Part of the op contract, kernels.h: kinds of attention, what they learn and what is recorded of them, and the op over
 * all tokens. For the CLS query alone: attention_cls.h. */
#ifndef QUEST_KERNELS_ATTENTION_H
#define QUEST_KERNELS_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct context;

/* How the logits are made of queries and keys; ../docs/mathematics.md, after Govindarajan et al., ICLR 2026. What else
 * is known of a kind stands in the table of attention_kinds.h. */
enum attention_kind {
    ATTENTION_STANDARD,  /* q.k / sqrt(d) */
    ATTENTION_QUEST,     /* q . k/|k|, no scale */
    ATTENTION_QNORM,     /* q/|q| . k, no scale */
    ATTENTION_QKNORM,    /* LayerNorm(q) . LayerNorm(k) / sqrt(d) over head_dim, eps 1e-6 (timm's qk_norm) */
    ATTENTION_QKNORM_HS, /* scale[h] * q/|q| . k/|k| */
    ATTENTION_QKNORM_DS, /* (q_scale * q/|q|) . (k_scale * k/|k|), elementwise learned scales */
    ATTENTION_KINDS
};

enum { ATTENTION_HEAD_DIM_STEP = 8, ATTENTION_MOST_HEAD_DIM = 256 };

struct attention_shape {
    enum attention_kind kind;
    size_t batch, tokens, heads, head_dim; /* attention_head_dim_fits(head_dim) */
};

/* Head dimensions that both backends do, in both dtypes: the multiples of 8 up to 256. */
static inline bool attention_head_dim_fits(size_t head_dim)
{
    return head_dim > 0 && head_dim % ATTENTION_HEAD_DIM_STEP == 0 && head_dim <= ATTENTION_MOST_HEAD_DIM;
}

/* What a kind may learn beside the projections, float32; NULL where it does not. The gradients have the same shape. */
enum attention_extra {
    EXTRA_Q_WEIGHT, /* [head_dim], as the next three: qknorm's LayerNorm, qknorm_ds's scales */
    EXTRA_Q_BIAS,
    EXTRA_K_WEIGHT,
    EXTRA_K_BIAS,
    EXTRA_SCALE, /* [heads]: of the logits, qknorm_hs */
    ATTENTION_EXTRAS
};
struct attention_parameters {
    const float *extra[ATTENTION_EXTRAS];
};
struct attention_gradients {
    float *extra[ATTENTION_EXTRAS];
};

/* One record a head of what attention did: norms of the projected queries and keys before any normalisation, the
 * logits that softmax sees, and the entropy in nats of each query's row of probabilities. Over all images and tokens
 * since the record was initialised with attention_statistics_initial. */
enum attention_statistic {
    STATISTIC_Q_SUM,
    STATISTIC_Q_SUM_SQUARES,
    STATISTIC_Q_MIN,
    STATISTIC_Q_MAX,
    STATISTIC_K_SUM,
    STATISTIC_K_SUM_SQUARES,
    STATISTIC_K_MIN,
    STATISTIC_K_MAX,
    STATISTIC_LOGIT_MAX,
    STATISTIC_ENTROPY_SUM,
    STATISTIC_ENTROPY_MIN,
    ATTENTION_STATISTICS
};

/* softmax(logits of the kind) V, fused: no [tokens, tokens] matrix of a whole batch is ever stored.
 *   qkv        T [batch, tokens, 3, heads, head_dim], the packed projection
 *   out        T [batch, tokens, heads, head_dim]
 *   logsumexp  float32 [batch, heads, tokens], natural logarithm, kept for the backward pass
 *   statistics float64 [heads, ATTENTION_STATISTICS], combined (+=, min, max) with this batch; NULL = not wanted */
typedef bool attention_forward_op(struct context *ctx, void *out, float *logsumexp, const void *qkv,
                                  const struct attention_parameters *parameters, double *statistics,
                                  const struct attention_shape *shape, struct error *error);
/* qkv_gradient T as qkv, written whole. Gradients of the learned extras are accumulated. */
struct attention_backward {
    void *qkv_gradient;
    const struct attention_gradients *gradients;
    const void *out_gradient, *out;
    const float *logsumexp;
    const void *qkv;
    const struct attention_parameters *parameters;
    const struct attention_shape *shape;
};
typedef bool attention_backward_op(struct context *ctx, const struct attention_backward *op, struct error *error);

#ifdef __cplusplus
}
#endif

#endif
