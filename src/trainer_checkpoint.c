/* Where the parameters come from and go to. Rank 0 reads and writes files; the others get the numbers from it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/checkpoint.h"
#include "src/config_load.h"
#include "src/file_output.h"
#include "src/trainer.h"

/* The flat buffers as the host sees them: in place on the CPU, else copies. */
struct host_buffers {
    float *master, *m, *v;
    bool copies;
};

static bool open_buffers(struct host_buffers *buffers, struct trainer *trainer, struct error *error)
{
    struct model *model = trainer->model;
    const struct kernels *kernels = trainer->kernels;
    size_t total = model->parameters.total;
    buffers->copies = kernels->host_view(model->context, model->master) == NULL;
    if (!buffers->copies) {
        *buffers = (struct host_buffers){model->master, model->m, model->v, false};
        return true;
    }
    buffers->master = calloc(3 * total, sizeof(float));
    if (!buffers->master)
        return error_runtime(error, "out of host memory for a copy of the parameters and moments (%zu MiB)",
                             3 * total * sizeof(float) >> 20);
    buffers->m = buffers->master + total;
    buffers->v = buffers->m + total;
    return true;
}

static void close_buffers(struct host_buffers *buffers)
{
    if (buffers->copies)
        free(buffers->master);
}

static struct checkpoint_tensor *list_tensors(const struct parameters *parameters, const struct host_buffers *buffers)
{
    struct checkpoint_tensor *tensors = calloc(parameters->count, sizeof *tensors);
    for (size_t i = 0; tensors && i < parameters->count; i++) {
        const struct parameter *parameter = &parameters->list[i];
        tensors[i] = (struct checkpoint_tensor){.name = parameter->name,
                                                .rank = parameter->rank,
                                                .parameter = buffers->master + parameter->offset,
                                                .m = buffers->m + parameter->offset,
                                                .v = buffers->v + parameter->offset};
        memcpy(tensors[i].shape, parameter->shape, sizeof tensors[i].shape);
    }
    return tensors;
}

/* ---- loading ---- */

/* What rank 0 read, for the others. */
struct loaded {
    uint64_t step, rewinds;
    double best_top1, lr_scale;
    struct gradient_limit gradient_limit;
    bool with_moments;
};

/* A checkpoint of another attention kind may have the same tensors, and would train on without a complaint. */
static bool check_kind(const struct trainer *trainer, const struct checkpoint *header, const char *path,
                       struct error *error)
{
    struct config saved;
    if (!config_parse_model(&saved, header->config, strlen(header->config), path, error))
        return false;
    if (saved.attention.kind != trainer->config->attention.kind)
        return error_input(error, "%s: the checkpoint was trained with attention.kind %s, the configuration says %s",
                           path, attention_kind_name(saved.attention.kind),
                           attention_kind_name(trainer->config->attention.kind));
    return true;
}

/* Labels mean what the classes' names say, and a resumed run takes them as they are in its file. */
static bool check_classes(const struct trainer *trainer, const struct checkpoint *header, const char *path,
                          struct error *error)
{
    bool named = trainer->class_names && header->class_names;
    return !named || strcmp(trainer->class_names, header->class_names) == 0 ||
           error_input(error, "%s: the checkpoint was trained on other classes, or in another order, than %s has", path,
                       trainer->train.path);
}

static struct loaded loaded_of(const struct checkpoint *checkpoint)
{
    struct loaded loaded = {
        .step = checkpoint->step,
        .rewinds = checkpoint->rewinds,
        .best_top1 = checkpoint->best_top1,
        .lr_scale = checkpoint->lr_scale,
        .gradient_limit = {.count = checkpoint->gradient_norm_count, .newest_step = checkpoint->step},
        .with_moments = true,
    };
    memcpy(loaded.gradient_limit.norms, checkpoint->gradient_norms,
           checkpoint->gradient_norm_count * sizeof *checkpoint->gradient_norms);
    return loaded;
}

