/* Parameters and moments as the host sees them, for those who read and write files: in place on the CPU, else copies.
 */
#ifndef QUEST_TRAIN_HOST_COPY_H
#define QUEST_TRAIN_HOST_COPY_H

#include "src/checkpoint/checkpoint.h"
#include "src/train/state.h"

/* Flat, as struct model has them. */
struct host_copy {
    float *master, *m, *v;
    float *average; /* the whole, always a copy; NULL: there is none */
    bool copies;    /* the others are, too */
    float *memory;  /* of all that are */
};

/* Memory for them; what it holds is the model's own where it is no copy, else zeros. */
bool host_copy_open(struct host_copy *copy, struct trainer *trainer, struct error *error);
void host_copy_close(struct host_copy *copy);
/* Waits until they hold the model's numbers, but for the average (trainer_gather_average). */
bool host_copy_download(struct host_copy *copy, struct trainer *trainer, struct error *error);
/* Which of them were read. */
struct host_copy_parts {
    bool moments, average;
};
/* Rank 0's numbers to every rank's model; an average that was not read begins at the parameters. Collective. */
bool host_copy_distribute(struct host_copy *copy, struct trainer *trainer, struct host_copy_parts parts,
                          struct error *error);
/* The names and places of all tensors inside. Caller frees; NULL: out of memory. */
struct checkpoint_tensor *host_copy_tensors(const struct parameters *parameters, const struct host_copy *copy);

#endif
