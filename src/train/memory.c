/* What a run will need, before it is allocated, and a step that changes nothing, before it is said to fit. */
#include "src/train/memory.h"

#include <math.h>

#include "src/optimiser/update.h"

#define MIB 1048576.0

/* ---- the plan ---- */

struct run_plan {
    const struct trainer *trainer;
    struct model_options options;
    size_t program_bytes; /* what the process holds already */
};

/* A rank's share. On the host also what trainer_evaluate has beside it for a while, the whole and the parameters, which
 * is more than a checkpoint's whole and its place in the image, but for a run without evaluations. */
static size_t average_bytes(const struct trainer *trainer, size_t total)
{
    struct comm *comm = trainer->comm;
    size_t share = average_span_of(total, comm_rank(comm), comm_world_size(comm)).count;
    bool whole = trainer->kernels->on_host && (trainer->has_val || trainer_is_first(trainer));
    return (share + (whole ? 2 * total : 0)) * sizeof(float);
}

/* Parameters that the checkpoint or the reduction have a copy of: rank 0 holds a whole checkpoint (parameters and both
 * moments) in memory while it writes one, and gradients that travel as bf16 are rounded into memory of their own. */
static bool plan_copies(struct memory_plan *plan, const struct trainer *trainer, struct error *error)
{
    struct parameters parameters;
    bool ok = parameters_plan(&parameters, trainer->config, trainer->train.channels, error);
    if (ok && trainer->kernels->on_host && trainer_is_first(trainer))
        memory_plan_add(plan, "checkpoint", 3 * parameters.learned * sizeof(float));
    if (ok && comm_world_size(trainer->comm) > 1 && trainer->config->comm.dtype == DTYPE_BFLOAT16)
        memory_plan_add(plan, "gradients on the wire", parameters.trained * sizeof(uint16_t));
    if (ok && trainer->config->ema.decay > 0)
        memory_plan_add(plan, "average", average_bytes(trainer, parameters.total));
    parameters_free(&parameters);
    return ok;
}

static bool plan_for(void *owner, size_t batch, struct memory_plan *plan, struct error *error)
{
    const struct run_plan *run = owner;
    const struct trainer *trainer = run->trainer;
    struct model_options options = run->options;
    struct input_options train = trainer->train_input_options, val = trainer->val_input_options;
    options.batch = train.loader.batch = val.loader.batch = batch;
    if (!model_plan(plan, &options, error))
        return false;
    input_plan(plan, &train, "input");
    if (trainer->has_val)
        input_plan(plan, &val, "evaluation input");
    if (options.kernels->on_host) {
        memory_plan_add(plan, "loader", loader_memory_bytes(&train.loader));
        memory_plan_add(plan, "libraries", MEMORY_LIBRARIES_BYTES);
        memory_plan_add(plan, "program", run->program_bytes);
    } else {
        memory_plan_add(plan, "reserve", memory_reserve_bytes(comm_world_size(trainer->comm)));
    }
    return plan_copies(plan, trainer, error);
}

bool trainer_open_model(struct trainer *trainer, struct error *error)
{
    struct memory_plan plan = {0};
    bool on_host = trainer->kernels->on_host;
    struct run_plan run = {.trainer = trainer,
                           .options = {.kernels = trainer->kernels,
                                       .config = trainer->config,
                                       .channels = trainer->train.channels,
                                       .batch = trainer->batch,
                                       .training = true,
                                       .device = trainer->device,
                                       .ranks_on_device = on_host ? (size_t)comm_local_size(trainer->comm) : 1},
                           .program_bytes = memory_resident_bytes()};
    struct memory_wish wish = {.plan = &plan,
                               .batch = trainer->batch,
                               .batch_share = trainer->accumulate * (size_t)comm_world_size(trainer->comm),
                               .plan_for = plan_for,
                               .owner = &run};
    if (!plan_for(&run, trainer->batch, &plan, error))
        return false;
    if (!trainer->progress.silent)
        memory_plan_print(&plan, stdout);
    trainer->planned_bytes = memory_plan_total(&plan);
    struct model_options options = run.options;
    options.memory = &wish;
    if (!model_open(&trainer->model, &options, error))
        return false;
    trainer->planned_bytes += trainer->model->kept_bytes;
    if (trainer->model->kept_bytes)
        progress_say(&trainer->progress, "memory: %.1f MiB more keep the inputs of products for the backward pass",
                     (double)trainer->model->kept_bytes / MIB);
    if (!average_open(&trainer->average, trainer->model, trainer->config, comm_rank(trainer->comm),
                      comm_world_size(trainer->comm), error))
        return false;
    return model_set_normalisation(trainer->model, trainer->train.mean, trainer->train.std, error);
}

