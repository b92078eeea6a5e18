/* Cuts and fills the optimiser's part of the device's memory. */
#include "src/model/optimiser_state.h"

#include <stdlib.h>

void optimiser_state_cut(struct model *model, struct memory_cutter *cutter)
{
    size_t total = model->parameters.total, groups = total / PARAMETER_ALIGNMENT;
    if (!model->training)
        return;
    model->m = memory_cut(cutter, total * sizeof(float));
    model->v = memory_cut(cutter, total * sizeof(float));
    model->decay = memory_cut(cutter, groups);
    model->sum_of_squares = memory_cut(cutter, 2 * (1 + model->depth) * sizeof(double));
    if (parameters_are_scaled(&model->parameters))
        model->lr_scale = memory_cut(cutter, groups * sizeof *model->lr_scale);
}

static bool upload(struct model *model, void *device, const void *host, size_t bytes, struct error *error)
{
    return model->kernels->upload(model->context, device, host, bytes, error) &&
           model->kernels->synchronise(model->context, error);
}

bool optimiser_state_upload(struct model *model, struct error *error)
{
    const struct parameters *parameters = &model->parameters;
    size_t groups = parameters->total / PARAMETER_ALIGNMENT;
    uint8_t *decay = malloc(groups);
    float *lr_scale = malloc(groups * sizeof *lr_scale);
    bool ok = (decay && lr_scale) || error_runtime(error, "out of memory for the optimiser's tables");
    if (ok) {
        parameters_decay_mask(parameters, decay);
        parameters_lr_scales(parameters, lr_scale);
        ok = upload(model, model->decay, decay, groups, error) &&
             (!model->lr_scale || upload(model, model->lr_scale, lr_scale, groups * sizeof *lr_scale, error));
    }
    free(decay);
    free(lr_scale);
    return ok;
}