static bool read_checkpoint(struct trainer *trainer, const char *path, struct checkpoint_tensor *tensors,
                            struct loaded *loaded, struct error *error)
{
    struct checkpoint checkpoint = {0};
    bool ok = checkpoint_read_header(&checkpoint, path, error) && check_kind(trainer, &checkpoint, path, error) &&
              check_classes(trainer, &checkpoint, path, error);
    if (ok) {
        checkpoint.tensors = tensors;
        checkpoint.tensor_count = trainer->model->parameters.count;
        ok = checkpoint_read_tensors(path, &checkpoint, true, true, error);
        checkpoint.tensors = NULL;
    }
    if (ok)
        *loaded = loaded_of(&checkpoint);
    checkpoint_free(&checkpoint);
    return ok;
}

/* Newest first, of those up to a step; none is found where *loaded is without moments. A damaged file is passed over
 * with a warning, one that belongs to another model is an error. */
static bool read_newest(struct trainer *trainer, uint64_t up_to, struct checkpoint_tensor *tensors,
                        struct loaded *loaded, struct error *error)
{
    char **paths;
    size_t count;
    bool ok = false, wrong_model = false;
    loaded->with_moments = false;
    if (!checkpoint_list(&paths, &count, run_log_checkpoints(trainer->log), error))
        return false;
    for (size_t i = 0; i < count && !ok && !wrong_model; i++) {
        if (checkpoint_step_of(paths[i]) > up_to)
            continue;
        ok = read_checkpoint(trainer, paths[i], tensors, loaded, error);
        wrong_model = !ok && error->status == ERROR_INPUT;
        if (!ok && !wrong_model)
            progress_warn(&trainer->progress, "%s; trying the checkpoint before it", error->message);
    }
    checkpoint_list_free(paths, count);
    return !wrong_model;
}

/* A run that was killed before its first checkpoint. */
static bool is_without_checkpoints(const struct trainer *trainer)
{
    char **paths, *config = file_path(trainer->options.run_directory, "config.yaml");
    size_t count;
    struct error ignored;
    bool started = config && access(config, F_OK) == 0;
    free(config);
    if (!started || !checkpoint_list(&paths, &count, run_log_checkpoints(trainer->log), &ignored))
        return false;
    checkpoint_list_free(paths, count);
    return count == 0;
}

static bool read_files(struct trainer *trainer, const struct host_buffers *buffers, struct loaded *loaded,
                       struct error *error)
{
    const struct parameters *parameters = &trainer->model->parameters;
    bool anew = trainer->options.resume && is_without_checkpoints(trainer);
    if (anew)
        progress_say(&trainer->progress, "%s holds no checkpoint yet: starting from the beginning, with new parameters",
                     trainer->options.run_directory);
    if (anew || (!trainer->options.resume && !trainer->options.init)) {
        parameters_initialise(parameters, buffers->master, (uint64_t)trainer->config->train.seed);
        return true;
    }
    struct checkpoint_tensor *tensors = list_tensors(parameters, buffers);
    if (!tensors)
        return error_runtime(error, "out of memory for the list of tensors");
    bool ok;
    if (trainer->options.resume) {
        ok = read_newest(trainer, UINT64_MAX, tensors, loaded, error) &&
             (loaded->with_moments ||
              error_input(error, "--resume: %s holds no valid checkpoint", run_log_checkpoints(trainer->log)));
    } else {
        struct checkpoint checkpoint = {.tensors = tensors, .tensor_count = parameters->count};
        ok = checkpoint_read_tensors(trainer->options.init, &checkpoint, false, false, error);
    }
    free(tensors);
    return ok;
}

