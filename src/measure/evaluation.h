/* Top-1, top-5 and loss over a dataset: every image exactly once, on any number of ranks. A damaged image is left out,
 * unless the loader is strict and ends the evaluation at it. */
#ifndef QUEST_MEASURE_EVALUATION_H
#define QUEST_MEASURE_EVALUATION_H

#include "src/comm/comm.h"
#include "src/input/input.h"
#include "src/model/model.h"

struct evaluation {
    double top1, top5, loss;  /* fractions; mean cross-entropy in nats, without smoothing */
    uint64_t images, damaged; /* that were counted; that were left out */
};

/* Collective. Runs the model over this rank's span of the dataset, as `input` (loader in evaluation mode) gives it.
 * logits: float32 [this rank's images, classes] in file order, or NULL. *stopped is set, and the results are void,
 * where a stop signal came. */
bool evaluate(struct evaluation *evaluation, struct model *model, struct comm *comm, const struct input_options *input,
              float *logits, bool *stopped, struct error *error);
/* Images of rank `rank`'s span: [rank * n / world_size, (rank + 1) * n / world_size). */
size_t evaluation_span(size_t images, size_t rank, size_t world_size);

#endif
