/* What a finished step says. */
#include "src/train/records.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/train/nonfinite.h"

/* Sums of this step and of the window, over all ranks; and this rank's own mean loss. */
static bool reduce_metrics(struct trainer *trainer, const struct step_record *record, double totals[5],
                           double *own_loss, struct error *error)
{
    memset(totals, 0, 5 * sizeof *totals);
    for (size_t i = 0; i < trainer->accumulate * trainer->batch; i++) {
        totals[0] += (double)record->loss[i];
        totals[1] += record->label_rank[i] == 0;
    }
    *own_loss = totals[0] / (double)(trainer->accumulate * trainer->batch);
    totals[2] = trainer->window.data_wait_s;
    totals[3] = trainer->window.comm_wait_s;
    totals[4] = (double)trainer->window.skipped_images;
    return comm_reduce(trainer->comm, totals, 5, COMM_SUM, error);
}

static bool log_metrics(struct trainer *trainer, const struct step_record *record, struct error *error)
{
    double totals[5], own_loss, batch = (double)trainer->config->train.batch_size,
                                ranks = comm_world_size(trainer->comm);
    if (!reduce_metrics(trainer, record, totals, &own_loss, error))
        return false;
    double steps = (double)(record->step - trainer->window.after_step),
           step_time_s = (clock_s() - trainer->window.begin_s) / steps;
    struct metrics_record metrics = {
        .step = record->step,
        .epoch = trainer_epoch(trainer, record->step),
        .loss = totals[0] / batch,
        .top1 = totals[1] / batch,
        .lr = record->lr,
        .grad_norm = sqrt(record->sum_of_squares[0]),
        .images_per_s = batch / step_time_s,
        .step_time_s = step_time_s,
        .data_wait_s = totals[2] / ranks / steps,
        .comm_wait_s = totals[3] / ranks / steps,
        .skipped_images = totals[4],
        .skipped_updates = (double)trainer->window.skipped_updates,
        .mfu = NAN,
    };
    if (trainer->peak_flops > 0)
        metrics.mfu = model_training_flops(trainer->model) * metrics.images_per_s / (ranks * trainer->peak_flops);
    double own_seconds = step_time_s - trainer->window.comm_wait_s / steps;
    /* On all ranks at the same moment, just after the reduction: while rank 0 writes, the others already wait for it in
     * the next step, and that time must be in its step too. */
    trainer_restart_window(trainer, record->step);
    trainer->window.skipped_images = trainer->window.skipped_updates = 0;
    progress_step(&trainer->progress, &metrics);
    if (metrics.skipped_images > 0)
        progress_warn(&trainer->progress,
                      "damaged or too small images replaced by others: %llu (quest-data verify %s names damaged ones)",
                      (unsigned long long)metrics.skipped_images, trainer->train.path);
    trainer_log_metrics(trainer, &metrics);
    return trainer_diagnosis_step(&trainer->diagnosis, &metrics, own_loss, own_seconds, error);
}

static bool log_norms(struct trainer *trainer, const struct step_record *record, struct error *error)
{
    if (!norm_statistics_reduce(&trainer->norms, trainer->comm, error))
        return false;
    double rows = (double)trainer->config->train.batch_size * (double)trainer->model->tokens;
    for (size_t layer = 0; layer < trainer->model->depth && trainer_is_first(trainer); layer++) {
        struct norm_record norms =
            norm_statistics_record(&trainer->norms, layer, record->step, rows, sqrt(record->sum_of_squares[1 + layer]));
        trainer_log_norms(trainer, &norms);
        trainer_diagnosis_norms(&trainer->diagnosis, &norms);
    }
    return true;
}

/* The device made the same comparison with the same number and left parameters and moments as they were. */
static bool was_skipped(const struct step_record *record)
{
    return record->sum_of_squares_limit > 0 && record->sum_of_squares[0] > record->sum_of_squares_limit;
}

static void log_skipped(struct trainer *trainer, const struct step_record *record)
{
    double norm = sqrt(record->sum_of_squares[0]), limit = sqrt(record->sum_of_squares_limit);
    struct event event = {.step = record->step,
                          .kind = EVENT_UPDATE_SKIPPED,
                          .severity = SEVERITY_WARNING,
                          .layer = -1,
                          .head = -1,
                          .value = norm,
                          .threshold = limit};
    trainer->window.skipped_updates++;
    snprintf(event.message, sizeof event.message,
             "the gradient norm is %.4g, over the limit of %.4g that diagnosis.skip_z %g gives: this update is skipped",
             norm, limit, trainer->config->diagnosis.skip_z);
    progress_say(&trainer->progress, "step %llu: %s", (unsigned long long)record->step, event.message);
    trainer_log_event(trainer, &event);
}

bool trainer_finish_record(struct trainer *trainer, struct step_record *record, struct error *error)
{
    if (!record->pending || trainer->diagnosis.decision.action == DIAGNOSIS_ACTION_REWIND)
        return true;
    record->pending = false;
    if (!trainer->kernels->wait_mark(trainer->model->context, (int)(record->step % 2), error))
        return false;
    /* Reduced gradients are the same on every rank, so this is decided alike everywhere. */
    bool finite = isfinite(record->sum_of_squares[0]);
    if (finite && was_skipped(record))
        log_skipped(trainer, record);
    if (finite)
        gradient_limit_push(&trainer->gradient_limit, record->step, sqrt(record->sum_of_squares[0]));
    if (record->with_norms && !log_norms(trainer, record, error))
        return false;
    if ((record->logged || !finite) && !log_metrics(trainer, record, error))
        return false;
    if (!finite)
        return trainer_report_nonfinite(trainer, record->step, error);
    return (!record->logged && !record->with_norms) || trainer_diagnosis_decide(&trainer->diagnosis, error);
}
