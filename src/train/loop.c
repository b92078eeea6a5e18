/* The training loop: load, forward, loss, backward, reduce, clip and update, log. */
#include <stdio.h>
#include <string.h>

#include "src/base/profile.h"
#include "src/base/stop_signal.h"
#include "src/model/replay.h"
#include "src/optimiser/schedule.h"
#include "src/optimiser/update.h"
#include "src/train/evaluate.h"
#include "src/train/products.h"
#include "src/train/records.h"
#include "src/train/rewind.h"
#include "src/train/save.h"

static bool gradient_ready(void *owner, size_t done, struct error *error)
{
    return comm_gradient_ready(owner, done, error);
}

/* Forward and backward over one micro-batch; the gradient is reduced as the last one finishes it. */
static bool micro_step(struct trainer *trainer, struct step_record *record, size_t micro, struct error *error)
{
    struct model *model = trainer->model;
    bool last = micro + 1 == trainer->accumulate;
    struct input_batch batch;

    if (!PROFILED("input", input_next(trainer->input, &batch, &trainer->window.data_wait_s, error)))
        return false;
    trainer->window.skipped_images += batch.host->skipped;
    size_t first = micro * trainer->batch;
    struct model_pass pass = {.pixels = batch.pixels,
                              .labels = batch.labels,
                              .draws = batch.draws,
                              .batch = batch.count,
                              .with_statistics = record->with_norms,
                              .loss = model_training_loss(trainer->config),
                              .gradient_scale = 1.0f / (float)trainer->config->train.batch_size};
    return model_run_pass(model, &pass, last && trainer->gradient ? gradient_ready : NULL, trainer->gradient, error) &&
           trainer->kernels->download(model->context, record->loss + first, model->loss, batch.count * sizeof(float),
                                      error) &&
           trainer->kernels->download(model->context, record->label_rank + first, model->label_rank,
                                      batch.count * sizeof(int32_t), error) &&
           input_prefetch(trainer->input, &trainer->window.data_wait_s, error);
}

static bool is_logged(const struct trainer *trainer, uint64_t step, int64_t every)
{
    return every > 0 && (step % (uint64_t)every == 0 || step == 1 || step == trainer->total_steps);
}

static bool run_step(struct trainer *trainer, uint64_t step, struct error *error)
{
    struct model *model = trainer->model;
    struct step_record *record = &trainer->records[step % 2];
    struct schedule_run schedule = {trainer->total_steps, trainer->epoch_samples};
    double comm_wait_s;

    record->step = step;
    record->lr = trainer->lr_scale * schedule_learning_rate(trainer->config, &schedule, step);
    double limit = gradient_limit_at(&trainer->gradient_limit, step, trainer->config->diagnosis.skip_z);
    record->sum_of_squares_limit = limit * limit;
    record->with_norms = is_logged(trainer, step, trainer->config->norms.every);
    record->logged = is_logged(trainer, step, trainer->config->log.every);
    struct update update = {.step = step, .lr = record->lr, .sum_of_squares_limit = record->sum_of_squares_limit};
    if (!model_zero_gradient(model, error) ||
        (record->with_norms && !norm_statistics_begin(&trainer->norms, model, error)))
        return false;
    for (size_t micro = 0; micro < trainer->accumulate; micro++)
        if (!micro_step(trainer, record, micro, error))
            return false;
    if (!PROFILED("reduction", comm_gradient_finish(trainer->gradient, step, &comm_wait_s, error)) ||
        !PROFILED("gradient norm", update_measure_gradient(model, step, record->with_norms, error)) ||
        !PROFILED("update", update_parameters(model, trainer->config, &update, error)) ||
        !PROFILED("average", average_follow(&trainer->average, model, trainer->config, &update, error)) ||
        (record->with_norms && !norm_statistics_end(&trainer->norms, model, error)) ||
        !trainer->kernels->download(model->context, record->sum_of_squares, update_sums(model, step),
                                    (1 + model->depth) * sizeof(double), error) ||
        !trainer->kernels->mark(model->context, (int)(step % 2), error))
        return false;
    trainer->window.comm_wait_s += comm_wait_s;
    record->pending = true;
    trainer->step = step;
    return true;
}

/* Reads the steps that the device has not been asked about yet. */
static bool finish_records(struct trainer *trainer, struct error *error)
{
    for (size_t i = 1; i <= 2; i++)
        if (!trainer_finish_record(trainer, &trainer->records[(trainer->step + i) % 2], error))
            return false;
    return true;
}

static bool wants_rewind(const struct trainer *trainer)
{
    return trainer->diagnosis.decision.action == DIAGNOSIS_ACTION_REWIND;
}

static bool epoch_ends(const struct trainer *trainer, uint64_t step)
{
    uint64_t batch = (uint64_t)trainer->config->train.batch_size, images = trainer->epoch_samples;
    return step * batch / images > (step - 1) * batch / images;
}

/* every = 0: at the end of each epoch. The end of the run always. */
static bool is_due(const struct trainer *trainer, uint64_t step, int64_t every)
{
    return step == trainer->total_steps || (every > 0 ? step % (uint64_t)every == 0 : epoch_ends(trainer, step));
}

