/* Samples of the retrieval task, by counter: a sample depends on seed, stream and its number only. */
#ifndef QUEST_RETRIEVAL_DATA_H
#define QUEST_RETRIEVAL_DATA_H

#include "src/base/error.h"
#include "src/retrieval/retrieval.h"

bool retrieval_batch_open(struct retrieval_batch *batch, size_t samples, struct error *error);
void retrieval_batch_close(struct retrieval_batch *batch);

enum retrieval_bias { RETRIEVAL_MIXED, RETRIEVAL_UNBIASED, RETRIEVAL_BIASED };

/* Samples first.. of the named stream ("train", "test"); `bias` says which kind they are. */
void retrieval_draw(struct retrieval_batch *batch, const struct retrieval_task *task, uint64_t seed, const char *stream,
                    uint64_t first, enum retrieval_bias bias);

/* b of a seed: a random direction of the task's length. */
void retrieval_bias_direction(float direction[RETRIEVAL_DIM], const struct retrieval_task *task, uint64_t seed);

/* out [count] ~ N(0, 1) from as many random words, `count` a multiple of 32 (Box and Muller 1958). */
void retrieval_normals(float *out, const uint32_t *words, size_t count);

#endif
