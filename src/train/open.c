/* Opening a run, up to the first step, and closing it. */
#include <stdlib.h>

#include "data_loaders/load/sampler.h"
#include "kernels/attention_kinds.h"
#include "src/comm/device.h"
#include "src/input/augmentation.h"
#include "src/optimiser/schedule.h"
#include "src/train/alike.h"
#include "src/train/datasets.h"
#include "src/train/load.h"
#include "src/train/memory.h"
#include "src/train/products.h"

/* ---- what the run is made of ---- */

/* Fewer would meet in one batch again and again. */
static bool check_repeats(const struct trainer *trainer, struct error *error)
{
    const struct config *config = trainer->config;
    size_t repeats = (size_t)config->data.augment.repeats, batch = (size_t)config->train.batch_size;
    if (repeats == 1 || trainer->train.images >= repeats * batch)
        return true;
    return error_input(error,
                       "data.augment.repeats: %zu copies in batches of %zu (train.batch_size) ask for %zu images, and "
                       "%s has %zu; lower one of the two",
                       repeats, batch, repeats * batch, trainer->train.path, (size_t)trainer->train.images);
}

static bool split_batch(struct trainer *trainer, struct error *error)
{
    size_t global = (size_t)trainer->config->train.batch_size, ranks = (size_t)comm_world_size(trainer->comm);
    trainer->accumulate = (size_t)trainer->config->train.accumulate;
    if (global % (ranks * trainer->accumulate) != 0)
        return error_input(error,
                           "train.batch_size %zu cannot be divided evenly over %zu ranks x %zu micro-steps "
                           "(train.accumulate); take a multiple of %zu",
                           global, ranks, trainer->accumulate, ranks * trainer->accumulate);
    trainer->batch = global / (ranks * trainer->accumulate);
    size_t group = input_draws(trainer->config).mix_group;
    if (group > 0 && trainer->batch % group != 0)
        return error_input(error,
                           "mix.group: %zu images are mixed among themselves, which does not divide the %zu images a "
                           "rank and micro-step; set mix.group to a divisor of that (another run than with %zu)",
                           group, trainer->batch, group);
    return true;
}

static void take_share(struct loader_options *loader, const struct trainer *trainer)
{
    loader->rank = (size_t)comm_rank(trainer->comm);
    loader->world_size = (size_t)comm_world_size(trainer->comm);
    loader->batch = trainer->batch;
    loader->accumulate = trainer->accumulate;
}

static bool set_input_options(struct trainer *trainer, struct error *error)
{
    const struct config *config = trainer->config;
    struct loader_options train;
    if (!input_training(&train, config, &trainer->train, error))
        return false;
    take_share(&train, trainer);
    train.steps = trainer->last_step > trainer->step ? trainer->last_step - trainer->step : 0;
    train.first_step = trainer->step;
    trainer->train_input_options =
        (struct input_options){.kernels = trainer->kernels, .loader = train, .draws = input_draws(config)};
    if (trainer->has_val) {
        struct loader_options val = input_reading(config, &trainer->val);
        take_share(&val, trainer);
        val.evaluation = true;
        val.augment = input_resizing(config);
        trainer->val_input_options = (struct input_options){.kernels = trainer->kernels, .loader = val};
    }
    if (trainer->model)
        trainer->train_input_options.context = trainer->val_input_options.context = trainer->model->context;
    return true;
}

/* ---- what steps leave ---- */

static struct comm_gradient_options gradient_options(const struct trainer *trainer)
{
    const struct config *config = trainer->config;
    return (struct comm_gradient_options){
        .kernels = trainer->kernels,
        .context = trainer->model->context,
        .gradient = trainer->model->gradient,
        .count = trainer->model->parameters.trained,
        .bucket_mib = config->comm.bucket_mib,
        .dtype = config->comm.dtype,
        .timeout_s = config->comm.timeout_s,
    };
}

static bool open_records(struct trainer *trainer, struct error *error)
{
    size_t images = trainer->accumulate * trainer->batch;
    for (size_t i = 0; i < 2; i++) {
        struct step_record *record = &trainer->records[i];
        struct context *context = trainer->model->context;
        if (!trainer->kernels->allocate_host(context, (void **)&record->loss, images * sizeof(float), "losses",
                                             error) ||
            !trainer->kernels->allocate_host(context, (void **)&record->label_rank, images * sizeof(int32_t),
                                             "label ranks", error) ||
            !trainer->kernels->allocate_host(context, (void **)&record->sum_of_squares,
                                             (1 + trainer->model->depth) * sizeof(double), "gradient norms", error))
            return false;
    }
    return norm_statistics_open(&trainer->norms, trainer->model->depth, trainer->model->heads, error) &&
           trainer_diagnosis_open(&trainer->diagnosis, trainer->comm, trainer->log, &trainer->progress, trainer->config,
                                  trainer->model->tokens, error);
}

/* ---- opening ---- */

static void say_recipe(struct trainer *trainer)
{
    char *recipe = config_recipe_describe(trainer->config);
    if (recipe)
        progress_say(&trainer->progress, "recipe: %s", recipe);
    free(recipe);
}

