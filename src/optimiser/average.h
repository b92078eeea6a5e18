/* A running average of the parameters (ema.decay), of which each rank keeps its share: all see the same parameters, so
 * nothing travels until somebody wants the whole.
 *
 *   without ema.warmup  DeiT's: from the first parameters on, average = decay average + (1 - decay) parameters
 *   with it             timm's ModelEmaV3: at step k + 1 with min(1 - (1 + k)^(-2/3), decay), so that the first copies
 * A step that was withheld counts as a step, and changes no average. */
#ifndef QUEST_OPTIMISER_AVERAGE_H
#define QUEST_OPTIMISER_AVERAGE_H

#include "src/config/config.h"
#include "src/model/model.h"
#include "src/optimiser/update.h"

/* Of the flat parameters: `count` numbers from `first` on, both multiples of 64. */
struct average_span {
    size_t first, count;
};
/* The share of a rank of `ranks`; the shares of all make up `total`, in their order. */
struct average_span average_span_of(size_t total, int rank, int ranks);

struct average {
    float *values; /* device, float32 [span.count]; NULL: there is no average */
    struct average_span span;
};

/* The decay of a step, counted from 1. */
double average_decay(const struct config *config, uint64_t step);
/* Memory for this rank's share, zeros; none where ema.decay is 0. The model outlives it. */
bool average_open(struct average *average, struct model *model, const struct config *config, int rank, int ranks,
                  struct error *error);
void average_close(struct average *average, struct model *model);
/* Queues a step of the average, after that of the parameters; nothing where there is none. */
bool average_follow(struct average *average, const struct model *model, const struct config *config,
                    const struct update *update, struct error *error);

#endif
