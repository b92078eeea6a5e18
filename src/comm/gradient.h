/* The sum of a step's gradients over all ranks, bucket by bucket while the backward pass goes on. */
#ifndef QUEST_COMM_GRADIENT_H
#define QUEST_COMM_GRADIENT_H

#include "kernels/kernels.h"
#include "src/comm/comm.h"

struct comm_gradient;

struct comm_gradient_options {
    const struct kernels *kernels;
    struct context *context;
    float *gradient; /* device memory, `count` numbers, in the order in which the backward pass finishes them */
    size_t count;
    double bucket_mib;
    enum dtype dtype; /* on the wire */
    double timeout_s;
    bool alone; /* one rank goes through the motions too: a trial of NCCL on a machine with one GPU */
};
/* Cuts the buffer into buckets; scratch for a bf16 wire format is allocated here. With one rank there is nothing to
 * sum: *gradient is NULL (unless options->alone), which the functions below take. From here on waits for other ranks
 * end after timeout_s. Collective. */
bool comm_gradient_open(struct comm_gradient **gradient, struct comm *comm, const struct comm_gradient_options *options,
                        struct error *error);
/* Before comm_close. */
void comm_gradient_close(struct comm_gradient *gradient);
size_t comm_gradient_scratch_bytes(const struct comm *comm, const struct comm_gradient_options *options);
/* The backward pass has finished gradient[0 .. done): starts the all-reduce (sum) of every bucket that is now whole,
 * and progresses those under way. Does not block. */
bool comm_gradient_ready(struct comm_gradient *gradient, size_t done, struct error *error);
/* Lets pending reductions advance; called between ops. */
bool comm_gradient_progress(struct comm_gradient *gradient, struct error *error);
/* Waits for all buckets; `wait_s` = seconds that the step was held up. A rank that does not answer within timeout_s is
 * an error that names it, its host and the step. */
bool comm_gradient_finish(struct comm_gradient *gradient, uint64_t step, double *wait_s, struct error *error);

#endif
