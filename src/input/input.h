/* From the loader's batches to device memory, one batch ahead: while the ops of a micro-step run, the pixels, labels
 * and draws of the next are copied up beside them. */
#ifndef QUEST_INPUT_INPUT_H
#define QUEST_INPUT_INPUT_H

#include "data_loaders/load/loader.h"
#include "kernels/kernels.h"
#include "src/input/draws.h"
#include "src/model/memory_plan.h"

struct input_options {
    const struct kernels *kernels;
    struct context *context;
    struct loader_options loader; /* allocate, release and owner are filled in by input_open */
    struct draw_options draws;    /* training */
};

/* What a micro-step reads; valid until the next input_next. */
struct input_batch {
    const uint8_t *pixels; /* device [count, patches, patch, patch, channels] */
    const int32_t *labels; /* device [count] */
    struct model_draws draws;
    const struct batch *host;
    size_t count;
};

struct input;

void input_plan(struct memory_plan *plan, const struct input_options *options, const char *name);
bool input_open(struct input **input, const struct input_options *options, struct error *error);
void input_close(struct input *input);
/* A batch of zeros in the memory of one that is to come, for use before the first input_next. */
struct input_batch input_blank(const struct input *input);
/* The next batch; count 0 after the last of an evaluation. wait_s: seconds that the host waited for the loader. */
bool input_next(struct input *input, struct input_batch *batch, double *wait_s, struct error *error);
/* Starts copying the batch after it; called when the ops of this one are queued. */
bool input_prefetch(struct input *input, double *wait_s, struct error *error);

#endif
