/* Shares of the average to the host of rank 0, and from there to all, over MPI. */
#include "src/train/average.h"

#include <stdlib.h>

static bool gather_shares(struct trainer *trainer, float *whole, const float *share, struct error *error)
{
    int ranks = comm_world_size(trainer->comm);
    size_t *counts = calloc((size_t)ranks, sizeof *counts);
    if (!comm_agree(trainer->comm, counts || error_runtime(error, "out of memory for the average"), error)) {
        free(counts);
        return false;
    }
    for (int rank = 0; rank < ranks; rank++)
        counts[rank] = average_span_of(trainer->model->parameters.total, rank, ranks).count * sizeof(float);
    bool ok = comm_gather(trainer->comm, whole, counts, share, trainer->average.span.count * sizeof(float), error);
    free(counts);
    return ok;
}

bool trainer_gather_average(struct trainer *trainer, float *whole, struct error *error)
{
    const struct kernels *kernels = trainer->kernels;
    struct context *context = trainer->model->context;
    size_t bytes = trainer->average.span.count * sizeof(float);
    float *share = malloc(bytes + 1);
    bool ok = share ? kernels->download(context, share, trainer->average.values, bytes, error) &&
                          kernels->synchronise(context, error)
                    : error_runtime(error, "out of memory for a share of the average");
    ok = comm_agree(trainer->comm, ok, error) && gather_shares(trainer, whole, share, error);
    free(share);
    return ok;
}

bool trainer_set_average(struct trainer *trainer, const float *whole, struct error *error)
{
    const struct average *average = &trainer->average;
    return trainer->kernels->upload(trainer->model->context, average->values, whole + average->span.first,
                                    average->span.count * sizeof(float), error) &&
           trainer->kernels->synchronise(trainer->model->context, error);
}

bool trainer_give_back(struct trainer *trainer, float *parameters, struct error *error)
{
    bool ok = model_set_parameters(trainer->model, parameters, error);
    free(parameters);
    return ok;
}

bool trainer_take_average(struct trainer *trainer, float **parameters, struct error *error)
{
    struct model *model = trainer->model;
    size_t bytes = model->parameters.total * sizeof(float);
    float *average = malloc(bytes);
    *parameters = malloc(bytes);
    bool ok = average && *parameters
                  ? trainer->kernels->download(model->context, *parameters, model->master, bytes, error) &&
                        trainer->kernels->synchronise(model->context, error)
                  : error_runtime(error, "out of host memory for evaluating the average (%zu MiB)", 2 * bytes >> 20);
    bool held = ok;
    ok = comm_agree(trainer->comm, ok, error) && trainer_gather_average(trainer, average, error) &&
         comm_broadcast(trainer->comm, average, bytes, 0, error) &&
         comm_agree(trainer->comm, model_set_parameters(model, average, error), error);
    free(average);
    struct error ignored;
    if (!ok && held)
        trainer_give_back(trainer, *parameters, &ignored);
    else if (!ok)
        free(*parameters);
    return ok;
}
