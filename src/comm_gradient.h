/* What comm.c asks of a way to all-reduce gradients: MPI for host memory (comm_gradient_mpi.c), NCCL for device memory
 * (comm_gradient_nccl.c). The public functions are in comm.h. */
#ifndef QUEST_COMM_GRADIENT_H
#define QUEST_COMM_GRADIENT_H

#include <mpi.h>

#include "src/comm.h"

struct comm_gradient; /* each backend's own state */

struct comm_gradient_backend {
    const char *name;
    size_t (*scratch_bytes)(const struct comm *comm, const struct comm_gradient_options *options);
    /* Collective. */
    bool (*open)(struct comm_gradient **state, struct comm *comm, const struct comm_gradient_options *options,
                 struct error *error);
    bool (*ready)(struct comm_gradient *state, size_t done, struct error *error);
    bool (*progress)(struct comm_gradient *state, struct error *error);
    bool (*finish)(struct comm_gradient *state, uint64_t step, double *wait_s, struct error *error);
    void (*close)(struct comm_gradient *state);
};

extern const struct comm_gradient_backend comm_gradient_mpi;
extern const struct comm_gradient_backend comm_gradient_nccl; /* only in a build with CUDA */

MPI_Comm comm_mpi(const struct comm *comm);
/* Name of the host that a rank runs on. */
const char *comm_host_of(const struct comm *comm, int rank);

/* After a collective has not ended in time: ranks that wait tell each other so for a few seconds; writes the first rank
 * that kept silent to *rank, or -1 where all are waiting (the network, then, not a rank). */
bool comm_find_silent_rank(struct comm *comm, int *rank, struct error *error);

/* Fills `error` after a gradient all-reduce that did not end in time: which rank is silent, or that all wait. false. */
bool comm_gradient_timed_out(struct comm *comm, uint64_t step, double timeout_s, struct error *error);

/* Bucket b is gradient[start(b) .. start(b + 1)). */
static inline size_t comm_bucket_count(const struct comm_gradient_options *options)
{
    size_t per_bucket = (size_t)(options->bucket_mib * 1048576.0 / sizeof(float)) / 64 * 64;
    if (per_bucket == 0)
        per_bucket = 64;
    return (options->count + per_bucket - 1) / per_bucket;
}
static inline size_t comm_bucket_start(const struct comm_gradient_options *options, size_t bucket)
{
    size_t per_bucket = (size_t)(options->bucket_mib * 1048576.0 / sizeof(float)) / 64 * 64;
    if (per_bucket == 0)
        per_bucket = 64;
    size_t start = bucket * per_bucket;
    return start < options->count ? start : options->count;
}

#endif
