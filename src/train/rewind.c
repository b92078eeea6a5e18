/* Back to the last good checkpoint with a lower learning rate, as diagnosis.on_warning and on_critical may ask. */
#include "src/train/rewind.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/checkpoint/checkpoint.h"
#include "src/train/load.h"
#include "src/train/save.h"

bool trainer_may_rewind(const struct trainer *trainer)
{
    const struct config *config = trainer->config;
    return config->diagnosis.enabled && (config->diagnosis.on_warning == DIAGNOSIS_ACTION_REWIND ||
                                         config->diagnosis.on_critical == DIAGNOSIS_ACTION_REWIND);
}

/* What the device still had queued is of a run that is given up. */
static bool forget_steps(struct trainer *trainer, struct error *error)
{
    struct model *model = trainer->model;
    trainer->records[0].pending = trainer->records[1].pending = false;
    return trainer->kernels->synchronise(model->context, error) &&
           trainer->kernels->zero(model->context, model->sum_of_squares, 2 * (1 + model->depth) * sizeof(double),
                                  error);
}

/* The logs and checkpoints of the steps that are given up go to RUN/rewound/N. What fails here costs a warning. */
static void put_aside(struct trainer *trainer, char **directory)
{
    struct error error;
    bool best_moved = false;
    if (!run_log_put_aside(trainer->log, trainer->step, trainer->rewinds, directory, &error))
        progress_warn(&trainer->progress, "%s; the training goes on", error.message);
    if (*directory &&
        !checkpoint_put_aside(run_log_checkpoints(trainer->log), trainer->step, *directory, &best_moved, &error))
        progress_warn(&trainer->progress, "%s; the training goes on", error.message);
    if (best_moved)
        trainer->best_top1 = -1;
}

static void tell(struct trainer *trainer, const struct trainer_decision *decision, uint64_t left, const char *directory)
{
    struct event event = {.step = trainer->step,
                          .kind = EVENT_REWIND,
                          .severity = SEVERITY_WARNING,
                          .layer = -1,
                          .head = -1,
                          .value = trainer->lr_scale,
                          .threshold = NAN,
                          .since = decision->since};
    snprintf(event.message, sizeof event.message,
             "went back from step %llu to the checkpoint of step %llu and goes on with %.4g times the schedule's "
             "learning rate (rewind %llu of %lld), because %s; what was cut from the logs is in %s",
             (unsigned long long)left, (unsigned long long)trainer->step, trainer->lr_scale,
             (unsigned long long)trainer->rewinds, (long long)trainer->config->diagnosis.rewind_max, decision->why,
             directory ? directory : "no place");
    progress_say(&trainer->progress, "%s", event.message);
    trainer_log_event(trainer, &event);
}

bool trainer_rewind(struct trainer *trainer, struct error *error)
{
    struct trainer_decision decision = trainer->diagnosis.decision;
    uint64_t left = trainer->step;
    char *directory = NULL;
    bool saved;
    if (!comm_agree(trainer->comm, forget_steps(trainer, error), error))
        return false;
    if (!trainer_restore(trainer, decision.since, decision.step, error))
        return error_prefix(error, "the run was to go back, because %s", decision.why);
    trainer->rewinds++;
    trainer->lr_scale = fmax(trainer->lr_scale * trainer->config->diagnosis.rewind_lr_scale, DBL_MIN);
    if (trainer_is_first(trainer)) {
        put_aside(trainer, &directory);
        tell(trainer, &decision, left, directory);
    }
    free(directory);
    bool ok = trainer_open_input(trainer, trainer->step, trainer->last_step - trainer->step, error) &&
              trainer_diagnosis_restart(&trainer->diagnosis, error);
    /* The checkpoint is written once more, so that a run that is killed now remembers scale and count. */
    if (!comm_agree(trainer->comm, ok, error) ||
        !comm_broadcast(trainer->comm, &trainer->best_top1, sizeof trainer->best_top1, 0, error) ||
        !trainer_save_again(trainer, &saved, error))
        return false;
    trainer_restart_window(trainer, trainer->step);
    return true;
}
