/* Which backend sums the gradients, and what happens to them while a rank waits for something else. */
#include "src/comm/gradient.h"

#include <stdlib.h>

#include "src/comm/gradient_backend.h"

struct comm_gradient {
    struct comm *comm;
    const struct gradient_backend *backend;
    struct gradient_state *state;
    struct comm_waiting waiting;
};

static const struct gradient_backend *backend_for(const struct comm_gradient_options *options)
{
#ifndef QUEST_NO_CUDA
    if (options->kernels->stream(options->context))
        return &gradient_backend_nccl;
#endif
    (void)options;
    return &gradient_backend_mpi;
}

static bool has_work(const struct comm *comm, const struct comm_gradient_options *options)
{
    return comm_world_size(comm) > 1 || options->alone;
}

size_t comm_gradient_scratch_bytes(const struct comm *comm, const struct comm_gradient_options *options)
{
    return has_work(comm, options) ? backend_for(options)->scratch_bytes(options) : 0;
}

static bool progress_while_waiting(void *owner, struct error *error)
{
    return comm_gradient_progress(owner, error);
}

bool comm_gradient_open(struct comm_gradient **out, struct comm *comm, const struct comm_gradient_options *options,
                        struct error *error)
{
    *out = NULL;
    if (!has_work(comm, options))
        return true;
    struct comm_gradient *gradient = *out = calloc(1, sizeof *gradient);
    if (!gradient)
        return error_runtime(error, "out of memory for the gradient buckets");
    gradient->comm = comm;
    gradient->backend = backend_for(options);
    gradient->waiting = (struct comm_waiting){.function = progress_while_waiting, .owner = gradient};
    comm_set_timeout(comm, options->timeout_s);
    comm_while_waiting(comm, &gradient->waiting);
    return gradient->backend->open(&gradient->state, comm, options, error);
}

void comm_gradient_close(struct comm_gradient *gradient)
{
    if (!gradient)
        return;
    comm_no_longer_while_waiting(gradient->comm, &gradient->waiting);
    gradient->backend->close(gradient->state);
    free(gradient);
}

bool comm_gradient_ready(struct comm_gradient *gradient, size_t done, struct error *error)
{
    return !gradient || gradient->backend->ready(gradient->state, done, error);
}

bool comm_gradient_progress(struct comm_gradient *gradient, struct error *error)
{
    return !gradient || !gradient->state || gradient->backend->progress(gradient->state, error);
}

bool comm_gradient_finish(struct comm_gradient *gradient, uint64_t step, double *wait_s, struct error *error)
{
    *wait_s = 0;
    return !gradient || gradient->backend->finish(gradient->state, step, wait_s, error);
}