/* ---- the warm-up step ---- */

static bool gradient_ready(void *owner, size_t done, struct error *error)
{
    return comm_gradient_ready(owner, done, error);
}

static bool run_blank_micro_step(struct trainer *trainer, bool last, struct error *error)
{
    struct model *model = trainer->model;
    struct input_batch batch = input_blank(trainer->input);
    const struct model_targets targets = {batch.labels, true, model_training_loss(trainer->config)};
    model->draws = batch.draws;
    return model_forward(model, batch.pixels, batch.count, true, last, error) &&
           model_loss(model, &targets, batch.count, 1.0f, error) &&
           model_backward(model, batch.count, true, last ? gradient_ready : NULL, trainer->gradient, error);
}

/* Everything that a step does, over batches of zeros: a first micro-step, whose gradients are written, and where there
 * are more of them one that adds to it. The update meets a gradient that is not finite, and so leaves parameters and
 * moments as they are, to the bit; its sums are cleared, as no later step may see them. */
static bool run_blank_step(struct trainer *trainer, struct error *error)
{
    struct model *model = trainer->model;
    const struct kernels *kernels = trainer->kernels;
    struct update update = {.step = trainer->step + 1, .lr = 0};
    double *sums = update_sums(model, update.step), not_finite = NAN, wait_s;
    return model_zero_gradient(model, error) &&
           (trainer->accumulate == 1 || run_blank_micro_step(trainer, false, error)) &&
           run_blank_micro_step(trainer, true, error) &&
           comm_gradient_finish(trainer->gradient, update.step, &wait_s, error) &&
           update_measure_gradient(model, update.step, true, error) &&
           kernels->upload(model->context, sums, &not_finite, sizeof not_finite, error) &&
           update_parameters(model, trainer->config, &update, error) &&
           average_follow(&trainer->average, model, trainer->config, &update, error) &&
           kernels->zero(model->context, model->sum_of_squares, 2 * (1 + model->depth) * sizeof(double), error) &&
           kernels->synchronise(model->context, error);
}

/* A library that finds no memory says so in its own words, or says something else. */
static bool explain(const struct trainer *trainer, struct error *error)
{
    struct device_memory memory;
    struct error ignored;
    error_prefix(error, "the warm-up step before the first");
    if (trainer->kernels->memory_state(trainer->model->context, &memory, &ignored) &&
        memory.free < MEMORY_RESERVE_NCCL_BYTES)
        error_append(error, "; %.0f of the GPU's %.0f MiB are left: lower train.batch_size", (double)memory.free / MIB,
                     (double)memory.total / MIB);
    return false;
}

bool trainer_warm_up(struct trainer *trainer, struct error *error)
{
    struct device_memory memory;
    if (!trainer->asynchronous || !trainer->input)
        return true;
    if (!comm_agree(trainer->comm, run_blank_step(trainer, error) || explain(trainer, error), error) ||
        !comm_agree(trainer->comm, trainer->kernels->memory_state(trainer->model->context, &memory, error), error))
        return false;
    progress_say(&trainer->progress,
                 "memory: after a warm-up step the run has taken %.1f MiB of the %.1f planned, reserve included; "
                 "%.0f of the GPU's %.0f MiB are free",
                 (double)memory.taken / MIB, (double)trainer->planned_bytes / MIB, (double)memory.free / MIB,
                 (double)memory.total / MIB);
    return true;
}
