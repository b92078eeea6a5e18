/* What the files of the CUDA attention share: what a pass works on, its scratch, and who launches what.
 *
 *   attention.cu              the two ops of kernels.h: scratch, choice of kernels
 *   prepare_rows.cu           queries and keys of the kinds that transform them element by element
 *   prepare.cu                the same for their gradients, backwards
 *   statistics.cu             records of blocks combined into the caller's float64 records
 *   forward_sm80.cu           bfloat16 forward pass
 *   backward_sm80.cu          bfloat16 backward pass: which kernels, delta
 *   backward_fused_sm80.cu    dQ, dK and dV at once, head_dim up to 64
 *   backward_keys_sm80.cu     dK and dV above
 *   backward_queries_sm80.cu  dQ above
 *   wide_*_sm80.cu            bfloat16 where head_dim is more than 128, both ways
 *   float32.cu                float32, both ways
 *   cls_forward.cu, cls_backward.cu, cls.cuh: the two ops of the CLS query, in both types
 *
 * Every kernel sees logits of one form, scale * q.k * (normalise_keys ? 1 / max(|k|, 1e-6) : 1). `standard` and, in
 * bfloat16 up to a head_dim of 128, `quest` are of it and read Q and K where the projection left them. For the others
 * attention_prepare writes transformed queries and keys first. */
#ifndef QUEST_KERNELS_CUDA_ATTENTION_ATTENTION_CUH
#define QUEST_KERNELS_CUDA_ATTENTION_ATTENTION_CUH

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/vector.cuh"

constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;
constexpr float SMALLEST_NORM = 1e-6f;
/* A logit that is not there. Times any factor it stays finite, and exp2 of it is 0. */
constexpr float MASKED = -1e30f;

/* Queries, keys and values of one pass; neighbouring tokens are `row` (Q, K) and `value_row` (V) elements apart, heads
 * head_dim, images tokens * row. */
template <typename T> struct attention_operands {
    const T *query, *key, *value;
    int row, value_row;
    int tokens, heads;
    float scale;
    bool normalise_keys;
};

/* One block's part of the statistics, in the order of enum attention_statistic. */
struct attention_record {
    float value[ATTENTION_STATISTICS];
};

/* Records [heads][of_head] that a launch writes; record NULL where statistics are not wanted. */
struct attention_record_list {
    attention_record *record;
    size_t of_head;
};

/* Which transform a kind applies to queries and keys, and back: writes T [batch, tokens, 2, heads, head_dim], and the
 * norms of the rows as they came. Either may be NULL. */
bool attention_prepare(struct context *ctx, void *prepared, struct attention_record_list *norms, const void *qkv,
                       const struct attention_parameters *parameters, const struct attention_shape *shape,
                       struct error *error);
/* Turns gradients of the transformed queries and keys, in qkv_gradient, into those of Q and K, in place, and adds the
 * gradients of the learned extras. partials [heads, batch, 4, head_dim] is scratch. */
bool attention_finish_gradient(struct context *ctx, void *qkv_gradient, const struct attention_gradients *gradients,
                               float *partials, const void *qkv, const struct attention_parameters *parameters,
                               const struct attention_shape *shape, struct error *error);

/* Adds the gradients of what the kind learns, whose sums over a head and image lie in partials [heads, batch, 4,
 * head_dim], of the weights and biases of queries, then of keys, as if every weight were [head_dim]. */
bool attention_add_learned(struct context *ctx, const struct attention_gradients *gradients, const float *partials,
                           const struct attention_shape *shape, struct error *error);

/* Combines norms from one list and everything else from the other with the caller's record of each head. */
bool attention_combine_statistics(struct context *ctx, double *statistics, const struct attention_record_list *norms,
                                  const struct attention_record_list *logits, size_t heads, struct error *error);

/* No forward kernel makes more blocks of a head and image than one for each so many tokens. */
constexpr int ATTENTION_LEAST_BLOCK = 8;

bool attention_forward_bf16(struct context *ctx, bfloat16 *out, float *logsumexp, struct attention_record_list *records,
                            const attention_operands<bfloat16> *operands, const struct attention_shape *shape,
                            struct error *error);
/* The same for a head_dim above ATTENTION_NARROW; they do not normalise keys, and their records have no norms. */
constexpr size_t ATTENTION_NARROW = 128;
bool attention_forward_wide(struct context *ctx, bfloat16 *out, float *logsumexp, struct attention_record_list *records,
                            const attention_operands<bfloat16> *operands, const struct attention_shape *shape,
                            struct error *error);
bool attention_forward_float32(struct context *ctx, float *out, float *logsumexp, struct attention_record_list *records,
                               const attention_operands<float> *operands, const struct attention_shape *shape,
                               struct error *error);

/* What the backward kernels read and write beside the operands; gradients are packed as qkv is. */
template <typename T> struct attention_derivatives {
    T *query_gradient, *key_gradient, *value_gradient;
    int gradient_row; /* elements between tokens of the three */
    const T *out, *out_gradient;
    const float *logsumexp;
    float *delta;
    /* bfloat16, where several blocks add to one dQ: sums on their way, and which block may add next. */
    float4 *partials;
    unsigned *turns;
};

/* How many numbers the two have. */
struct attention_backward_scratch {
    size_t partials /* float32 */, turns;
};
struct attention_backward_scratch attention_backward_scratch_bf16(const struct attention_shape *shape);

bool attention_backward_bf16(struct context *ctx, const attention_operands<bfloat16> *operands,
                             const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                             struct error *error);
bool attention_backward_wide(struct context *ctx, const attention_operands<bfloat16> *operands,
                             const attention_derivatives<bfloat16> *derivatives, const struct attention_shape *shape,
                             struct error *error);
bool attention_backward_float32(struct context *ctx, const attention_operands<float> *operands,
                                const attention_derivatives<float> *derivatives, const struct attention_shape *shape,
                                struct error *error);

#endif
