/* Cuts and fills the optimiser's part of the device's memory. */
#include "src/model/optimiser_state.h"

#include <stdlib.h>

static void cut_lamb(struct model *model, struct memory_cutter *cutter)
{
    size_t tensors = model->parameters.count, groups = model->parameters.total / PARAMETER_ALIGNMENT;
    model->lamb.tensor_first = memory_cut(cutter, (tensors + 1) * sizeof *model->lamb.tensor_first);
    model->lamb.tensor_of = memory_cut(cutter, groups * sizeof *model->lamb.tensor_of);
    model->lamb.group_sums = memory_cut(cutter, 2 * groups * sizeof *model->lamb.group_sums);
    model->lamb.tensor_factors = memory_cut(cutter, 2 * tensors * sizeof *model->lamb.tensor_factors);
    model->lamb.tensor_sums = memory_cut(cutter, 2 * tensors * sizeof *model->lamb.tensor_sums);
}

/* Of those that are trained. */
static void cut_muon(struct model *model, struct memory_cutter *cutter)
{
    size_t element = dtype_bytes(model->dtype), whole = 0, square = 0;
    for (size_t i = 0; i < model->parameters.count; i++) {
        const struct parameter *parameter = &model->parameters.list[i];
        size_t rows = parameter->shape[0], columns = parameter->count / rows, n = rows < columns ? rows : columns;
        if (!parameter->decay || parameter->offset >= model->parameters.trained)
            continue;
        whole = parameter->count > whole ? parameter->count : whole;
        square = n * n > square ? n * n : square;
    }
    for (int i = 0; i < 2; i++) {
        model->muon.lying[i] = memory_cut(cutter, whole * element);
        model->muon.square[i] = memory_cut(cutter, square * element);
    }
}

void optimiser_state_cut(struct model *model, struct memory_cutter *cutter, enum optimiser kind)
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
    if (kind == OPTIMISER_LAMB)
        cut_lamb(model, cutter);
    if (optimiser_is_muon(kind))
        cut_muon(model, cutter);
}

static bool upload(struct model *model, void *device, const void *host, size_t bytes, struct error *error)
{
    return model->kernels->upload(model->context, device, host, bytes, error) &&
           model->kernels->synchronise(model->context, error);
}

static bool upload_decay(struct model *model, struct error *error)
{
    size_t groups = model->parameters.total / PARAMETER_ALIGNMENT;
    uint8_t *decay = malloc(groups);
    if (!decay)
        return error_runtime(error, "out of memory for the decay table");
    parameters_decay_mask(&model->parameters, decay);
    bool ok = upload(model, model->decay, decay, groups, error);
    free(decay);
    return ok;
}

static bool upload_lr_scale(struct model *model, struct error *error)
{
    size_t bytes = model->parameters.total / PARAMETER_ALIGNMENT * sizeof(float);
    float *lr_scale = malloc(bytes);
    if (!lr_scale)
        return error_runtime(error, "out of memory for the tensors' learning rates");
    parameters_lr_scales(&model->parameters, lr_scale);
    bool ok = upload(model, model->lr_scale, lr_scale, bytes, error);
    free(lr_scale);
    return ok;
}

static bool upload_tensor_groups(struct model *model, struct error *error)
{
    size_t first_bytes = (model->parameters.count + 1) * sizeof(uint32_t);
    size_t of_bytes = model->parameters.total / PARAMETER_ALIGNMENT * sizeof(uint16_t);
    uint32_t *first = malloc(first_bytes);
    uint16_t *of = malloc(of_bytes);
    bool ok = (first && of) || error_runtime(error, "out of memory for the table of tensors");
    if (ok) {
        parameters_tensor_groups(&model->parameters, first, of);
        ok = upload(model, model->lamb.tensor_first, first, first_bytes, error) &&
             upload(model, model->lamb.tensor_of, of, of_bytes, error);
    }
    free(first);
    free(of);
    return ok;
}

bool optimiser_state_upload(struct model *model, struct error *error)
{
    return upload_decay(model, error) && (!model->lr_scale || upload_lr_scale(model, error)) &&
           (!model->lamb.tensor_of || upload_tensor_groups(model, error));
}
