/* The model of the retrieval task, on the product's own attention, loss and optimiser (kernels.h, one CPU thread).
 *
 *   q = x Wq + bq,  k = x Wk + bk              16 x 16 each, written into the packed [samples, tokens, 3, 1, 16]
 *   A = softmax(logits of the kind)            attention_forward; the values are the tokens' classes, one-hot, so that
 *   pooled = mean over queries of A onehot     its output averaged over the queries is what the pooled attention saw
 *   class logits = pooled Wv Wo + bo           no LayerNorm, MLP, residual or positions
 *
 * Products with 16 x 16 matrices are loops of our own: oneDNN's cost of a call is several times theirs. */
#ifndef QUEST_RETRIEVAL_MODEL_H
#define QUEST_RETRIEVAL_MODEL_H

#include "src/retrieval/retrieval.h"

/* All numbers that are trained, or one of the buffers beside them: gradient, first and second moment. */
struct retrieval_weights {
    float query[RETRIEVAL_DIM][RETRIEVAL_DIM], key[RETRIEVAL_DIM][RETRIEVAL_DIM]; /* [in][out] */
    float value[RETRIEVAL_DIM][RETRIEVAL_DIM], output[RETRIEVAL_DIM][RETRIEVAL_DIM];
    float query_bias[RETRIEVAL_DIM], key_bias[RETRIEVAL_DIM], output_bias[RETRIEVAL_DIM];
    float unused[RETRIEVAL_DIM]; /* AdamW takes multiples of 64 numbers; stays zero */
};
enum { RETRIEVAL_WEIGHTS = sizeof(struct retrieval_weights) / sizeof(float) };

/* How a model starts and what is trained. */
struct retrieval_start {
    bool biases; /* bq and bk are there; else they stay zero */
    bool tied;   /* at the start only: Wk is a copy of Wq, Wo of Wv transposed */
};

struct retrieval_model {
    const struct kernels *kernels;
    struct context *context;
    struct attention_shape shape; /* shape.batch: the most samples that a batch may have */
    struct retrieval_start start;
    struct retrieval_weights *weights, *gradient, *first_moment, *second_moment;
    float *qkv, *qkv_gradient;       /* [samples, tokens, 3, 1, dim] */
    float *out, *out_gradient;       /* [samples, tokens, 1, dim] */
    float *logsumexp;                /* [samples, 1, tokens] */
    float *pooled, *hidden;          /* [samples, dim]: before and after Wv */
    float *logits, *logits_gradient; /* [samples, classes] */
    float *loss;                     /* [samples] */
    int32_t *rank;                   /* [samples]: 0 where the answer is right */
    double *gradient_square;         /* of the whole gradient */
    uint8_t *decay;
};

/* Weights are drawn from `seed`, all uniform in (-1/4, 1/4) but bo, which is zero. */
bool retrieval_model_open(struct retrieval_model *model, enum retrieval_kind kind, struct retrieval_start start,
                          size_t samples, uint64_t seed, struct error *error);
void retrieval_model_close(struct retrieval_model *model);

/* Fills loss and rank, and adds this batch to `statistics`, attention's record of one head, unless it is NULL. */
bool retrieval_forward(struct retrieval_model *model, const struct retrieval_batch *batch, double *statistics,
                       struct error *error);
/* The gradient of the mean loss of the batch of the last forward pass, and its square. */
bool retrieval_backward(struct retrieval_model *model, const struct retrieval_batch *batch, struct error *error);
/* One AdamW step. Nothing is changed where the gradient is not finite. */
bool retrieval_update(struct retrieval_model *model, const struct adamw *adamw, struct error *error);

#endif
