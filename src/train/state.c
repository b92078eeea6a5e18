/* What several parts of a run do. */
#include "src/train/state.h"

#include "src/base/clock.h"

bool trainer_open_input(struct trainer *trainer, uint64_t first_step, uint64_t steps, struct error *error)
{
    input_close(trainer->input);
    trainer->input = NULL;
    trainer->train_input_options.loader.first_step = first_step;
    trainer->train_input_options.loader.steps = steps;
    return input_open(&trainer->input, &trainer->train_input_options, error);
}

double trainer_epoch(const struct trainer *trainer, uint64_t step)
{
    return (double)step * (double)trainer->config->train.batch_size / (double)trainer->epoch_samples;
}

void trainer_restart_window(struct trainer *trainer, uint64_t step)
{
    trainer->window.data_wait_s = trainer->window.comm_wait_s = 0;
    trainer->window.after_step = step;
    trainer->window.begin_s = clock_s();
}

void trainer_log_result(struct trainer *trainer, bool ok, const struct error *error)
{
    if (!ok)
        progress_warn(&trainer->progress, "%s; the training goes on", error->message);
}

void trainer_log_metrics(struct trainer *trainer, const struct metrics_record *record)
{
    struct error error;
    if (trainer->log)
        trainer_log_result(trainer, run_log_metrics(trainer->log, record, &error), &error);
}

void trainer_log_norms(struct trainer *trainer, const struct norm_record *record)
{
    struct error error;
    if (trainer->log)
        trainer_log_result(trainer, run_log_norms(trainer->log, record, &error), &error);
}

void trainer_log_event(struct trainer *trainer, const struct event *event)
{
    struct error error;
    if (trainer->log)
        trainer_log_result(trainer, run_log_event(trainer->log, event, &error), &error);
}
