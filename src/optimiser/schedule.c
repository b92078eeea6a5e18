/* Learning rate and length of a run, as functions of the step. */
#include "src/optimiser/schedule.h"

#include <math.h>

static double half_cosine(double from, double to, double progress)
{
    return to + (from - to) * 0.5 * (1.0 + cos(3.14159265358979323846 * progress));
}

/* Whole steps, as batches go. */
static double steps_of(const struct config *config, const struct schedule_run *run, double epochs)
{
    return round(epochs * (double)run->epoch_samples / (double)config->train.batch_size);
}

static double warmup_steps(const struct config *config, const struct schedule_run *run)
{
    return config->optim.warmup_steps ? (double)config->optim.warmup_steps
                                      : steps_of(config, run, config->optim.warmup_epochs);
}

/* s(t) of schedule.h; `length` is the run's in the unit of t, without the cool-down. */
static double timm_rate(const struct config *config, double t, double warmup, double length)
{
    double peak = config_peak_lr(config), start = config->optim.warmup_lr, floor_lr = config->optim.min_lr;
    if (t < warmup)
        return start + t * (peak - start) / warmup;
    double skipped = config->optim.warmup_prefix ? warmup : 0;
    return t < length ? half_cosine(peak, floor_lr, (t - skipped) / (length - skipped)) : floor_lr;
}

static double rate_of_update(const struct config *config, const struct schedule_run *run, uint64_t step)
{
    double cooldown = steps_of(config, run, config->optim.cooldown_epochs);
    return timm_rate(config, (double)(step - 1), warmup_steps(config, run), (double)run->steps - cooldown);
}

static double rate_of_epoch(const struct config *config, const struct schedule_run *run, uint64_t step)
{
    uint64_t batch = (uint64_t)config->train.batch_size, epoch = (step - 1) * batch / run->epoch_samples;
    double epochs =
        config->train.epochs ? (double)config->train.epochs : (double)(run->steps * batch) / (double)run->epoch_samples;
    if (config->optim.schedule == SCHEDULE_DEIT && epoch > 0)
        epoch--;
    return timm_rate(config, (double)epoch, config->optim.warmup_epochs, epochs - config->optim.cooldown_epochs);
}

static double rate_of_step(const struct config *config, const struct schedule_run *run, uint64_t step)
{
    double peak = config_peak_lr(config), start = config->optim.warmup_lr;
    double warmup = warmup_steps(config, run), total = (double)run->steps;
    if ((double)step <= warmup)
        return start + (peak - start) * (double)step / warmup;
    if (config->optim.schedule == SCHEDULE_CONSTANT || total <= warmup)
        return peak;
    return half_cosine(peak, config->optim.min_lr, fmin(((double)(step - 1) - warmup) / (total - warmup), 1.0));
}

double schedule_learning_rate(const struct config *config, const struct schedule_run *run, uint64_t step)
{
    switch (config->optim.schedule) {
    case SCHEDULE_TIMM_UPDATES:
        return rate_of_update(config, run, step);
    case SCHEDULE_TIMM_EPOCHS:
    case SCHEDULE_DEIT:
        return rate_of_epoch(config, run, step);
    default:
        return rate_of_step(config, run, step);
    }
}

struct schedule_run schedule_run_of(const struct config *config, uint64_t epoch_samples)
{
    uint64_t batch = (uint64_t)config->train.batch_size, steps = (uint64_t)config->train.steps;
    if (steps == 0)
        steps = ((uint64_t)config->train.epochs * epoch_samples + batch - 1) / batch;
    return (struct schedule_run){steps, epoch_samples};
}

bool schedule_check(const struct config *config, const struct schedule_run *run, struct error *error)
{
    double warmup = warmup_steps(config, run), cooldown = steps_of(config, run, config->optim.cooldown_epochs);
    if ((warmup == 0 && cooldown == 0) || warmup + cooldown < (double)run->steps)
        return true;
    if (config->optim.warmup_steps && cooldown == 0)
        return error_input(error,
                           "optim.warmup_steps %lld is not less than the %llu steps of this run (%lld epochs of %llu "
                           "images in batches of %lld); lower it or train.batch_size",
                           (long long)config->optim.warmup_steps, (unsigned long long)run->steps,
                           (long long)config->train.epochs, (unsigned long long)run->epoch_samples,
                           (long long)config->train.batch_size);
    return error_input(error,
                       "optim.warmup_epochs and cooldown_epochs are %.0f steps, not less than the %llu of this run (an "
                       "epoch is %llu images in batches of %lld); lower them or train.batch_size",
                       warmup + cooldown, (unsigned long long)run->steps, (unsigned long long)run->epoch_samples,
                       (long long)config->train.batch_size);
}
