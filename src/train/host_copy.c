/* In place on the CPU, else copies. */
#include "src/train/host_copy.h"

#include <stdlib.h>
#include <string.h>

bool host_copy_open(struct host_copy *copy, struct trainer *trainer, struct error *error)
{
    struct model *model = trainer->model;
    const struct kernels *kernels = trainer->kernels;
    size_t total = model->parameters.total;
    copy->copies = kernels->host_view(model->context, model->master) == NULL;
    if (!copy->copies) {
        *copy = (struct host_copy){model->master, model->m, model->v, false};
        return true;
    }
    copy->master = calloc(3 * total, sizeof(float));
    if (!copy->master)
        return error_runtime(error, "out of host memory for a copy of the parameters and moments (%zu MiB)",
                             3 * total * sizeof(float) >> 20);
    copy->m = copy->master + total;
    copy->v = copy->m + total;
    return true;
}

void host_copy_close(struct host_copy *copy)
{
    if (copy->copies)
        free(copy->master);
}

struct checkpoint_tensor *host_copy_tensors(const struct parameters *parameters, const struct host_copy *copy)
{
    struct checkpoint_tensor *tensors = calloc(parameters->count, sizeof *tensors);
    for (size_t i = 0; tensors && i < parameters->count; i++) {
        const struct parameter *parameter = &parameters->list[i];
        tensors[i] = (struct checkpoint_tensor){.name = parameter->name,
                                                .rank = parameter->rank,
                                                .parameter = copy->master + parameter->offset,
                                                .m = copy->m + parameter->offset,
                                                .v = copy->v + parameter->offset};
        memcpy(tensors[i].shape, parameter->shape, sizeof tensors[i].shape);
    }
    return tensors;
}

bool host_copy_distribute(struct host_copy *copy, struct trainer *trainer, bool with_moments, struct error *error)
{
    struct model *model = trainer->model;
    size_t bytes = model->parameters.total * sizeof(float);
    if (!comm_broadcast(trainer->comm, copy->master, bytes, 0, error) ||
        !model_set_parameters(model, copy->master, error))
        return false;
    if (!with_moments)
        return true;
    return comm_broadcast(trainer->comm, copy->m, bytes, 0, error) &&
           comm_broadcast(trainer->comm, copy->v, bytes, 0, error) &&
           trainer->kernels->upload(model->context, model->m, copy->m, bytes, error) &&
           trainer->kernels->upload(model->context, model->v, copy->v, bytes, error) &&
           trainer->kernels->synchronise(model->context, error);
}

bool host_copy_download(struct host_copy *copy, struct trainer *trainer, struct error *error)
{
    const struct model *model = trainer->model;
    const struct kernels *kernels = trainer->kernels;
    size_t bytes = model->parameters.total * sizeof(float);
    return !copy->copies || (kernels->download(model->context, copy->master, model->master, bytes, error) &&
                             kernels->download(model->context, copy->m, model->m, bytes, error) &&
                             kernels->download(model->context, copy->v, model->v, bytes, error) &&
                             kernels->synchronise(model->context, error));
}
