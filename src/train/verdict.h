/* The diagnosis of a run that is under way: fed as the trainer logs, events go to events.jsonl and the terminal, and
 * what the configuration asks for after an event is decided here. Rank 0 judges; all ranks learn the decision. */
#ifndef QUEST_TRAIN_VERDICT_H
#define QUEST_TRAIN_VERDICT_H

#include <stdbool.h>
#include <stdint.h>

#include "src/comm/comm.h"
#include "src/config/config.h"
#include "src/diagnosis/diagnosis.h"
#include "src/log/progress.h"
#include "src/log/run_log.h"

struct trainer_decision {
    enum diagnosis_action action;
    uint64_t step;  /* of the event that asks for it */
    uint64_t since; /* the earliest that such an event of the step gives */
    bool nonfinite; /* the step's own numbers were not finite */
    char why[512];  /* begins with the step */
};

struct trainer_diagnosis {
    bool enabled;
    struct diagnosis *rules; /* rank 0; elsewhere NULL */
    double *rank_numbers;    /* [2 * world_size]: seconds, then loss; NULL with one rank */
    struct comm *comm;
    struct run_log *log; /* rank 0 */
    struct progress *progress;
    const struct config *config;
    size_t tokens;
    struct trainer_decision decision; /* the same on all ranks after trainer_diagnosis_decide */
};

/* Borrows comm, log (NULL on ranks other than 0), progress and config. `tokens` as the model has them. */
bool trainer_diagnosis_open(struct trainer_diagnosis *diagnosis, struct comm *comm, struct run_log *log,
                            struct progress *progress, const struct config *config, size_t tokens, struct error *error);
/* Empty windows and no decision: after a rewind. */
bool trainer_diagnosis_restart(struct trainer_diagnosis *diagnosis, struct error *error);
void trainer_diagnosis_close(struct trainer_diagnosis *diagnosis);
/* A logged step: the global numbers, and this rank's own mean loss and seconds a step without waiting for others.
 * Collective. A gradient that is not finite is left to the trainer, which names the tensor. */
bool trainer_diagnosis_step(struct trainer_diagnosis *diagnosis, const struct metrics_record *metrics, double own_loss,
                            double own_seconds, struct error *error);
/* One layer's record; rank 0. Does not stop the training where memory is short: says so. */
void trainer_diagnosis_norms(struct trainer_diagnosis *diagnosis, const struct norm_record *record);
/* After a logged step: everybody takes rank 0's decision. Collective. */
bool trainer_diagnosis_decide(struct trainer_diagnosis *diagnosis, struct error *error);

#endif
