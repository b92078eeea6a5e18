/* The retrieval experiment of the QUEST paper (Govindarajan et al., ICLR 2026): one attention layer that has to find
 * one token among 16 by its length or, in a biased half of the samples, by a direction that all of them share. What
 * the parts of quest-retrieval have in common; docs/experiments.md says what comes of it. */
#ifndef QUEST_RETRIEVAL_RETRIEVAL_H
#define QUEST_RETRIEVAL_RETRIEVAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

/* Tokens a sample, classes, and numbers a token: the task is defined by them, so they are no settings. */
enum { RETRIEVAL_TOKENS = 16, RETRIEVAL_CLASSES = RETRIEVAL_TOKENS, RETRIEVAL_DIM = 16 };

/* How the logits are made; all without a scale but `standard`, q.k / 4. */
enum retrieval_kind {
    RETRIEVAL_STANDARD,
    RETRIEVAL_QUEST,       /* q . k/|k| */
    RETRIEVAL_QNORM,       /* q/|q| . k */
    RETRIEVAL_QKNORM_UNIT, /* q/|q| . k/|k| */
    RETRIEVAL_KINDS
};

/* The lengths and shares of the data. */
struct retrieval_task {
    double biased_share;    /* of the samples */
    double bias_length;     /* of b, the direction that answer tokens of biased samples share */
    double biased_variance; /* of those tokens around b, in every dimension */
    double answer_variance; /* of the answer token of an unbiased sample; every other token's is 1 */
};

/* `samples` samples. */
struct retrieval_batch {
    size_t samples;
    float *x;         /* [samples, tokens, dim] */
    uint8_t *classes; /* [samples, tokens]: a permutation of the classes */
    uint8_t *answer;  /* [samples]: the token that is asked for */
    int32_t *labels;  /* [samples]: its class */
    bool *biased;     /* [samples] */
};

#endif
