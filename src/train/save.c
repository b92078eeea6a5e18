/* Where the parameters go to: rank 0 writes a checkpoint, the others wait. */
#include "src/train/save.h"

#include <stdlib.h>
#include <string.h>

#include "src/train/average.h"
#include "src/train/host_copy.h"

static bool write_file(struct trainer *trainer, struct host_copy *copy, struct error *error)
{
    const struct model *model = trainer->model;
    bool ok = host_copy_download(copy, trainer, error);
    char *yaml = ok ? config_format(trainer->config) : NULL;
    struct checkpoint checkpoint = {
        .step = trainer->step,
        .epoch = (uint64_t)trainer_epoch(trainer, trainer->step),
        .world_size = (uint64_t)comm_world_size(trainer->comm),
        .config = yaml,
        .class_names = trainer->class_names,
        .tensors = ok ? host_copy_tensors(&model->parameters, copy) : NULL,
        .tensor_count = model->parameters.count,
        .has_average = copy->average != NULL,
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
    return ok;
}

static void say_not_saved(struct trainer *trainer, const struct error *cause)
{
    struct event event = {
        .step = trainer->step, .kind = EVENT_CHECKPOINT_FAILED, .severity = SEVERITY_WARNING, .layer = -1, .head = -1};
    memcpy(event.message, cause->message, sizeof event.message);
    progress_warn(&trainer->progress, "no checkpoint of step %llu: %s; the previous one is step %llu",
                  (unsigned long long)trainer->step, cause->message, (unsigned long long)trainer->saved_step);
    trainer_log_event(trainer, &event);
}

/* Collective where there is an average, of which every rank has a share; *saved as in trainer_save. */
static bool write_with_average(struct trainer *trainer, bool *saved, struct error *error)
{
    struct error cause;
    struct host_copy copy = {0};
    bool ok = true;
    *saved = !trainer_is_first(trainer) || host_copy_open(&copy, trainer, &cause);
    if (trainer->average.values)
        ok = comm_broadcast(trainer->comm, saved, sizeof *saved, 0, error) &&
             (!*saved || trainer_gather_average(trainer, copy.average, error));
    if (ok && trainer_is_first(trainer)) {
        *saved = *saved && write_file(trainer, &copy, &cause);
        if (!*saved)
            say_not_saved(trainer, &cause);
    }
    host_copy_close(&copy);
    return ok;
}

bool trainer_save_again(struct trainer *trainer, bool *saved, struct error *error)
{
    struct error cause;
    if (!write_with_average(trainer, saved, error) || !comm_broadcast(trainer->comm, saved, sizeof *saved, 0, error))
        return false;
    if (!*saved)
        return true;
    trainer->saved_step = trainer->step;
    if (trainer_is_first(trainer) && !checkpoint_prune(run_log_checkpoints(trainer->log),
                                                       (size_t)trainer->config->checkpoint.keep, trainer->step, &cause))
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
    if (trainer_is_first(trainer) && !checkpoint_mark_best(run_log_checkpoints(trainer->log), trainer->step, &cause))
        progress_warn(&trainer->progress, "%s", cause.message);
}
