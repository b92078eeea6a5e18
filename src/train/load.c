/* Where the parameters come from: a checkpoint, another file's weights, or the seed. Rank 0 reads files; the others get
 * the numbers from it. */
#include "src/train/load.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/attention_kinds.h"
#include "src/checkpoint/checkpoint.h"
#include "src/config/load.h"
#include "src/files/file_output.h"
#include "src/train/host_copy.h"
#include "src/train/init.h"

/* What rank 0 read, for the others. */
struct loaded {
    uint64_t step, rewinds;
    double best_top1, lr_scale;
    struct gradient_limit gradient_limit;
    bool with_moments, with_average;
};

/* A checkpoint of another attention kind or optimiser may have the same tensors, and would train on without a
 * complaint. */
static bool check_kinds(const struct trainer *trainer, const struct checkpoint *header, const char *path,
                        struct error *error)
{
    struct config saved;
    if (!config_parse_model(&saved, header->config, strlen(header->config), path, error))
        return false;
    if (saved.attention.kind != trainer->config->attention.kind)
        return error_input(error, "%s: the checkpoint was trained with attention.kind %s, the configuration says %s",
                           path, attention_kind_name(saved.attention.kind),
                           attention_kind_name(trainer->config->attention.kind));
    if (saved.optim.kind != trainer->config->optim.kind)
        return error_input(
            error,
            "%s: the checkpoint was trained with optim.kind %s, the configuration says %s, which cannot go "
            "on from its moments; a new run can begin with its weights (--init)",
            path, optimiser_name(saved.optim.kind), optimiser_name(trainer->config->optim.kind));
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
        .with_average = checkpoint->has_average,
    };
    memcpy(loaded.gradient_limit.norms, checkpoint->gradient_norms,
           checkpoint->gradient_norm_count * sizeof *checkpoint->gradient_norms);
    return loaded;
}

static struct host_copy_parts parts_of(const struct loaded *loaded)
{
    return (struct host_copy_parts){.moments = loaded->with_moments, .average = loaded->with_average};
}

static bool read_checkpoint(struct trainer *trainer, const char *path, struct checkpoint_tensor *tensors,
                            struct loaded *loaded, struct error *error)
{
    struct checkpoint checkpoint = {0};
    bool ok = checkpoint_read_header(&checkpoint, path, error) && check_kinds(trainer, &checkpoint, path, error) &&
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

static bool read_files(struct trainer *trainer, const struct host_copy *copy, struct loaded *loaded,
                       struct error *error)
{
    const struct parameters *parameters = &trainer->model->parameters;
    bool anew = trainer->options.resume && is_without_checkpoints(trainer);
    if (anew)
        progress_say(&trainer->progress, "%s holds no checkpoint yet: starting from the beginning, with new parameters",
                     trainer->options.run_directory);
    if (anew || (!trainer->options.resume && !trainer->options.init)) {
        parameters_initialise(parameters, copy->master, (uint64_t)trainer->config->train.seed);
        return true;
    }
    struct checkpoint_tensor *tensors = host_copy_tensors(parameters, copy);
    if (!tensors)
        return error_runtime(error, "out of memory for the list of tensors");
    bool ok = trainer->options.resume
                  ? read_newest(trainer, UINT64_MAX, tensors, loaded, error) &&
                        (loaded->with_moments || error_input(error, "--resume: %s holds no valid checkpoint",
                                                             run_log_checkpoints(trainer->log)))
                  : trainer_init(trainer, tensors, error);
    free(tensors);
    return ok;
}

static void take(struct trainer *trainer, const struct loaded *loaded)
{
    trainer->step = trainer->saved_step = loaded->step;
    trainer->best_top1 = loaded->best_top1;
    trainer->gradient_limit = loaded->gradient_limit;
}

bool trainer_load(struct trainer *trainer, struct error *error)
{
    struct host_copy copy = {0};
    struct loaded loaded = {.best_top1 = -1, .lr_scale = 1};
    bool ok = host_copy_open(&copy, trainer, error);
    if (ok && trainer_is_first(trainer))
        ok = read_files(trainer, &copy, &loaded, error);
    ok = comm_agree(trainer->comm, ok, error) && comm_broadcast(trainer->comm, &loaded, sizeof loaded, 0, error) &&
         comm_agree(trainer->comm, host_copy_distribute(&copy, trainer, parts_of(&loaded), error), error);
    host_copy_close(&copy);
    if (!ok)
        return false;
    take(trainer, &loaded);
    trainer->lr_scale = loaded.lr_scale;
    trainer->rewinds = loaded.rewinds;
    if (loaded.with_moments)
        progress_say(&trainer->progress, "resumed from step %llu%s", (unsigned long long)loaded.step,
                     trainer->average.values && !loaded.with_average
                         ? "; its checkpoint has no average (ema.decay), which begins here"
                         : "");
    if (loaded.rewinds > 0)
        progress_say(&trainer->progress, "the learning rate is %g times the schedule's after %llu rewind%s",
                     loaded.lr_scale, (unsigned long long)loaded.rewinds, loaded.rewinds > 1 ? "s" : "");
    return true;
}

/* ---- going back ---- */

/* A step that went wrong says that the checkpoint right before it is no good: what would be read is at least one step
 * older. */
static bool read_good(struct trainer *trainer, const struct host_copy *copy, uint64_t since, uint64_t seen,
                      struct loaded *loaded, struct error *error)
{
    const uint64_t first_bad[] = {since, seen};
    struct checkpoint_tensor *tensors = host_copy_tensors(&trainer->model->parameters, copy);
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
    struct host_copy copy = {0};
    struct loaded loaded = {0};
    bool ok = host_copy_open(&copy, trainer, error);
    if (ok && trainer_is_first(trainer))
        ok = read_good(trainer, &copy, since, seen, &loaded, error);
    ok = comm_agree(trainer->comm, ok, error) && comm_broadcast(trainer->comm, &loaded, sizeof loaded, 0, error) &&
         comm_agree(trainer->comm, host_copy_distribute(&copy, trainer, parts_of(&loaded), error), error);
    host_copy_close(&copy);
    if (ok)
        take(trainer, &loaded);
    return ok;
}
