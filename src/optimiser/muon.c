/* Muon as timm's (Jordan et al. 2024): a matrix's step is the orthogonal factor of its gradient's mean, which five
 * steps of Newton and Schulz's iteration come near to, scaled so that its numbers have the size of AdamW's (0.2
 * sqrt(larger side), Liu et al. 2025). */
#include "src/optimiser/muon.h"

#include <math.h>
#include <stdlib.h>

#include "src/base/crc32c.h"

enum { ITERATIONS = 5 };

/* X becomes a X + (b A + c A A) X, A = X X^T: timm's "quintic", one triple an iteration. */
static const float coefficients[ITERATIONS][3] = {
    {4.0848f, -6.8946f, 2.9270f}, {3.9505f, -6.3029f, 2.6377f}, {3.7418f, -5.5913f, 2.3037f},
    {2.8769f, -3.1427f, 1.2046f}, {2.8366f, -3.0525f, 1.2012f},
};

struct step {
    struct model *model;
    const struct muon *muon;
    const struct adamw *adamw;
    const double *sum_of_squares;
};

/* lying[from], [n, most], through an iteration into lying[1 - from]. With a on the diagonal, (a I + b A + c A A) X is
 * one product. */
static bool iterate(const struct step *step, int from, size_t n, size_t most, const float k[3], struct error *error)
{
    struct model *model = step->model;
    const struct kernels *kernels = model->kernels;
    void *x = model->muon.lying[from], *square = model->muon.square[0], *squared = model->muon.square[1];
    struct linear_forward with_itself = {.out = square, .in = x, .weight = x, .rows = n, .in_dim = most, .out_dim = n};
    struct linear_forward again = {
        .out = squared, .in = square, .weight = square, .rows = n, .in_dim = n, .out_dim = n};
    struct muon_polynomial polynomial = {squared, square, squared, n, k[0], k[1], k[2]};
    struct linear_backward applied = {.in_gradient = model->muon.lying[1 - from],
                                      .out_gradient = squared,
                                      .weight = x,
                                      .rows = n,
                                      .in_dim = most,
                                      .out_dim = n};
    return kernels->linear_forward(model->context, &with_itself, error) &&
           kernels->linear_forward(model->context, &again, error) &&
           kernels->muon_polynomial(model->context, &polynomial, error) &&
           kernels->linear_backward(model->context, &applied, error);
}

/* From `direction`, in lying[0], to its orthogonal factor in lying[ITERATIONS % 2]. */
static bool orthogonalise(const struct step *step, const struct muon_direction *direction, struct error *error)
{
    size_t rows = direction->rows, columns = direction->columns, n = rows < columns ? rows : columns;
    if (!step->model->kernels->muon_direction(step->model->context, direction, error))
        return false;
    for (int i = 0; i < ITERATIONS; i++)
        if (!iterate(step, i % 2, n, rows + columns - n, coefficients[i], error))
            return false;
    return true;
}

static bool matrix_step(const struct step *step, const struct parameter *parameter, struct error *error)
{
    struct model *model = step->model;
    size_t rows = parameter->shape[0], columns = parameter->count / rows;
    size_t most = rows > columns ? rows : columns;
    double lr = (double)step->adamw->lr * parameter->lr_scale;
    struct muon_direction direction = {.m = model->m + parameter->offset,
                                       .out = model->muon.lying[0],
                                       .gradient = model->gradient + parameter->offset,
                                       .gradient_sum_of_squares = step->sum_of_squares,
                                       .rows = rows,
                                       .columns = columns,
                                       .muon = step->muon};
    struct muon_apply apply = {.master = model->master + parameter->offset,
                               .working = (char *)model->working + parameter->offset * dtype_bytes(model->dtype),
                               .direction = model->muon.lying[ITERATIONS % 2],
                               .gradient_sum_of_squares = step->sum_of_squares,
                               .rows = rows,
                               .columns = columns,
                               .keep = (float)(1.0 - lr * (double)step->adamw->weight_decay),
                               .step = (float)(lr * 0.2 * sqrt((double)most)),
                               .muon = step->muon};
    return orthogonalise(step, &direction, error) && model->kernels->muon_apply(model->context, &apply, error);
}

/* AdamW over the numbers from `first` to before `end`. */
static bool rest_step(const struct step *step, size_t first, size_t end, struct error *error)
{
    struct model *model = step->model;
    size_t group = first / PARAMETER_ALIGNMENT;
    struct adamw_update update = {.master = model->master + first,
                                  .m = model->m + first,
                                  .v = model->v + first,
                                  .working = (char *)model->working + first * dtype_bytes(model->dtype),
                                  .gradient = model->gradient + first,
                                  .decay = model->decay + group,
                                  .lr_scale = model->lr_scale ? model->lr_scale + group : NULL,
                                  .gradient_sum_of_squares = step->sum_of_squares,
                                  .count = end - first,
                                  .adamw = step->adamw};
    return first == end || model->kernels->adamw_update(model->context, &update, error);
}

bool muon_update(struct model *model, const struct muon *muon, const struct adamw *adamw,
                 const double *gradient_sum_of_squares, struct error *error)
{
    const struct parameters *parameters = &model->parameters;
    const struct step step = {model, muon, adamw, gradient_sum_of_squares};
    size_t rest = 0; /* where numbers begin that no matrix has claimed */
    for (size_t i = 0; i < parameters->count && parameters->list[i].offset < parameters->trained; i++) {
        const struct parameter *parameter = &parameters->list[i];
        if (!parameter->decay)
            continue;
        if (!rest_step(&step, rest, parameter->offset, error) || !matrix_step(&step, parameter, error))
            return false;
        rest = i + 1 < parameters->count ? parameters->list[i + 1].offset : parameters->total;
    }
    return rest_step(&step, rest, parameters->trained, error);
}

/* Takes a weight for its gradient; its checksum goes after `print`'s. */
static bool take_print(const struct step *step, const struct parameter *parameter, char *host, uint32_t *print,
                       struct error *error)
{
    struct model *model = step->model;
    size_t bytes = parameter->count * dtype_bytes(model->dtype);
    struct muon_direction direction = {.m = model->gradient + parameter->offset,
                                       .out = model->muon.lying[0],
                                       .gradient = model->master + parameter->offset,
                                       .gradient_sum_of_squares = step->sum_of_squares,
                                       .rows = parameter->shape[0],
                                       .columns = parameter->count / parameter->shape[0],
                                       .muon = step->muon};
    if (!orthogonalise(step, &direction, error) ||
        !model->kernels->download(model->context, host, model->muon.lying[ITERATIONS % 2], bytes, error) ||
        !model->kernels->synchronise(model->context, error))
        return false;
    *print = crc32c((uint32_t[]){*print, crc32c(host, bytes)}, 2 * sizeof *print);
    return true;
}

bool muon_print(struct model *model, uint32_t *print, struct error *error)
{
    const struct parameters *parameters = &model->parameters;
    const struct muon muon = {.eps = 1e-7f};
    const struct step step = {.model = model, .muon = &muon, .sum_of_squares = model->sum_of_squares};
    char *host = malloc(parameters->total * sizeof(float));
    bool ok = host || error_runtime(error, "out of memory for a copy of a matrix");
    *print = 0;
    for (size_t i = 0; ok && i < parameters->count && parameters->list[i].offset < parameters->trained; i++)
        if (parameters->list[i].decay)
            ok = take_print(&step, &parameters->list[i], host, print, error);
    free(host);
    return ok;
}