/* Evaluation and checkpoint after a step, where they are due. A best model is always kept, so it is saved too. */
static bool after_step(struct trainer *trainer, struct error *error)
{
    bool evaluate_now = trainer->has_val && is_due(trainer, trainer->step, trainer->config->train.eval_every);
    bool save_now = is_due(trainer, trainer->step, trainer->config->checkpoint.every), is_best = false, saved = false;
    double best_top1 = trainer->best_top1;
    struct trainer_decision *decision = &trainer->diagnosis.decision;
    if (decision->action == DIAGNOSIS_ACTION_CHECKPOINT) {
        decision->action = DIAGNOSIS_ACTION_LOG;
        save_now = true;
    }
    if (!evaluate_now && !save_now)
        return true;
    if (!finish_records(trainer, error))
        return false;
    if (wants_rewind(trainer))
        return true; /* nothing of this state is kept */
    /* A reduction that was aborted on the device shows only here; its step must not be saved. */
    if (!comm_gradient_progress(trainer->gradient, error))
        return false;
    if (evaluate_now && !trainer_evaluate(trainer, &is_best, error)) {
        struct error save_error;
        if (save_now) /* what was learned since the last checkpoint is not lost with the evaluation's data */
            trainer_save(trainer, &saved, &save_error);
        return false;
    }
    if ((save_now || is_best) && !trainer_save(trainer, &saved, error))
        return false;
    if (is_best && saved)
        trainer_mark_best(trainer);
    else if (is_best)
        trainer->best_top1 = best_top1;          /* no file has it */
    if (!comm_agree(trainer->comm, true, error)) /* rank 0 may still be at its files */
        return false;
    trainer_restart_window(trainer, trainer->step);
    return true;
}

/* The last words of a run that ends before its schedule does. */
static bool stop_early(struct trainer *trainer, struct error *error)
{
    bool saved = trainer->saved_step == trainer->step;
    if (!finish_records(trainer, error) || (!saved && !trainer_save(trainer, &saved, error)))
        return false;
    if (!saved) {
        error_runtime(error, "stopped at step %llu, but its checkpoint could not be written; the newest is step %llu",
                      (unsigned long long)trainer->step, (unsigned long long)trainer->saved_step);
        return error_shared(error);
    }
    progress_say(&trainer->progress, "stopped at step %llu of %llu; the same command with --resume goes on from there",
                 (unsigned long long)trainer->step, (unsigned long long)trainer->total_steps);
    return true;
}

/* diagnosis.on_warning or on_critical says stop: a checkpoint, and an end that no job script takes for success. */
static bool stop_by_diagnosis(struct trainer *trainer, struct error *error)
{
    struct trainer_decision decision = trainer->diagnosis.decision;
    if (!stop_early(trainer, error))
        return false;
    error_runtime(
        error,
        "stopped by the diagnosis of %s (diagnosis.on_warning, diagnosis.on_critical); the checkpoint of step "
        "%llu holds this state",
        decision.why, (unsigned long long)trainer->saved_step);
    return error_shared(error);
}

static bool rewind_or_stop(struct trainer *trainer, struct error *error)
{
    struct trainer_decision *decision = &trainer->diagnosis.decision;
    if (trainer->rewinds < (uint64_t)trainer->config->diagnosis.rewind_max)
        return trainer_rewind(trainer, error);
    char why[sizeof decision->why];
    snprintf(why, sizeof why, "%.400s, after %llu rewinds (diagnosis.rewind_max)", decision->why,
             (unsigned long long)trainer->rewinds);
    if (decision->nonfinite) {
        error_runtime(error, "%s; the last checkpoint is step %llu in %s", why, (unsigned long long)trainer->saved_step,
                      trainer->options.run_directory);
        return error_shared(error);
    }
    memcpy(decision->why, why, sizeof why);
    decision->action = DIAGNOSIS_ACTION_STOP;
    return stop_by_diagnosis(trainer, error);
}

/* What follows a step that is done. *ended: the run stops here, in good order. */
static bool after_run_step(struct trainer *trainer, bool stop, bool *ended, struct error *error)
{
    struct step_record *readable = &trainer->records[(trainer->step - (trainer->asynchronous ? 1 : 0)) % 2];
    bool last = trainer->step == trainer->total_steps;
    *ended = false;
    trainer_products_keep(trainer);
    if (!trainer_finish_record(trainer, readable, error) || !after_step(trainer, error) ||
        ((stop || trainer->step == trainer->last_step) && !finish_records(trainer, error)))
        return false;
    if (wants_rewind(trainer))
        return rewind_or_stop(trainer, error);
    if (trainer->diagnosis.decision.action == DIAGNOSIS_ACTION_STOP && !last)
        return stop_by_diagnosis(trainer, error);
    *ended = stop || trainer->step == trainer->last_step;
    return true;
}

static bool run_steps(struct trainer *trainer, struct error *error)
{
    for (bool ended = trainer->step >= trainer->last_step; !ended;) {
        bool stop;
        if (!comm_any_begin(trainer->comm, stop_signal_raised(), error) ||
            !run_step(trainer, trainer->step + 1, error) || !comm_any_end(trainer->comm, &stop, error))
            return trainer->saved_step > 0
                       ? error_append(error, "; the last checkpoint is step %llu (go on with --resume)",
                                      (unsigned long long)trainer->saved_step)
                       : false;
        if (!after_run_step(trainer, stop, &ended, error))
            return false;
    }
    return true;
}

bool trainer_run(struct trainer *trainer, struct error *error)
{
    bool saved;
    /* Where the run may have to go back there is something to go back to from the first step on. */
    if (trainer->step == 0 && trainer_may_rewind(trainer) && !trainer_save(trainer, &saved, error))
        return false;
    trainer_restart_window(trainer, trainer->step);
    if (!run_steps(trainer, error))
        return false;
    if (trainer->step < trainer->total_steps)
        return stop_early(trainer, error);
    if (trainer->saved_step != trainer->step) {
        error_runtime(error,
                      "the training is done, but its last checkpoint could not be written; the newest is step %llu",
                      (unsigned long long)trainer->saved_step);
        return error_shared(error);
    }
    progress_say(&trainer->progress, "done: %llu steps; logs and checkpoints in %s", (unsigned long long)trainer->step,
                 trainer->options.run_directory);
    return true;
}
