/* One rank's share of the average, and the decay of a step. */
#include "src/optimiser/average.h"

#include <math.h>

struct average_span average_span_of(size_t total, int rank, int ranks)
{
    size_t groups = total / PARAMETER_ALIGNMENT;
    size_t first = groups * (size_t)rank / (size_t)ranks, end = groups * ((size_t)rank + 1) / (size_t)ranks;
    return (struct average_span){first * PARAMETER_ALIGNMENT, (end - first) * PARAMETER_ALIGNMENT};
}

double average_decay(const struct config *config, uint64_t step)
{
    return config->ema.warmup ? fmin(1 - pow((double)step, -2.0 / 3), config->ema.decay) : config->ema.decay;
}

bool average_open(struct average *average, struct model *model, const struct config *config, int rank, int ranks,
                  struct error *error)
{
    *average = (struct average){0};
    if (config->ema.decay == 0)
        return true;
    average->span = average_span_of(model->parameters.total, rank, ranks);
    /* A rank without a share still has an average: it takes part in what all do. */
    size_t bytes = average->span.count ? average->span.count * sizeof(float) : sizeof(float);
    return model->kernels->allocate(model->context, (void **)&average->values, bytes, "the average", error);
}

void average_close(struct average *average, struct model *model)
{
    if (average->values)
        model->kernels->release(model->context, average->values);
    *average = (struct average){0};
}

bool average_follow(struct average *average, const struct model *model, const struct config *config,
                    const struct update *update, struct error *error)
{
    if (!average->values)
        return true;
    struct average_update op = {.average = average->values,
                                .master = model->master + average->span.first,
                                .decay = average_decay(config, update->step),
                                .count = average->span.count,
                                .gradient_sum_of_squares = update_sums(model, update->step),
                                .earlier_sum_of_squares = update_sums(model, update->step - 1),
                                .sum_of_squares_limit = update->sum_of_squares_limit};
    return model->kernels->average_update(model->context, &op, error);
}