/* Sends rank 0's numbers to everybody's device. */
static bool distribute(struct trainer *trainer, struct host_buffers *buffers, const struct loaded *loaded,
                       struct error *error)
{
    struct model *model = trainer->model;
    size_t bytes = model->parameters.total * sizeof(float);
    if (!comm_broadcast(trainer->comm, buffers->master, bytes, 0, error) ||
        !model_set_parameters(model, buffers->master, error))
        return false;
    if (!loaded->with_moments)
        return true;
    return comm_broadcast(trainer->comm, buffers->m, bytes, 0, error) &&
           comm_broadcast(trainer->comm, buffers->v, bytes, 0, error) &&
           trainer->kernels->upload(model->context, model->m, buffers->m, bytes, error) &&
           trainer->kernels->upload(model->context, model->v, buffers->v, bytes, error) &&
           trainer->kernels->synchronise(model->context, error);
}

static void take(struct trainer *trainer, const struct loaded *loaded)
{
    trainer->step = trainer->saved_step = loaded->step;
    trainer->best_top1 = loaded->best_top1;
    trainer->gradient_limit = loaded->gradient_limit;
}

bool trainer_load(struct trainer *trainer, struct error *error)
{
    struct host_buffers buffers = {0};
    struct loaded loaded = {.best_top1 = -1, .lr_scale = 1};
    bool ok = open_buffers(&buffers, trainer, error);
    if (ok && comm_rank(trainer->comm) == 0)
        ok = read_files(trainer, &buffers, &loaded, error);
    ok = comm_agree(trainer->comm, ok, error) && comm_broadcast(trainer->comm, &loaded, sizeof loaded, 0, error) &&
         comm_agree(trainer->comm, distribute(trainer, &buffers, &loaded, error), error);
    close_buffers(&buffers);
    if (!ok)
        return false;
    take(trainer, &loaded);
    trainer->lr_scale = loaded.lr_scale;
    trainer->rewinds = loaded.rewinds;
    if (loaded.with_moments)
        progress_say(&trainer->progress, "resumed from step %llu", (unsigned long long)loaded.step);
    if (loaded.rewinds > 0)
        progress_say(&trainer->progress, "the learning rate is %g times the schedule's after %llu rewind%s",
                     loaded.lr_scale, (unsigned long long)loaded.rewinds, loaded.rewinds > 1 ? "s" : "");
    return true;
}

/* ---- going back ---- */

/* A step that went wrong says that the checkpoint right before it is no good: what would be read is at least one step
 * older. */
static bool read_good(struct trainer *trainer, const struct host_buffers *buffers, uint64_t since, uint64_t seen,
                      struct loaded *loaded, struct error *error)
{
    const uint64_t first_bad[] = {since, seen};
    struct checkpoint_tensor *tensors = list_tensors(&trainer->model->parameters, buffers);
    if (!tensors)
        return error_runtime(error, "out of memory for the list of tensors");
    bool ok = true;
    for (size_t i = 0; i < 2 && ok && !loaded->with_moments; i++)
        if (first_bad[i] >= 2)
            ok = read_newest(trainer, first_bad[i] - 2, tensors, loaded, error);
    free(tensors);
    return ok &&
           (loaded->with_moments || error_runtime(error, "no checkpoint from before step %llu is left to go back to",
                                                  (unsigned long long)seen - 1));
}

bool trainer_restore(struct trainer *trainer, uint64_t since, uint64_t seen, struct error *error)
{
    struct host_buffers buffers = {0};
    struct loaded loaded = {0};
    bool ok = open_buffers(&buffers, trainer, error);
    if (ok && comm_rank(trainer->comm) == 0)
        ok = read_good(trainer, &buffers, since, seen, &loaded, error);
    ok = comm_agree(trainer->comm, ok, error) && comm_broadcast(trainer->comm, &loaded, sizeof loaded, 0, error) &&
         comm_agree(trainer->comm, distribute(trainer, &buffers, &loaded, error), error);
    close_buffers(&buffers);
    if (ok)
        take(trainer, &loaded);
    return ok;
}

/* ---- saving ---- */

