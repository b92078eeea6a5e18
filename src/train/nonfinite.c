/* Where a NaN or Inf came from. When the host learns of one, the device may have gone on to the next step; since no
 * update was made from that moment on (adamw's earlier_sum_of_squares), the faulty step can be run again on its own
 * batch, and searched as it goes. Each rank looks at its own share: nothing is reduced, so no rank waits for another.
 */
#include "src/train/nonfinite.h"

#include <math.h>
#include <stdio.h>

struct finding {
    char name[128];
    long layer;
    size_t micro;
    bool found, in_gradient;
};

static bool look_at_micro_step(struct trainer *trainer, struct finding *finding, struct error *error)
{
    struct model *model = trainer->model;
    const struct config *config = trainer->config;
    struct input_batch batch;
    double wait_s = 0;
    if (!input_next(trainer->input, &batch, &wait_s, error))
        return false;
    const struct model_targets targets = {batch.labels, true, model_training_loss(config)};
    model->draws = batch.draws;
    if (!model_forward(model, batch.pixels, batch.count, true, false, error) ||
        !model_loss(model, &targets, batch.count, 1.0f / (float)config->train.batch_size, error) ||
        !model_find_nonfinite(model, batch.count, &finding->found, finding->name, sizeof finding->name, &finding->layer,
                              error))
        return false;
    if (finding->found)
        return true;
    finding->in_gradient = true;
    return model_backward(model, batch.count, true, NULL, NULL, error) &&
           model_find_nonfinite_gradient(model, &finding->found, finding->name, sizeof finding->name, &finding->layer,
                                         error);
}

static bool look(struct trainer *trainer, uint64_t step, struct finding *finding, struct error *error)
{
    if (!trainer_open_input(trainer, step - 1, 1, error) || !model_zero_gradient(trainer->model, error))
        return false;
    for (size_t micro = 0; micro < trainer->accumulate && !finding->found; micro++) {
        *finding = (struct finding){.layer = -1, .micro = micro};
        if (!look_at_micro_step(trainer, finding, error))
            return false;
    }
    return true;
}

/* The first finding in the order of computation, of the lowest rank that has it, for everybody. */
static bool share(struct trainer *trainer, struct finding *finding, int *speaker, struct error *error)
{
    int rank = comm_rank(trainer->comm), size = comm_world_size(trainer->comm);
    double first =
        finding->found ? (double)((2 * finding->micro + finding->in_gradient) * (size_t)size) + rank : INFINITY;
    if (!comm_reduce(trainer->comm, &first, 1, COMM_MIN, error))
        return false;
    *speaker = isfinite(first) ? (int)fmod(first, size) : 0;
    return comm_broadcast(trainer->comm, finding, sizeof *finding, *speaker, error);
}

static void describe(const struct trainer *trainer, uint64_t step, const struct finding *finding, int speaker,
                     char *text, size_t text_bytes)
{
    int length = snprintf(text, text_bytes, "step %llu met a NaN or Inf: ", (unsigned long long)step);
    text += length;
    text_bytes -= (size_t)length;
    if (finding->found && finding->layer >= 0)
        snprintf(text, text_bytes, "layer %ld: the first tensor that holds it is %s (rank %d)", finding->layer,
                 finding->name, speaker);
    else if (finding->found)
        snprintf(text, text_bytes, "the first tensor that holds it is %s (rank %d)", finding->name, speaker);
    else if (comm_world_size(trainer->comm) > 1)
        snprintf(text, text_bytes,
                 "run again it is finite on every rank: the sum of the gradients over the ranks overflowed, or a fault "
                 "of memory, device or network");
    else
        snprintf(text, text_bytes, "run again it is finite: a fault of memory or device");
}

static void log_event(struct trainer *trainer, uint64_t step, const struct finding *finding, const char *message)
{
    struct event event = {.step = step,
                          .kind = EVENT_NONFINITE,
                          .severity = SEVERITY_CRITICAL,
                          .layer = finding->layer,
                          .head = -1,
                          .value = NAN,
                          .threshold = NAN};
    snprintf(event.message, sizeof event.message, "%s", message);
    trainer_log_event(trainer, &event);
}

bool trainer_report_nonfinite(struct trainer *trainer, uint64_t step, struct error *error)
{
    struct finding finding = {.layer = -1};
    struct trainer_decision *decision = &trainer->diagnosis.decision;
    char what[512];
    int speaker;
    if (!comm_agree(trainer->comm, look(trainer, step, &finding, error), error) ||
        !share(trainer, &finding, &speaker, error) || !trainer_diagnosis_decide(&trainer->diagnosis, error))
        return false;
    describe(trainer, step, &finding, speaker, what, sizeof what);
    bool rewind = trainer->diagnosis.enabled && trainer->config->diagnosis.on_critical == DIAGNOSIS_ACTION_REWIND &&
                  decision->action != DIAGNOSIS_ACTION_STOP;
    if (rewind) {
        log_event(trainer, step, &finding, what);
        progress_warn(&trainer->progress, "%s", what);
        *decision = (struct trainer_decision){
            .action = DIAGNOSIS_ACTION_REWIND, .step = step, .since = step, .nonfinite = true};
        snprintf(decision->why, sizeof decision->why, "%s", what);
        return true;
    }
    char saved[1200] = "there is no checkpoint yet";
    if (trainer->saved_step > 0)
        snprintf(saved, sizeof saved, "the last good checkpoint is step %llu in %s",
                 (unsigned long long)trainer->saved_step, trainer->options.run_directory);
    error_runtime(error,
                  "%s; %s; lower optim.lr, set optim.clip_grad_norm, or read norms.jsonl to see which layer grew", what,
                  saved);
    log_event(trainer, step, &finding, error->message);
    return error_shared(error);
}