static void describe(struct trainer *trainer)
{
    char device[256];
    const struct model *model = trainer->model;
    trainer->kernels->describe(model->context, device, sizeof device);
    progress_say(&trainer->progress, "device: %d rank%s, each on %s", comm_world_size(trainer->comm),
                 comm_world_size(trainer->comm) > 1 ? "s" : "", device);
    progress_say(
        &trainer->progress,
        "model: %.2f M parameters, dim %zu, depth %zu, %zu heads, %zu tokens, attention %s, %s; %.2f GFLOP an image "
        "forward",
        1e-6 * (double)model->parameters.learned, model->dim, model->depth, model->heads, model->tokens,
        attention_kind_name(model->kind), dtype_name(model->dtype), 1e-9 * model_forward_flops(model));
    if (model->parameters.trained < model->parameters.total)
        progress_say(&trainer->progress, "model.freeze %s: of these parameters %.2f M are trained",
                     trainer->config->model.freeze, 1e-6 * (double)parameters_trained(&model->parameters));
    progress_say(
        &trainer->progress,
        "run: %llu steps of %lld images (%zu a rank and micro-step, %zu micro-step%s), %zu training images; logs in %s",
        (unsigned long long)trainer->total_steps, (long long)trainer->config->train.batch_size, trainer->batch,
        trainer->accumulate, trainer->accumulate > 1 ? "s" : "", trainer->train.images, trainer->options.run_directory);
    say_recipe(trainer);
}

/* What each rank does alone, up to the allocated model. */
static bool open_alone(struct trainer *trainer, struct error *error)
{
    struct trainer_options *options = &trainer->options;
    if (!device_choose(&trainer->kernels, &trainer->device, options->device, trainer->comm, error) ||
        !trainer_open_datasets(trainer, error) || !check_repeats(trainer, error) || !split_batch(trainer, error))
        return false;
    trainer->epoch_samples =
        sampler_epoch_samples(trainer->train.images, (uint64_t)trainer->config->data.augment.repeats);
    struct schedule_run schedule = schedule_run_of(trainer->config, trainer->epoch_samples);
    trainer->total_steps = schedule.steps;
    if (!schedule_check(trainer->config, &schedule, error))
        return false;
    trainer->last_step =
        options->max_steps && options->max_steps < trainer->total_steps ? options->max_steps : trainer->total_steps;
    progress_open(&trainer->progress, !trainer_is_first(trainer), trainer->total_steps,
                  trainer_epoch(trainer, trainer->total_steps));
    if (!set_input_options(trainer, error) || !loader_check(&trainer->train_input_options.loader, error) ||
        (trainer->has_val && !loader_check(&trainer->val_input_options.loader, error)))
        return false;
    struct run_log_options log_options = {.tensorboard = trainer->config->log.tensorboard,
                                          .prometheus = trainer->config->log.prometheus,
                                          .segment_mib = trainer->config->log.segment_mib};
    if (trainer_is_first(trainer) && (!run_log_open(&trainer->log, options->run_directory, options->resume, error) ||
                                      !run_log_set_options(trainer->log, &log_options, error)))
        return false;
    return trainer_open_model(trainer, error) && open_records(trainer, error);
}

static bool write_config(struct trainer *trainer, struct error *error)
{
    if (!trainer_is_first(trainer))
        return true;
    char *yaml = config_format(trainer->config);
    bool ok = yaml ? run_log_config(trainer->log, yaml, error) : error_runtime(error, "out of memory");
    free(yaml);
    return ok && run_log_rewind(trainer->log, trainer->step, error);
}

bool trainer_open(struct trainer **out, struct comm *comm, const struct trainer_options *options, struct error *error)
{
    struct trainer *trainer = calloc(1, sizeof *trainer);
    *out = trainer;
    if (!trainer)
        return error_runtime(error, "out of memory");
    trainer->comm = comm;
    trainer->options = *options;
    trainer->config = &trainer->options.config;
    trainer->train.file = trainer->val.file = -1;
    trainer->best_top1 = -1;
    trainer->lr_scale = 1;
    if (!comm_agree(comm, open_alone(trainer, error), error) || !trainer_check_same(trainer, error) ||
        !trainer_stage_datasets(trainer, error) || !trainer_load(trainer, error) ||
        !comm_agree(comm, write_config(trainer, error), error))
        return false;
    trainer->asynchronous = trainer->kernels->stream(trainer->model->context) != NULL;
    if (trainer->asynchronous) {
        double bytes_per_s;
        trainer->kernels->limits(trainer->model->context, &trainer->peak_flops, &bytes_per_s);
    }
    describe(trainer);
    if (!trainer_products_open(trainer, error) || !trainer_check_alike(trainer, error))
        return false;
    struct comm_gradient_options gradient = gradient_options(trainer);
    const struct loader_options *loader = &trainer->train_input_options.loader;
    bool ok = set_input_options(trainer, error) &&
              (loader->steps == 0 || trainer_open_input(trainer, loader->first_step, loader->steps, error));
    return comm_agree(comm, ok, error) &&
           comm_agree(comm, comm_gradient_open(&trainer->gradient, comm, &gradient, error), error) &&
           trainer_warm_up(trainer, error);
}

void trainer_close(struct trainer *trainer)
{
    if (!trainer)
        return;
    comm_gradient_close(trainer->gradient);
    input_close(trainer->input);
    for (size_t i = 0; i < 2 && trainer->model; i++) {
        struct step_record *record = &trainer->records[i];
        void *buffers[] = {record->loss, record->label_rank, record->sum_of_squares};
        for (size_t j = 0; j < 3; j++)
            if (buffers[j])
                trainer->kernels->release_host(trainer->model->context, buffers[j]);
    }
    trainer_products_close(trainer);
    trainer_diagnosis_close(&trainer->diagnosis);
    norm_statistics_close(&trainer->norms);
    average_close(&trainer->average, trainer->model);
    model_close(trainer->model);
    dataset_close(&trainer->train);
    free(trainer->class_names);
    dataset_close(&trainer->val);
    if (trainer->log) {
        struct error log_error;
        trainer_log_result(trainer, run_log_finish(trainer->log, &log_error), &log_error);
        run_log_close(trainer->log);
    }
    progress_close(&trainer->progress);
    free(trainer);
}
