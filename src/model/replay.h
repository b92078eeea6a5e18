/* Both passes over a batch, which are the same launches again and again: where launching them is what takes the time
 * (few images on a fast GPU), they are recorded once and replayed, with the same bits. */
#ifndef QUEST_MODEL_REPLAY_H
#define QUEST_MODEL_REPLAY_H

#include "src/model/model.h"

/* Everything that a pass depends on beside the model's own memory. */
struct model_pass {
    const uint8_t *pixels;
    const int32_t *labels;
    struct model_draws draws;
    size_t batch;
    bool with_statistics;
    struct model_loss_kind loss;
    float gradient_scale;
};

/* Queues model_forward, model_loss and model_backward. With `ready`, whose calls are between the launches, on backends
 * that cannot record, and where config->train.graph says off, launch by launch. Otherwise a pass is launched the first
 * time that it is seen, recorded the second and replayed from then on; with `auto` only if launching takes the host a
 * good part of what the device computes, which three early passes are waited for to measure. */
bool model_run_pass(struct model *model, const struct model_pass *pass, model_gradient_ready ready, void *owner,
                    struct error *error);

struct replays;
bool replays_open(struct replays **replays, enum switch_mode mode, struct error *error);
/* Before the context. */
void replays_close(struct replays *replays, struct model *model);

#endif
