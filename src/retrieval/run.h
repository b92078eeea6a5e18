/* One run of the retrieval experiment: 4000 steps or so, its logs in the product's format, its result. */
#ifndef QUEST_RETRIEVAL_RUN_H
#define QUEST_RETRIEVAL_RUN_H

#include "src/retrieval/config.h"
#include "src/retrieval/result.h"

/* "OUT/A_quest_lr0.03_wd0.01_seed0". Caller frees; NULL where memory is short. */
char *retrieval_run_directory(const struct retrieval_config *config, const char *out);

/* *finished: the directory holds the result of just this configuration, which is read. ERROR_INPUT where it holds
 * another configuration's run. */
bool retrieval_run_finished(bool *finished, struct retrieval_result *result, const struct retrieval_config *config,
                            const char *directory, struct error *error);

/* Trains from the first step, whatever a run that was stopped has left there, and writes config.yaml, metrics.jsonl,
 * norms.jsonl and, last, result.json. ERROR_RUNTIME where a signal asked to stop (stop_signal.h). */
bool retrieval_run(struct retrieval_result *result, const struct retrieval_config *config, const char *directory,
                   struct error *error);

#endif
