/* Ranks and what they say to each other. Control messages and CPU gradients go over MPI; GPU gradients over NCCL
 * (comm_nccl.c) behind the same functions. */
#ifndef QUEST_COMM_H
#define QUEST_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "src/error.h"

struct comm;

/* MPI_Init; works without mpirun too (one rank). One struct a process. */
bool comm_open(struct comm **comm, int *argc, char ***argv, struct error *error);
void comm_close(struct comm *comm);
int comm_rank(const struct comm *comm);
int comm_world_size(const struct comm *comm);
int comm_local_rank(const struct comm *comm);
int comm_local_size(const struct comm *comm);
const char *comm_host(const struct comm *comm);

/* Collective: every rank calls it with its own outcome. Where all succeeded returns true; otherwise false on every
 * rank, and the error of the lowest failing rank is in everybody's `error` (prefixed with rank and host where it is
 * not rank 0's, which acts for all, nor everybody's). This is how one bad rank ends the job with one message. */
bool comm_agree(struct comm *comm, bool ok, struct error *error);
/* Ends the process: on an agreed error rank 0 prints it; a rank that is alone with its error prints it and aborts the
 * job. Never returns. */
_Noreturn void comm_exit(struct comm *comm, const struct error *error, bool agreed);

enum comm_operation { COMM_SUM, COMM_MIN, COMM_MAX };
bool comm_reduce(struct comm *comm, double *values, size_t count, enum comm_operation operation, struct error *error);
bool comm_broadcast(struct comm *comm, void *bytes, size_t count, int root, struct error *error);
/* Concatenates everybody's bytes on rank 0; counts [world_size]. */
bool comm_gather(struct comm *comm, void *all, const size_t *counts, const void *mine, size_t count,
                 struct error *error);

/* Whether any rank raised its flag, without holding up the step: begin starts the question, end (which every rank calls
 * at the same step) takes the answer. */
bool comm_any_begin(struct comm *comm, bool flag, struct error *error);
bool comm_any_end(struct comm *comm, bool *any, struct error *error);

/* ---- gradients ---- */

struct comm_gradient_options {
    const struct kernels *kernels;
    struct context *context;
    float *gradient; /* device memory, `count` numbers, in the order in which the backward pass finishes them */
    size_t count;
    double bucket_mib;
    enum dtype dtype; /* on the wire */
    double timeout_s;
};
/* Gives back what comm_gradient_plan took. */
void comm_gradient_close(struct comm *comm);
/* Cuts the buffer into buckets. Scratch for a bf16 wire format is allocated here. */
bool comm_gradient_plan(struct comm *comm, const struct comm_gradient_options *options, struct error *error);
size_t comm_gradient_scratch_bytes(const struct comm *comm, const struct comm_gradient_options *options);
/* The backward pass has finished gradient[0 .. done): starts the all-reduce (sum) of every bucket that is now whole,
 * and progresses those under way. Does not block. */
bool comm_gradient_ready(struct comm *comm, size_t done, struct error *error);
/* Lets pending reductions advance; called between ops. */
bool comm_gradient_progress(struct comm *comm, struct error *error);
/* Waits for all buckets; `wait_s` = seconds that the step was held up. A rank that does not answer within timeout_s is
 * an error that names it, its host and the step. */
bool comm_gradient_finish(struct comm *comm, uint64_t step, double *wait_s, struct error *error);

#endif
