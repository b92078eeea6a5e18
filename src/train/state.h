/* A run as its parts see it, and what several of them do. Internal to src/train.
 *   open.c       opening and closing
 *   memory.c     the plan of its memory, the model, and a step that shows that it fits
 *   datasets.c   the data, the same on all ranks
 *   loop.c       the steps
 *   evaluate.c   evaluations
 *   average.c    the average of the parameters as a whole
 *   records.c    what a finished step says: metrics, norms, a skipped update
 *   nonfinite.c  where a NaN or Inf came from
 *   verdict.c    what the diagnosis makes of it
 *   rewind.c     back to the last good checkpoint
 *   products.c   the algorithms of matrix products
 *   alike.c      whether ranks round alike
 *   load.c       resuming, --init, new parameters
 *   init.c       --init from a model of another resolution or other classes
 *   save.c       checkpoints
 *   host_copy.c  parameters and moments as the host sees them */
#ifndef QUEST_TRAIN_STATE_H
#define QUEST_TRAIN_STATE_H

#include "data_loaders/format/dataset.h"
#include "src/comm/gradient.h"
#include "src/diagnosis/gradient_limit.h"
#include "src/input/input.h"
#include "src/log/progress.h"
#include "src/log/run_log.h"
#include "src/measure/norm_statistics.h"
#include "src/model/model.h"
#include "src/optimiser/average.h"
#include "src/train/products_file.h"
#include "src/train/trainer.h"
#include "src/train/verdict.h"

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
    uint64_t epoch_samples; /* of the training set, repeats counted */
    char *class_names;      /* of the training data, one a line, or NULL */
    bool has_val;
    size_t batch, accumulate; /* images a rank and micro-step; micro-steps */
    struct model *model;
    struct average average; /* this rank's share */
    size_t planned_bytes;   /* of memory */
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
    struct {
        struct kept_products others; /* of other GPUs than rank 0's, as products.jsonl has them */
        size_t count, refused;       /* when the file was written */
    } products;
    double lr_scale;  /* of the schedule, after rewinds */
    uint64_t rewinds; /* of the whole run, over resumes */
    struct {
        double begin_s, data_wait_s, comm_wait_s;
        uint64_t after_step, skipped_images, skipped_updates;
    } window; /* since the last logged step, times without evaluations and checkpoints */
};

/* Rank 0, which reads and writes files for all ranks. */
static inline bool trainer_is_first(const struct trainer *trainer)
{
    return comm_rank(trainer->comm) == 0;
}
/* The training input from the batch after `first_step` on, for `steps` steps; closes the one before. */
bool trainer_open_input(struct trainer *trainer, uint64_t first_step, uint64_t steps, struct error *error);
double trainer_epoch(const struct trainer *trainer, uint64_t step);
/* Times begin anew after `step`; what was skipped stays counted until a line of metrics.jsonl has said it. */
void trainer_restart_window(struct trainer *trainer, uint64_t step);

/* Rank 0 writes the line; on other ranks nothing happens. A log that cannot be written does not stop the training: says
 * so. */
void trainer_log_metrics(struct trainer *trainer, const struct metrics_record *record);
void trainer_log_norms(struct trainer *trainer, const struct norm_record *record);
void trainer_log_event(struct trainer *trainer, const struct event *event);
/* The same for what else was to be written. */
void trainer_log_result(struct trainer *trainer, bool ok, const struct error *error);

#endif
