/* The logged steps of a retrieval run, as lines of metrics.jsonl and norms.jsonl: those of quest-train, and what this
 * task has besides (docs/experiments.md). */
#ifndef QUEST_RETRIEVAL_LOG_H
#define QUEST_RETRIEVAL_LOG_H

#include "src/log/run_log.h"
#include "src/measure/norm_statistics.h"
#include "src/retrieval/config.h"
#include "src/retrieval/model.h"

struct retrieval_log {
    struct run_log *log;
    struct norm_statistics statistics;
    double last_s; /* the clock at the line before */
    uint64_t last_step;
    size_t samples[2], right[2]; /* since the line before: unbiased, biased */
};

bool retrieval_log_open(struct retrieval_log *log, const struct retrieval_config *config, const char *directory,
                        struct error *error);
void retrieval_log_close(struct retrieval_log *log);

/* Attention's record for the forward pass of a step that will be logged, emptied. */
double *retrieval_log_statistics(struct retrieval_log *log);
/* After every forward pass of training. */
void retrieval_log_count(struct retrieval_log *log, const struct retrieval_model *model,
                         const struct retrieval_batch *batch);
/* After the backward pass of a step that took statistics. */
bool retrieval_log_step(struct retrieval_log *log, const struct retrieval_model *model,
                        const struct retrieval_batch *batch, uint64_t step, double lr, struct error *error);

#endif
