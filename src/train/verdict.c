/* From the numbers of a step to events, and to what the configuration wants done about them. */
#include "src/train/verdict.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct diagnosis_options options_of(const struct config *config, size_t tokens)
{
    struct diagnosis_options options = diagnosis_defaults();
    options.kind = config->attention.kind;
    options.tokens = tokens;
    diagnosis_set_limits(&options, &(struct diagnosis_limits){.horizon_steps = config->diagnosis.horizon_steps,
                                                              .logit_critical = config->diagnosis.logit_critical,
                                                              .entropy_critical = config->diagnosis.entropy_critical,
                                                              .key_outlier = config->diagnosis.key_outlier,
                                                              .spike_z = config->diagnosis.spike_z});
    return options;
}

static void decide(struct trainer_diagnosis *diagnosis, const struct event *event)
{
    enum diagnosis_action action = event->severity == SEVERITY_CRITICAL  ? diagnosis->config->diagnosis.on_critical
                                   : event->severity == SEVERITY_WARNING ? diagnosis->config->diagnosis.on_warning
                                                                         : DIAGNOSIS_ACTION_LOG;
    struct trainer_decision *decision = &diagnosis->decision;
    if (action == DIAGNOSIS_ACTION_REWIND && event->kind == EVENT_RANK_SKEW)
        return; /* no checkpoint makes a rank faster */
    if (action == decision->action && event->since < decision->since)
        decision->since = event->since;
    if (action <= decision->action)
        return;
    decision->action = action;
    decision->step = event->step;
    decision->since = event->since;
    snprintf(decision->why, sizeof decision->why, "step %llu: %.400s", (unsigned long long)event->step, event->message);
}

static void raise_event(void *owner, const struct event *event)
{
    struct trainer_diagnosis *diagnosis = owner;
    struct error error;
    if (!run_log_event(diagnosis->log, event, &error))
        progress_warn(diagnosis->progress, "%s; the training goes on", error.message);
    if (event->severity >= SEVERITY_WARNING)
        progress_say(diagnosis->progress, "step %llu: %s: %s: %s. %s", (unsigned long long)event->step,
                     severity_name(event->severity), event_kind_name(event->kind), event->message, event->advice);
    decide(diagnosis, event);
}

bool trainer_diagnosis_open(struct trainer_diagnosis *diagnosis, struct comm *comm, struct run_log *log,
                            struct progress *progress, const struct config *config, size_t tokens, struct error *error)
{
    *diagnosis = (struct trainer_diagnosis){
        .enabled = config->diagnosis.enabled,
        .comm = comm,
        .log = log,
        .progress = progress,
        .config = config,
        .tokens = tokens,
    };
    size_t ranks = (size_t)comm_world_size(comm);
    if (!diagnosis->enabled)
        return true;
    if (ranks > 1 && !(diagnosis->rank_numbers = calloc(2 * ranks, sizeof *diagnosis->rank_numbers)))
        return error_runtime(error, "out of memory for the diagnosis");
    return trainer_diagnosis_restart(diagnosis, error);
}

bool trainer_diagnosis_restart(struct trainer_diagnosis *diagnosis, struct error *error)
{
    diagnosis->decision = (struct trainer_decision){0};
    diagnosis_close(diagnosis->rules);
    diagnosis->rules = NULL;
    struct diagnosis_options options = options_of(diagnosis->config, diagnosis->tokens);
    return !diagnosis->enabled || comm_rank(diagnosis->comm) != 0 ||
           diagnosis_open(&diagnosis->rules, &options, raise_event, diagnosis, error);
}

void trainer_diagnosis_close(struct trainer_diagnosis *diagnosis)
{
    diagnosis_close(diagnosis->rules);
    free(diagnosis->rank_numbers);
    *diagnosis = (struct trainer_diagnosis){0};
}

bool trainer_diagnosis_step(struct trainer_diagnosis *diagnosis, const struct metrics_record *metrics, double own_loss,
                            double own_seconds, struct error *error)
{
    if (!diagnosis->enabled || !isfinite(metrics->grad_norm))
        return true;
    size_t ranks = (size_t)comm_world_size(diagnosis->comm), rank = (size_t)comm_rank(diagnosis->comm);
    double *numbers = diagnosis->rank_numbers;
    if (ranks > 1) {
        memset(numbers, 0, 2 * ranks * sizeof *numbers);
        numbers[rank] = own_seconds;
        numbers[ranks + rank] = own_loss;
        if (!comm_reduce(diagnosis->comm, numbers, 2 * ranks, COMM_SUM, error))
            return false;
    }
    if (!diagnosis->rules)
        return true;
    diagnosis_step(diagnosis->rules, metrics->step, metrics->loss, metrics->grad_norm);
    if (ranks > 1)
        diagnosis_ranks(diagnosis->rules, metrics->step, numbers, numbers + ranks, ranks);
    return true;
}

void trainer_diagnosis_norms(struct trainer_diagnosis *diagnosis, const struct norm_record *record)
{
    struct error error;
    if (diagnosis->rules && !diagnosis_norms(diagnosis->rules, record, &error))
        progress_warn(diagnosis->progress, "%s; the training goes on", error.message);
}

bool trainer_diagnosis_decide(struct trainer_diagnosis *diagnosis, struct error *error)
{
    const struct config *config = diagnosis->config;
    bool can_act =
        config->diagnosis.on_warning > DIAGNOSIS_ACTION_LOG || config->diagnosis.on_critical > DIAGNOSIS_ACTION_LOG;
    return !diagnosis->enabled || !can_act ||
           comm_broadcast(diagnosis->comm, &diagnosis->decision, sizeof diagnosis->decision, 0, error);
}
