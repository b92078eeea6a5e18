/* Learning rate and length of a run, as functions of the step. */
#include "src/optimiser/schedule.h"

#include <math.h>

double schedule_learning_rate(const struct config *config, uint64_t step, uint64_t total_steps)
{
    double peak = config->optim.lr, floor_lr = config->optim.min_lr;
    uint64_t warmup = (uint64_t)config->optim.warmup_steps;
    if (step <= warmup)
        return peak * (double)step / (double)warmup;
    if (config->optim.schedule == SCHEDULE_CONSTANT || total_steps <= warmup)
        return peak;
    double progress = (double)(step - 1 - warmup) / (double)(total_steps - warmup);
    return floor_lr + (peak - floor_lr) * 0.5 * (1.0 + cos(3.14159265358979323846 * fmin(progress, 1.0)));
}

uint64_t schedule_total_steps(const struct config *config, uint64_t images)
{
    uint64_t batch = (uint64_t)config->train.batch_size;
    if (config->train.steps > 0)
        return (uint64_t)config->train.steps;
    return ((uint64_t)config->train.epochs * images + batch - 1) / batch;
}
