/* What gradient.c asks of a way to all-reduce gradients: MPI for host memory (gradient_mpi.c), NCCL for device
 * memory (gradient_nccl.c). The public functions are in gradient.h. */
#ifndef QUEST_COMM_GRADIENT_BACKEND_H
#define QUEST_COMM_GRADIENT_BACKEND_H

#include <stdio.h>

#include "src/comm/gradient.h"

struct gradient_state; /* each backend's own */

struct gradient_backend {
    const char *name;
    size_t (*scratch_bytes)(const struct comm_gradient_options *options);
    /* Collective. */
    bool (*open)(struct gradient_state **state, struct comm *comm, const struct comm_gradient_options *options,
                 struct error *error);
    bool (*ready)(struct gradient_state *state, size_t done, struct error *error);
    bool (*progress)(struct gradient_state *state, struct error *error);
    bool (*finish)(struct gradient_state *state, uint64_t step, double *wait_s, struct error *error);
    void (*close)(struct gradient_state *state);
};

extern const struct gradient_backend gradient_backend_mpi;
extern const struct gradient_backend gradient_backend_nccl; /* only in a build with CUDA */

/* Fills `error` after a reduction that did not end in time. false. */
static inline bool gradient_timed_out(struct comm *comm, uint64_t step, double timeout_s, struct error *error)
{
    char what[64], where[64];
    snprintf(what, sizeof what, "the gradient all-reduce of step %llu", (unsigned long long)step);
    snprintf(where, sizeof where, "in the gradient all-reduce of step %llu", (unsigned long long)step);
    return comm_timed_out(comm, what, where, timeout_s, error);
}

/* Bucket b is gradient[b * bucket_numbers .. (b + 1) * bucket_numbers), the last one up to the end. */
static inline size_t bucket_numbers(const struct comm_gradient_options *options)
{
    size_t numbers = (size_t)(options->bucket_mib * 1048576.0 / sizeof(float)) / 64 * 64;
    return numbers > 0 ? numbers : 64;
}
static inline size_t bucket_count(const struct comm_gradient_options *options)
{
    size_t numbers = bucket_numbers(options);
    return (options->count + numbers - 1) / numbers;
}
static inline size_t bucket_start(const struct comm_gradient_options *options, size_t bucket)
{
    size_t start = bucket * bucket_numbers(options);
    return start < options->count ? start : options->count;
}

#endif