static bool write_file(struct trainer *trainer, struct error *error)
{
    struct model *model = trainer->model;
    struct host_buffers buffers = {0};
    size_t bytes = model->parameters.total * sizeof(float);
    bool ok = open_buffers(&buffers, trainer, error);
    if (ok && buffers.copies)
        ok = trainer->kernels->download(model->context, buffers.master, model->master, bytes, error) &&
             trainer->kernels->download(model->context, buffers.m, model->m, bytes, error) &&
             trainer->kernels->download(model->context, buffers.v, model->v, bytes, error) &&
             trainer->kernels->synchronise(model->context, error);
    char *yaml = ok ? config_format(trainer->config) : NULL;
    struct checkpoint checkpoint = {
        .step = trainer->step,
        .epoch = (uint64_t)trainer_epoch(trainer, trainer->step),
        .world_size = (uint64_t)comm_world_size(trainer->comm),
        .config = yaml,
        .class_names = trainer->class_names,
        .tensors = ok ? list_tensors(&model->parameters, &buffers) : NULL,
        .tensor_count = model->parameters.count,
        .channels = trainer->train.channels,
        .best_top1 = trainer->best_top1,
        .lr_scale = trainer->lr_scale,
        .rewinds = trainer->rewinds,
        .gradient_norm_count = trainer->gradient_limit.count,
    };
    memcpy(checkpoint.gradient_norms, trainer->gradient_limit.norms,
           checkpoint.gradient_norm_count * sizeof *checkpoint.gradient_norms);
    memcpy(checkpoint.mean, trainer->train.mean, sizeof checkpoint.mean);
    memcpy(checkpoint.std, trainer->train.std, sizeof checkpoint.std);
    if (ok && (!yaml || !checkpoint.tensors))
        ok = error_runtime(error, "out of memory for a checkpoint");
    ok = ok && checkpoint_write(run_log_checkpoints(trainer->log), &checkpoint, error);
    free(checkpoint.tensors);
    free(yaml);
    close_buffers(&buffers);
    return ok;
}

static void say_not_saved(struct trainer *trainer, const struct error *cause)
{
    struct error log_error;
    struct event event = {
        .step = trainer->step, .kind = EVENT_CHECKPOINT_FAILED, .severity = SEVERITY_WARNING, .layer = -1, .head = -1};
    memcpy(event.message, cause->message, sizeof event.message);
    progress_warn(&trainer->progress, "no checkpoint of step %llu: %s; the previous one is step %llu",
                  (unsigned long long)trainer->step, cause->message, (unsigned long long)trainer->saved_step);
    trainer_log_result(trainer, run_log_event(trainer->log, &event, &log_error), &log_error);
}

bool trainer_save_again(struct trainer *trainer, bool *saved, struct error *error)
{
    struct error cause;
    *saved = true;
    if (trainer->log) {
        *saved = write_file(trainer, &cause);
        if (!*saved)
            say_not_saved(trainer, &cause);
    }
    if (!comm_broadcast(trainer->comm, saved, sizeof *saved, 0, error))
        return false;
    if (!*saved)
        return true;
    trainer->saved_step = trainer->step;
    if (trainer->log && !checkpoint_prune(run_log_checkpoints(trainer->log), (size_t)trainer->config->checkpoint.keep,
                                          trainer->step, &cause))
        progress_warn(&trainer->progress, "%s", cause.message);
    return true;
}

bool trainer_save(struct trainer *trainer, bool *saved, struct error *error)
{
    *saved = true;
    return (trainer->saved_step == trainer->step && trainer->step > 0) || trainer_save_again(trainer, saved, error);
}

void trainer_mark_best(struct trainer *trainer)
{
    struct error cause;
    if (trainer->log && !checkpoint_mark_best(run_log_checkpoints(trainer->log), trainer->step, &cause))
        progress_warn(&trainer->progress, "%s", cause.message);
}
