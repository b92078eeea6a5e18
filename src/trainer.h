/* One training run: wires data, model, communication, optimiser, logs and checkpoints together.
 *   trainer.c             opening and closing
 *   trainer_loop.c        the steps
 *   trainer_records.c     what a finished step says: metrics, norms, a skipped update
 *   trainer_nonfinite.c   where a NaN or Inf came from
 *   trainer_diagnosis.c   what the diagnosis makes of it
 *   trainer_rewind.c      back to the last good checkpoint
 *   trainer_checkpoint.c  saving, resuming, --init */
#ifndef QUEST_TRAINER_H
#define QUEST_TRAINER_H

#include <stdbool.h>
#include <stdint.h>

#include "data_loaders/dataset.h"
#include "src/comm.h"
#include "src/config.h"
#include "src/gradient.h"
#include "src/gradient_limit.h"
#include "src/input.h"
#include "src/model.h"
#include "src/norm_statistics.h"
#include "src/progress.h"
#include "src/run_log.h"
#include "src/trainer_diagnosis.h"

struct trainer_options {
    struct config config;
    const char *run_directory;
    const char *init; /* file with /params to start from, or NULL */
    const char *device;
    bool resume;
    uint64_t max_steps; /* stop when this step is done, counted from the start of the run; 0 = at the end */
};

/* What a queued step leaves to be read once the device has finished it. */
struct step_record {
    uint64_t step;
    bool pending, logged, with_norms;
    double lr;
    float *loss;                 /* [accumulate * batch], host */
    int32_t *label_rank;         /* [accumulate * batch], host */
    double *sum_of_squares;      /* [1 + depth], host */
    double sum_of_squares_limit; /* above which the device left everything as it was; 0 = none */
};

struct trainer {
    struct comm *comm;
    struct trainer_options options;
    struct config *config; /* = &options.config, with classes filled in */
    const struct kernels *kernels;
    int device;
    struct dataset train, val;
    char *class_names; /* of the training data, one a line, or NULL */
    bool has_val;
    size_t batch, accumulate; /* images a rank and micro-step; micro-steps */
    struct model *model;
    struct input_options train_input_options, val_input_options;
    struct input *input;
    struct comm_gradient *gradient; /* NULL with one rank */
    struct run_log *log;            /* rank 0 only, elsewhere NULL */
    struct progress progress;
    struct norm_statistics norms;
    struct trainer_diagnosis diagnosis;
    struct step_record records[2]; /* of odd and of even steps */
    bool asynchronous;             /* the device runs behind the host: a step is read one step late */
    double peak_flops;             /* of the device, for model FLOP utilisation; 0 = unknown */

    uint64_t step, total_steps, last_step; /* step: the last one done; last_step: where this call ends */
    uint64_t saved_step;                   /* of the newest checkpoint; 0 = none */
    double best_top1;
    struct gradient_limit gradient_limit; /* the same on all ranks */
    double lr_scale;                      /* of the schedule, after rewinds */
    uint64_t rewinds;                     /* of the whole run, over resumes */
    struct {
        double begin_s, data_wait_s, comm_wait_s;
        uint64_t steps, skipped_images, skipped_updates;
    } window; /* since the last logged step, times without evaluations and checkpoints */
};

/* Collective; errors are shared. */
bool trainer_open(struct trainer **trainer, struct comm *comm, const struct trainer_options *options,
                  struct error *error);
/* Runs to the end, --max-steps, or a stop signal. */
bool trainer_run(struct trainer *trainer, struct error *error);
void trainer_close(struct trainer *trainer);

/* ---- between the trainer's files ---- */

/* Parameters (and, resuming, moments, step and best top-1) from --resume, --init or the seed. Collective, errors are
 * shared. */
bool trainer_load(struct trainer *trainer, struct error *error);
/* Rank 0 writes a checkpoint of the last finished step and prunes old ones; others wait. A failure is a warning and an
 * event: the run goes on with the previous checkpoint. *saved tells, on every rank. */
bool trainer_save(struct trainer *trainer, bool *saved, struct error *error);
/* The same where there is a checkpoint of this step already: it is replaced. */
bool trainer_save_again(struct trainer *trainer, bool *saved, struct error *error);
/* Marks the newest checkpoint as the best. */
void trainer_mark_best(struct trainer *trainer);
/* Reads a finished step: logs it. One that was not finite is an error (shared), or where the configuration says so the
 * decision to rewind, after which no record is read. */
bool trainer_finish_record(struct trainer *trainer, struct step_record *record, struct error *error);
/* Says where the NaN or Inf of `step` came from, in an event and the error; true: the run is to be rewound. */
bool trainer_report_nonfinite(struct trainer *trainer, uint64_t step, struct error *error);
/* Parameters, moments, step, best top-1 and gradient norms of the newest valid checkpoint from which step `since` was
 * not the next one, else of the newest before `seen` in the same way. Collective, errors are shared. */
bool trainer_restore(struct trainer *trainer, uint64_t since, uint64_t seen, struct error *error);
/* Back to a good checkpoint as the diagnosis has decided, with logs, input, diagnosis and learning rate set for going
 * on from there. Collective, errors are shared. */
bool trainer_rewind(struct trainer *trainer, struct error *error);
/* Whether the configuration asks for rewinding at all. */
bool trainer_may_rewind(const struct trainer *trainer);
/* The training input from the batch after `first_step` on, for `steps` steps; closes the one before. */
bool trainer_open_input(struct trainer *trainer, uint64_t first_step, uint64_t steps, struct error *error);
double trainer_epoch(const struct trainer *trainer, uint64_t step);
/* Times begin anew; what was skipped stays counted until a line of metrics.jsonl has said it. */
void trainer_restart_window(struct trainer *trainer);
/* A log that cannot be written does not stop the training: says so. */
void trainer_log_result(struct trainer *trainer, bool ok, const struct error *error);

#endif
