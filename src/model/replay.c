/* Which passes are recorded, and when one is replayed. */
#include "src/model/replay.h"

#include <stdlib.h>

#include "src/base/clock.h"
#include "src/base/profile.h"

/* A step's passes come in two input slots, with and without statistics, first of a step or not, and two numbers of
 * images are enough. */
enum { MOST_RECORDINGS = 16, WARM_UP = 2, MEASURED = 3, FIRST_MARK = 6 };

/* Of the device's time that launching may take before it is worth a recording: the host has the loader and the log to
 * see to as well. */
#define WORTH 0.5

struct seen_pass {
    struct model_pass pass;
    bool used, first;            /* first: of a step, which writes gradients that later ones add to (model.h) */
    struct recording *recording; /* NULL: launched once so far */
};

struct replays {
    enum switch_mode mode; /* SWITCH_AUTO until it has been measured */
    int passes;
    double host_s, device_s; /* the least of those that were measured */
    struct seen_pass seen[MOST_RECORDINGS];
    size_t next; /* to be replaced */
};

bool replays_open(struct replays **out, enum switch_mode mode, struct error *error)
{
    struct replays *replays = *out = calloc(1, sizeof *replays);
    if (!replays)
        return error_runtime(error, "out of memory for recorded passes");
    replays->mode = mode;
    return true;
}

void replays_close(struct replays *replays, struct model *model)
{
    struct error ignored;
    if (!replays)
        return;
    for (size_t i = 0; i < MOST_RECORDINGS; i++)
        if (replays->seen[i].recording) {
            model->kernels->synchronise(model->context, &ignored);
            model->kernels->forget(model->context, replays->seen[i].recording);
        }
    free(replays);
}

static bool launch(struct model *model, const struct model_pass *pass, model_gradient_ready ready, void *owner,
                   struct error *error)
{
    const struct model_targets targets = {pass->labels, true, pass->loss};
    model->draws = pass->draws;
    return PROFILED("forward", model_forward(model, pass->pixels, pass->batch, true, pass->with_statistics, error) &&
                                   model_loss(model, &targets, pass->batch, pass->gradient_scale, error)) &&
           PROFILED("backward", model_backward(model, pass->batch, true, ready, owner, error));
}

/* ---- auto: what launching costs ---- */

/* With nothing queued before, so that the host is not held up by a full queue; the first passes load and choose
 * kernels. */
static bool launch_and_measure(struct model *model, const struct model_pass *pass, struct error *error)
{
    struct replays *replays = model->replays;
    const struct kernels *kernels = model->kernels;
    double device_s = 0;
    int number = replays->passes++;
    if (number < WARM_UP)
        return launch(model, pass, NULL, NULL, error);
    if (!kernels->synchronise(model->context, error) || !kernels->mark(model->context, FIRST_MARK, error))
        return false;
    double begin = clock_s();
    bool ok = launch(model, pass, NULL, NULL, error);
    double host_s = clock_s() - begin;
    if (!ok || !kernels->mark(model->context, FIRST_MARK + 1, error) ||
        !kernels->elapsed(model->context, FIRST_MARK, FIRST_MARK + 1, &device_s, error))
        return false;
    bool first = number == WARM_UP;
    replays->host_s = first || host_s < replays->host_s ? host_s : replays->host_s;
    replays->device_s = first || device_s < replays->device_s ? device_s : replays->device_s;
    if (replays->passes == WARM_UP + MEASURED)
        replays->mode = replays->host_s > WORTH * replays->device_s ? SWITCH_ON : SWITCH_OFF;
    return true;
}

/* ---- recording ---- */

static bool same_draws(const struct model_draws *a, const struct model_draws *b)
{
    return a->path_scale == b->path_scale && a->erase == b->erase && a->box == b->box && a->sample == b->sample &&
           a->noise_seed == b->noise_seed && a->partner == b->partner && a->partner_labels == b->partner_labels &&
           a->weight == b->weight;
}

static bool same_loss(const struct model_loss_kind *a, const struct model_loss_kind *b)
{
    return a->kind == b->kind && a->smoothing == b->smoothing && a->bce_threshold == b->bce_threshold &&
           a->bce_sum == b->bce_sum;
}

static bool same_pass(const struct model_pass *a, const struct model_pass *b)
{
    return a->pixels == b->pixels && a->labels == b->labels && same_draws(&a->draws, &b->draws) &&
           a->batch == b->batch && a->with_statistics == b->with_statistics && same_loss(&a->loss, &b->loss) &&
           a->gradient_scale == b->gradient_scale;
}

/* *before: whether it was launched before, so that whatever a first launch does once has been done. */
static struct seen_pass *look_up(struct model *model, const struct model_pass *pass, bool *before)
{
    struct replays *replays = model->replays;
    struct error ignored; /* a failed kernel: whoever waits next is told */
    for (size_t i = 0; i < MOST_RECORDINGS; i++)
        if (replays->seen[i].used && replays->seen[i].first == model->first_backward &&
            same_pass(&replays->seen[i].pass, pass)) {
            *before = true;
            return &replays->seen[i];
        }
    struct seen_pass *seen = &replays->seen[replays->next];
    replays->next = (replays->next + 1) % MOST_RECORDINGS;
    if (seen->recording) {
        (void)model->kernels->synchronise(model->context, &ignored);
        model->kernels->forget(model->context, seen->recording);
    }
    *seen = (struct seen_pass){.pass = *pass, .used = true, .first = model->first_backward};
    *before = false;
    return seen;
}

static bool record(struct model *model, const struct model_pass *pass, struct recording **recording,
                   struct error *error)
{
    struct error later;
    if (!model->kernels->record_begin(model->context, error))
        return false;
    bool launched = launch(model, pass, NULL, NULL, error);
    bool ended = model->kernels->record_end(model->context, recording, launched ? error : &later);
    if (launched || !ended)
        return launched && ended;
    model->kernels->forget(model->context, *recording);
    *recording = NULL;
    return false;
}

bool model_run_pass(struct model *model, const struct model_pass *pass, model_gradient_ready ready, void *owner,
                    struct error *error)
{
    struct replays *replays = model->replays;
    bool before;
    if (ready || !model->kernels->replay || replays->mode == SWITCH_OFF)
        return launch(model, pass, ready, owner, error);
    if (replays->mode == SWITCH_AUTO)
        return launch_and_measure(model, pass, error);
    struct seen_pass *seen = look_up(model, pass, &before);
    if (!before)
        return launch(model, pass, NULL, NULL, error);
    if (!seen->recording && !record(model, pass, &seen->recording, error))
        return error_prefix(error, "a step could not be recorded as a CUDA graph (train.graph: off does without)");
    model->first_backward = false; /* as model_backward leaves it */
    return model->kernels->replay(model->context, seen->recording, error);
}
