/* What a run of the retrieval experiment came to: result.json in its directory, written when it is finished. */
#ifndef QUEST_RETRIEVAL_RESULT_H
#define QUEST_RETRIEVAL_RESULT_H

#include "src/base/error.h"
#include "src/retrieval/retrieval.h"

struct retrieval_result {
    char specification[16], kind[16];
    double lr, weight_decay;
    uint64_t seed, steps;
    double loss;                               /* of the last step's batch */
    double accuracy_unbiased, accuracy_biased; /* 0..1, of the test samples after the last step */
    uint64_t skipped_updates;                  /* steps whose gradient was not finite */
    uint32_t weights_crc32;                    /* of the weights: the same seed gives the same bits */
    double seconds, cpu_s;                     /* by the clock; of the processor */
};

/* Whether both accuracies are above `threshold`. */
bool retrieval_succeeded(const struct retrieval_result *result, double threshold);

/* Written beside and renamed. */
bool retrieval_result_write(const struct retrieval_result *result, const char *directory, struct error *error);
/* *found false: no result.json there. ERROR_INPUT: one that cannot be read. */
bool retrieval_result_read(struct retrieval_result *result, bool *found, const char *directory, struct error *error);

#endif
