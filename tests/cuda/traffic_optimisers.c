/* Bytes that norms, optimisers and what goes with them must move (traffic.h). */
#include "tests/cuda/traffic.h"

static bool sum_of_squares(struct run *r)
{
    return r->k->sum_of_squares(r->ctx, once(r, 1, 8), once(r, PARAMETERS, 4), PARAMETERS, &r->error);
}

static const struct adamw adam = {
    .lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.05f, .step = 1};

static bool adamw(struct run *r, const float *lr_scale)
{
    struct adamw_update update = {.master = twice(r, PARAMETERS, 4),
                                  .m = twice(r, PARAMETERS, 4),
                                  .v = twice(r, PARAMETERS, 4),
                                  .working = once(r, PARAMETERS, 2),
                                  .gradient = once(r, PARAMETERS, 4),
                                  .decay = once(r, PARAMETERS / 64, 1),
                                  .lr_scale = lr_scale,
                                  .gradient_sum_of_squares = once(r, 1, 8),
                                  .count = PARAMETERS,
                                  .adamw = &adam};
    return r->k->adamw_update(r->ctx, &update, &r->error);
}

static bool adamw_update(struct run *r)
{
    return adamw(r, NULL);
}

static bool adamw_update_scaled(struct run *r)
{
    return adamw(r, once(r, PARAMETERS / 64, 4));
}

static bool average_update(struct run *r)
{
    struct average_update update = {.average = twice(r, PARAMETERS, 4),
                                    .master = once(r, PARAMETERS, 4),
                                    .decay = 0.9999,
                                    .count = PARAMETERS,
                                    .gradient_sum_of_squares = once(r, 1, 8)};
    return r->k->average_update(r->ctx, &update, &r->error);
}

static bool sgd_update(struct run *r)
{
    struct sgd sgd = {.lr = 0.1f, .momentum = 0.9f, .weight_decay = 1e-4f, .nesterov = true};
    struct sgd_update update = {.master = twice(r, PARAMETERS, 4),
                                .m = twice(r, PARAMETERS, 4),
                                .working = once(r, PARAMETERS, 2),
                                .gradient = once(r, PARAMETERS, 4),
                                .decay = once(r, PARAMETERS / 64, 1),
                                .gradient_sum_of_squares = once(r, 1, 8),
                                .count = PARAMETERS,
                                .sgd = &sgd};
    return r->k->sgd_update(r->ctx, &update, &r->error);
}

/* Tensors of about a block's sizes. */
static bool tensor_tables(struct run *r, struct lamb_update *update)
{
    enum { GROUPS = PARAMETERS / 64, TENSORS = 40 };
    static uint32_t first[TENSORS + 1];
    static uint16_t of[GROUPS];
    for (uint32_t tensor = 0; tensor <= TENSORS; tensor++)
        first[tensor] = (uint32_t)((size_t)GROUPS * tensor / TENSORS);
    for (uint32_t tensor = 0; tensor < TENSORS; tensor++)
        for (uint32_t group = first[tensor]; group < first[tensor + 1]; group++)
            of[group] = (uint16_t)tensor;
    update->tensors = TENSORS;
    update->tensor_first = memory(r, sizeof first);
    update->tensor_of = memory(r, sizeof of);
    update->group_sums = memory(r, 2 * GROUPS * sizeof(float));
    update->tensor_factors = memory(r, 2 * TENSORS * sizeof(float));
    update->tensor_sums = memory(r, 2 * TENSORS * sizeof(double));
    return !r->failed && r->k->upload(r->ctx, (void *)update->tensor_first, first, sizeof first, &r->error) &&
           r->k->upload(r->ctx, (void *)update->tensor_of, of, sizeof of, &r->error) &&
           r->k->synchronise(r->ctx, &r->error);
}

static bool lamb(struct run *r, struct lamb_update *update, lamb_moments_op *op)
{
    update->decay = once(r, PARAMETERS / 64, 1);
    update->gradient_sum_of_squares = once(r, 1, 8);
    update->count = PARAMETERS;
    update->adamw = &adam;
    return tensor_tables(r, update) && op(r->ctx, update, &r->error);
}

/* What it sums is not counted as compulsory, nor which tensor a group is of. */
static bool lamb_moments(struct run *r)
{
    struct lamb_update update = {.master = once(r, PARAMETERS, 4),
                                 .m = twice(r, PARAMETERS, 4),
                                 .v = twice(r, PARAMETERS, 4),
                                 .gradient = once(r, PARAMETERS, 4)};
    return lamb(r, &update, r->k->lamb_moments);
}

static bool lamb_apply(struct run *r)
{
    struct lamb_update update = {.master = twice(r, PARAMETERS, 4),
                                 .m = once(r, PARAMETERS, 4),
                                 .v = once(r, PARAMETERS, 4),
                                 .working = once(r, PARAMETERS, 2)};
    return lamb(r, &update, r->k->lamb_apply);
}

/* Of fc1, which is turned round. m is read again, as no number can be written before the norm is known. */
static bool muon_direction(struct run *r)
{
    const struct muon muon = {.momentum = 0.95f, .eps = 1e-7f};
    struct muon_direction direction = {.m = twice(r, HIDDEN * DIM, 4),
                                       .out = once(r, HIDDEN * DIM, 2),
                                       .gradient = once(r, HIDDEN * DIM, 4),
                                       .gradient_sum_of_squares = once(r, 1, 8),
                                       .rows = HIDDEN,
                                       .columns = DIM,
                                       .muon = &muon};
    r->compulsory_bytes += (size_t)HIDDEN * DIM * 4;
    return r->k->muon_direction(r->ctx, &direction, &r->error);
}

static bool muon_polynomial(struct run *r)
{
    struct muon_polynomial polynomial = {
        .out = once(r, DIM * DIM, 2), .x = once(r, DIM * DIM, 2), .x_squared = once(r, DIM * DIM, 2), .n = DIM};
    return r->k->muon_polynomial(r->ctx, &polynomial, &r->error);
}

static bool muon_apply(struct run *r)
{
    const struct muon muon = {0};
    struct muon_apply apply = {.master = twice(r, HIDDEN * DIM, 4),
                               .working = once(r, HIDDEN * DIM, 2),
                               .direction = once(r, HIDDEN * DIM, 2),
                               .gradient_sum_of_squares = once(r, 1, 8),
                               .rows = HIDDEN,
                               .columns = DIM,
                               .muon = &muon};
    return r->k->muon_apply(r->ctx, &apply, &r->error);
}

static bool round_parameters(struct run *r)
{
    return r->k->round_parameters(r->ctx, once(r, PARAMETERS, 2), once(r, PARAMETERS, 4), PARAMETERS, &r->error);
}

static const struct traffic_op ops[] = {OP(sum_of_squares),      OP(adamw_update),    OP(average_update),
                                        OP(adamw_update_scaled), OP(sgd_update),      OP(lamb_moments),
                                        OP(lamb_apply),          OP(muon_direction),  OP(muon_polynomial),
                                        OP(muon_apply),          OP(round_parameters)};

int main(int argc, char **argv)
{
    return traffic_main(argc, argv, ops, sizeof ops / sizeof *ops);
}
