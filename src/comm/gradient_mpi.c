/* Gradients in host memory, summed with MPI_Iallreduce, one request a bucket: started as soon as the backward pass has
 * finished the bucket, and moved on by MPI_Testsome between the ops (Open MPI advances a collective only inside calls).
 * With a bf16 wire format a bucket is rounded into scratch, summed by our own operator, and widened at the end. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/bfloat16.h"
#include "src/base/clock.h"
#include "src/comm/gradient_backend.h"
#include "src/comm/mpi.h"

struct gradient_state {
    struct comm *comm;
    struct comm_gradient_options options;
    MPI_Request *requests; /* [buckets] */
    size_t buckets, started;
    uint16_t *wire; /* [count] bf16, NULL for float32 */
    MPI_Op sum_bf16;
    MPI_Datatype bf16;
};

static void sum_bf16(void *in, void *in_out, int *count, MPI_Datatype *type)
{
    (void)type;
    const uint16_t *x = in;
    uint16_t *y = in_out;
    for (int i = 0; i < *count; i++)
        y[i] = bf16_from_float(float_from_bf16(x[i]) + float_from_bf16(y[i]));
}

static size_t mpi_scratch_bytes(const struct comm_gradient_options *options)
{
    return options->dtype == DTYPE_BFLOAT16 ? options->count * sizeof(uint16_t) : 0;
}

static void mpi_close(struct gradient_state *state)
{
    if (!state)
        return;
    if (state->sum_bf16 != MPI_OP_NULL)
        MPI_Op_free(&state->sum_bf16);
    if (state->bf16 != MPI_DATATYPE_NULL)
        MPI_Type_free(&state->bf16);
    free(state->requests);
    free(state->wire);
    free(state);
}

static bool mpi_open(struct gradient_state **out, struct comm *comm, const struct comm_gradient_options *options,
                     struct error *error)
{
    struct gradient_state *state = calloc(1, sizeof *state);
    *out = state;
    if (!state)
        return error_runtime(error, "out of memory for the gradient buckets");
    *state =
        (struct gradient_state){.comm = comm, .options = *options, .sum_bf16 = MPI_OP_NULL, .bf16 = MPI_DATATYPE_NULL};
    state->buckets = bucket_count(options);
    state->requests = malloc(state->buckets * sizeof *state->requests);
    if (options->dtype == DTYPE_BFLOAT16) {
        state->wire = malloc(options->count * sizeof *state->wire);
        if (!state->wire || MPI_Op_create(sum_bf16, 1, &state->sum_bf16) != MPI_SUCCESS ||
            MPI_Type_dup(MPI_UINT16_T, &state->bf16) != MPI_SUCCESS)
            return error_runtime(error, "the bf16 gradient reduction could not be set up");
    }
    return state->requests ? true : error_runtime(error, "out of memory for the gradient buckets");
}

static bool start_bucket(struct gradient_state *state, size_t bucket, struct error *error)
{
    size_t start = bucket_start(&state->options, bucket), end = bucket_start(&state->options, bucket + 1);
    void *data = state->options.gradient + start;
    MPI_Datatype type = MPI_FLOAT;
    MPI_Op op = MPI_SUM;
    if (state->wire) {
        for (size_t i = start; i < end; i++)
            state->wire[i] = bf16_from_float(state->options.gradient[i]);
        data = state->wire + start;
        type = state->bf16;
        op = state->sum_bf16;
    }
    if (MPI_Iallreduce(MPI_IN_PLACE, data, (int)(end - start), type, op, comm_mpi(state->comm),
                       &state->requests[bucket]) != MPI_SUCCESS)
        return error_runtime(error, "MPI_Iallreduce of gradient bucket %zu failed", bucket);
    return true;
}

static bool mpi_progress(struct gradient_state *state, struct error *error)
{
    int done;
    if (state->started == 0)
        return true;
    if (MPI_Testall((int)state->started, state->requests, &done, MPI_STATUSES_IGNORE) != MPI_SUCCESS)
        return error_runtime(error, "the gradient all-reduce failed");
    return true;
}

static bool mpi_ready(struct gradient_state *state, size_t done, struct error *error)
{
    while (state->started < state->buckets && bucket_start(&state->options, state->started + 1) <= done) {
        if (!start_bucket(state, state->started, error))
            return false;
        state->started++;
    }
    return mpi_progress(state, error);
}

static bool mpi_finish(struct gradient_state *state, uint64_t step, double *wait_s, struct error *error)
{
    double begin = clock_s(), deadline = begin + state->options.timeout_s;
    int done = 0;
    for (unsigned turn = 0; !done; turn++) {
        if (MPI_Testall((int)state->started, state->requests, &done, MPI_STATUSES_IGNORE) != MPI_SUCCESS)
            return error_runtime(error, "the gradient all-reduce of step %llu failed", (unsigned long long)step);
        if (!done && turn % 256 == 255 && clock_s() > deadline)
            return gradient_timed_out(state->comm, step, state->options.timeout_s, error);
    }
    if (state->wire)
        for (size_t i = 0; i < state->options.count; i++)
            state->options.gradient[i] = float_from_bf16(state->wire[i]);
    state->started = 0;
    *wait_s = clock_s() - begin;
    return true;
}

const struct gradient_backend gradient_backend_mpi = {
    .name = "MPI",
    .scratch_bytes = mpi_scratch_bytes,
    .open = mpi_open,
    .ready = mpi_ready,
    .progress = mpi_progress,
    .finish = mpi_finish,
    .close = mpi_close,
};
