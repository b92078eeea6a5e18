/* In place on the CPU, else copies. */
#include "src/train/host_copy.h"

#include <stdlib.h>
#include <string.h>

#include "src/train/average.h"

bool host_copy_open(struct host_copy *copy, struct trainer *trainer, struct error *error)
{
    struct model *model = trainer->model;
    const struct kernels *kernels = trainer->kernels;
    size_t total = model->parameters.total, parts = trainer->average.values ? 1 : 0;
    *copy = (struct host_copy){.copies = kernels->host_view(model->context, model->master) == NULL};
    if (copy->copies)
        parts += 3;
    float *memory = parts ? calloc(parts * total, sizeof(float)) : NULL;
    if (parts && !memory)
        return error_runtime(error, "out of host memory for a copy of the parameters and moments (%zu MiB)",
                             parts * total * sizeof(float) >> 20);
    copy->memory = memory;
    copy->master = copy->copies ? memory : model->master;
    copy->m = copy->copies ? memory + total : model->m;
    copy->v = copy->copies ? memory + 2 * total : model->v;
    copy->average = trainer->average.values ? memory + (parts - 1) * total : NULL;
    return true;
}

void host_copy_close(struct host_copy *copy)
{
    free(copy->memory);
}

struct checkpoint_tensor *host_copy_tensors(const struct parameters *parameters, const struct host_copy *copy)
{
    struct checkpoint_tensor *tensors = calloc(parameters->count, sizeof *tensors);
    for (size_t i = 0; tensors && i < parameters->count; i++) {
        const struct parameter *parameter = &parameters->list[i];
        tensors[i] = (struct checkpoint_tensor){.name = parameter->name,
                                                .rank = parameter->rank,
                                                .parameter = copy->master + parameter->offset,
                                                .average = copy->average ? copy->average + parameter->offset : NULL,
                                                .m = copy->m + parameter->offset,
                                                .v = copy->v + parameter->offset};
        memcpy(tensors[i].shape, parameter->shape, sizeof tensors[i].shape);
    }
    return tensors;
}

static bool distribute_moments(struct host_copy *copy, struct trainer *trainer, size_t bytes, struct error *error)
{
    struct model *model = trainer->model;
    return comm_broadcast(trainer->comm, copy->m, bytes, 0, error) &&
           comm_broadcast(trainer->comm, copy->v, bytes, 0, error) &&
           trainer->kernels->upload(model->context, model->m, copy->m, bytes, error) &&
           trainer->kernels->upload(model->context, model->v, copy->v, bytes, error) &&
           trainer->kernels->synchronise(model->context, error);
}

static bool distribute_average(struct host_copy *copy, struct trainer *trainer, bool was_read, size_t bytes,
                               struct error *error)
{
    if (!was_read)
        return trainer_set_average(trainer, copy->master, error);
    return comm_broadcast(trainer->comm, copy->average, bytes, 0, error) &&
           trainer_set_average(trainer, copy->average, error);
}

bool host_copy_distribute(struct host_copy *copy, struct trainer *trainer, struct host_copy_parts parts,
                          struct error *error)
{
    struct model *model = trainer->model;
    size_t bytes = model->parameters.total * sizeof(float);
    return comm_broadcast(trainer->comm, copy->master, bytes, 0, error) &&
           model_set_parameters(model, copy->master, error) &&
           (!parts.moments || distribute_moments(copy, trainer, bytes, error)) &&
           (!copy->average || distribute_average(copy, trainer, parts.average, bytes, error));
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
