/* Two tensors depend on what a fine-tuning changes, the table of positions on the resolution and the head on the
 * classes: the file says which of them it has in another shape. */
#include "src/train/init.h"

#include <stdlib.h>
#include <string.h>

#include "src/model/position_table.h"

enum { OLD_SIDE_MAX = 1024 }; /* patches: 16384 pixels in patches of 16; what is larger is no table of positions */

/* Tensors as they are read, and the file's shapes of those that may differ. */
struct plan {
    struct checkpoint_tensor *read; /* [count] */
    size_t count, dim, classes;
    struct checkpoint_tensor position, head_weight, head_bias; /* of the file */
    const struct checkpoint_tensor *target;                    /* the model's position table */
};

static size_t index_of(const struct plan *plan, const char *name)
{
    size_t index = 0;
    while (strcmp(plan->read[index].name, name) != 0)
        index++;
    return index;
}

static bool read_shapes(struct plan *plan, const char *path, struct error *error)
{
    struct checkpoint_tensor shapes[] = {{.name = "pos_embed"}, {.name = "head.weight"}, {.name = "head.bias"}};
    if (!checkpoint_read_shapes(path, shapes, 3, error))
        return false;
    plan->position = shapes[0];
    plan->head_weight = shapes[1];
    plan->head_bias = shapes[2];
    return true;
}

/* A whole head of the model's width for other classes; one that is anything else is left to be refused. */
static bool head_starts_anew(const struct plan *plan)
{
    const struct checkpoint_tensor *weight = &plan->head_weight, *bias = &plan->head_bias;
    return weight->rank == 2 && bias->rank == 1 && weight->shape[1] == plan->dim &&
           weight->shape[0] == bias->shape[0] && weight->shape[0] != plan->classes;
}

static bool has_other_grid(const struct plan *plan)
{
    const struct checkpoint_tensor *position = &plan->position;
    return position->rank == 3 && position->shape[0] == 1 && position->shape[2] == plan->dim &&
           position->shape[1] != plan->target->shape[1];
}

static bool check_grid(const struct plan *plan, const char *path, struct error *error)
{
    size_t prefix, rows = plan->position.shape[1], side = position_table_side(rows, &prefix);
    return (side > 0 && side <= OLD_SIDE_MAX) ||
           error_input(error,
                       "%s: /params/pos_embed has %zu rows, the model's %zu; a square grid of at most %d x %d, with or "
                       "without one row for CLS, is expected",
                       path, rows, plan->target->shape[1], OLD_SIDE_MAX, OLD_SIDE_MAX);
}

static bool resample_positions(struct trainer *trainer, const struct plan *plan, const float *table,
                               struct error *error)
{
    size_t cls, row, from = position_table_side(plan->position.shape[1], &cls);
    size_t to = position_table_side(plan->target->shape[1], &row), numbers = plan->target->shape[1] * plan->dim;
    double *out = calloc(numbers, sizeof *out); /* a row for CLS that the file lacks adds nothing */
    bool ok = (out || error_runtime(error, "out of memory for the position table")) &&
              position_table_resample(out + (row - cls) * plan->dim, (struct position_grid){to, to}, table,
                                      (struct position_grid){from, from}, cls, plan->dim, error);
    for (size_t i = 0; ok && i < numbers; i++)
        plan->target->parameter[i] = (float)out[i];
    free(out);
    if (ok)
        progress_say(&trainer->progress, "position table: %zu x %zu%s -> %zu x %zu, resampled", from, from,
                     cls ? "" : " without CLS", to, to);
    return ok;
}

static void start_head(struct trainer *trainer, const struct plan *plan, const struct checkpoint_tensor *tensors)
{
    const struct parameters *parameters = &trainer->model->parameters;
    const char *const names[] = {"head.weight", "head.bias"};
    for (size_t i = 0; i < 2; i++) {
        size_t index = index_of(plan, names[i]);
        parameter_initialise(&parameters->list[index], tensors[index].parameter, (uint64_t)trainer->config->train.seed);
    }
    progress_say(&trainer->progress, "head: %zu classes in %s, %zu here: starts anew", plan->head_weight.shape[0],
                 trainer->options.init, plan->classes);
}

static bool read_into(struct trainer *trainer, struct plan *plan, const struct checkpoint_tensor *tensors,
                      struct error *error)
{
    const char *path = trainer->options.init;
    size_t position = index_of(plan, "pos_embed");
    plan->target = &tensors[position];
    if (!read_shapes(plan, path, error))
        return false;
    bool new_head = head_starts_anew(plan), other_grid = has_other_grid(plan);
    float *table = NULL;
    if (new_head)
        plan->read[index_of(plan, "head.weight")].parameter = plan->read[index_of(plan, "head.bias")].parameter = NULL;
    if (other_grid) {
        if (!check_grid(plan, path, error))
            return false;
        table = malloc(plan->position.shape[1] * plan->dim * sizeof *table);
        if (!table)
            return error_runtime(error, "out of memory for the position table of %s", path);
        plan->read[position].shape[1] = plan->position.shape[1];
        plan->read[position].parameter = table;
    }
    struct checkpoint checkpoint = {.tensors = plan->read, .tensor_count = plan->count};
    bool ok = checkpoint_read_tensors(path, &checkpoint, false, false, error) &&
              (!table || resample_positions(trainer, plan, table, error));
    if (ok && new_head)
        start_head(trainer, plan, tensors);
    free(table);
    return ok;
}

bool trainer_init(struct trainer *trainer, const struct checkpoint_tensor *tensors, struct error *error)
{
    struct plan plan = {
        .count = trainer->model->parameters.count,
        .dim = (size_t)trainer->config->model.dim,
        .classes = (size_t)trainer->config->model.classes,
    };
    plan.read = malloc(plan.count * sizeof *plan.read);
    if (!plan.read)
        return error_runtime(error, "out of memory for the list of tensors");
    memcpy(plan.read, tensors, plan.count * sizeof *plan.read);
    bool ok = read_into(trainer, &plan, tensors, error);
    free(plan.read);
    return ok;
}
