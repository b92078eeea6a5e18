/* Gradients in device memory, summed with NCCL on the communication stream.
 *
 *   compute        backward ... |bucket 0 done| ... |bucket 1 done| ......... |waits| optimiser
 *   communication                \ all-reduce 0      \ all-reduce 1 |reduced| /
 *
 * The host only queues: each bucket waits on the device for the backward pass, and the optimiser for the last bucket.
 * NCCL starts a reduction from a thread of its own. The host does not wait for that either: it goes on with the
 * backward pass and settles the reduction when the next one is due, so that what must follow it on the stream does.
 * A rank that hangs would not be noticed before the host waits for the step, and then for ever: nccl_watch.h sees to
 * that. Gradients of a step whose communicator was aborted are undefined, so whoever keeps results of a step (a
 * checkpoint) asks progress first. */
#include <stdlib.h>

#include "kernels/cuda_streams.h"
#include "src/comm/gradient_backend.h"
#include "src/comm/nccl_watch.h"

/* One step's reduction, for the time that the step was held up. */
struct reduction {
    cudaEvent_t backward_done, reduced;
    bool queued;
};

struct gradient_state {
    struct comm_gradient_options options;
    struct cuda_streams streams;
    struct nccl_group group;
    struct nccl_watch *watch;
    void *wire; /* bfloat16 [count], NULL for float32 */
    size_t buckets, started;
    bool unsettled; /* NCCL was still at starting the bucket before `started` */
    cudaEvent_t bucket_done;
    struct reduction reductions[2]; /* this step's and the last one's */
    int current;
};

static size_t nccl_scratch_bytes(const struct comm_gradient_options *options)
{
    return options->dtype == DTYPE_BFLOAT16 ? options->count * sizeof(uint16_t) : 0;
}

static void nccl_close(struct gradient_state *state)
{
    struct error ignored;
    if (!state)
        return;
    nccl_watch_close(state->watch);
    (void)nccl_group_leave(&state->group, &ignored);
    if (state->bucket_done)
        cudaEventDestroy(state->bucket_done);
    for (int i = 0; i < 2; i++) {
        if (state->reductions[i].backward_done)
            cudaEventDestroy(state->reductions[i].backward_done);
        if (state->reductions[i].reduced)
            cudaEventDestroy(state->reductions[i].reduced);
    }
    if (state->wire)
        state->options.kernels->release(state->options.context, state->wire);
    free(state);
}

static bool prepare(struct gradient_state *state, struct error *error)
{
    const struct comm_gradient_options *options = &state->options;
    size_t wire_bytes = nccl_scratch_bytes(options);
    if (wire_bytes && !options->kernels->allocate(options->context, &state->wire, wire_bytes,
                                                  "gradients in bf16 on their way (comm.dtype)", error))
        return false;
    if (!CUDA_TRY(cudaEventCreateWithFlags(&state->bucket_done, cudaEventDisableTiming), error))
        return false;
    for (int i = 0; i < 2; i++)
        if (!CUDA_TRY(cudaEventCreate(&state->reductions[i].backward_done), error) ||
            !CUDA_TRY(cudaEventCreate(&state->reductions[i].reduced), error))
            return false;
    return true;
}

static bool nccl_open(struct gradient_state **out, struct comm *comm, const struct comm_gradient_options *options,
                      struct error *error)
{
    struct gradient_state *state = *out = calloc(1, sizeof *state);
    if (!state)
        return error_runtime(error, "out of memory for the gradient buckets");
    state->options = *options;
    state->streams = cuda_streams_of(options->context);
    state->group = (struct nccl_group){.comm = comm, .device = state->streams.device, .timeout_s = options->timeout_s};
    state->buckets = bucket_count(options);
    return comm_agree(comm, prepare(state, error), error) && nccl_group_join(&state->group, error) &&
           nccl_watch_open(&state->watch, &state->group, state->buckets, error);
}

/* ---- one bucket ---- */

static void *bucket_data(const struct gradient_state *state, size_t start)
{
    return state->wire ? (void *)((uint16_t *)state->wire + start) : state->options.gradient + start;
}

/* The sum of a bucket is queued: so is what follows it. */
static bool after_bucket(struct gradient_state *state, size_t bucket, struct error *error)
{
    size_t start = bucket_start(&state->options, bucket);
    size_t count = bucket_start(&state->options, bucket + 1) - start;
    return nccl_watch_end(state->watch, bucket, state->streams.communication, error) &&
           (!state->wire || cuda_wire_unpack(state->options.context, state->options.gradient + start,
                                             bucket_data(state, start), count, error));
}

static bool is_busy(struct gradient_state *state)
{
    if (!nccl_watch_enter(state->watch))
        return false;
    bool busy = nccl_group_is_busy(&state->group, ncclInProgress);
    nccl_watch_exit(state->watch);
    return busy;
}

/* Waits until NCCL has started the last bucket. */
static bool settle(struct gradient_state *state, struct error *error)
{
    if (!state->unsettled)
        return true;
    if (!nccl_watch_enter(state->watch))
        return error_runtime(error, "NCCL had failed before");
    bool ok = nccl_group_wait(&state->group, ncclInProgress, state->options.timeout_s, "ncclAllReduce", error);
    nccl_watch_exit(state->watch);
    state->unsettled = false;
    return ok && after_bucket(state, state->started - 1, error);
}

static bool reduce_bucket(struct gradient_state *state, void *data, size_t count, struct error *error)
{
    if (!nccl_watch_enter(state->watch))
        return error_runtime(error, "NCCL had failed before");
    const struct nccl_group *group = &state->group;
    ncclResult_t result = group->library.ncclAllReduce(data, data, count, state->wire ? ncclBfloat16 : ncclFloat32,
                                                       ncclSum, group->communicator, state->streams.communication);
    state->unsettled = nccl_group_is_busy(group, result);
    bool ok = state->unsettled || nccl_group_wait(group, result, state->options.timeout_s, "ncclAllReduce", error);
    nccl_watch_exit(state->watch);
    return ok;
}

static bool start_bucket(struct gradient_state *state, size_t bucket, struct error *error)
{
    size_t start = bucket_start(&state->options, bucket);
    size_t count = bucket_start(&state->options, bucket + 1) - start;
    void *data = bucket_data(state, start);
    return CUDA_TRY(cudaEventRecord(state->bucket_done, state->streams.compute), error) &&
           CUDA_TRY(cudaStreamWaitEvent(state->streams.communication, state->bucket_done, 0), error) &&
           (!state->wire ||
            cuda_wire_pack(state->options.context, data, state->options.gradient + start, count, error)) &&
           nccl_watch_begin(state->watch, bucket, state->streams.communication, error) &&
           reduce_bucket(state, data, count, error) && (state->unsettled || after_bucket(state, bucket, error));
}

/* ---- the backend's table ---- */

static bool nccl_progress(struct gradient_state *state, struct error *error)
{
    return nccl_watch_healthy(state->watch, error);
}

/* What the watch found says more than the call that failed because of it. */
static bool explain(struct gradient_state *state, size_t bucket, struct error *error)
{
    struct error found;
    if (nccl_watch_healthy(state->watch, &found))
        return error_prefix(error, "gradient bucket %zu", bucket);
    *error = found;
    return false;
}

static bool nccl_ready(struct gradient_state *state, size_t done, struct error *error)
{
    if (!nccl_watch_healthy(state->watch, error))
        return false;
    if (state->unsettled && !is_busy(state) && !settle(state, error))
        return explain(state, state->started - 1, error);
    for (; state->started < state->buckets && bucket_start(&state->options, state->started + 1) <= done;
         state->started++)
        if (!settle(state, error) || !start_bucket(state, state->started, error))
            return explain(state, state->started, error);
    return true;
}

/* How long the step before was held up: known by now, and not without waiting for this one's. */
static double held_up_s(const struct reduction *last)
{
    float ms = 0;
    if (!last->queued || nccl_event_is_pending(last->reduced) ||
        cudaEventElapsedTime(&ms, last->backward_done, last->reduced) != cudaSuccess)
        return 0;
    return ms > 0 ? 1e-3 * ms : 0;
}

static bool nccl_finish(struct gradient_state *state, uint64_t step, double *wait_s, struct error *error)
{
    struct reduction *now = &state->reductions[state->current], *last = &state->reductions[1 - state->current];
    if (!nccl_watch_healthy(state->watch, error))
        return false;
    *wait_s = held_up_s(last);
    if (!CUDA_TRY(cudaEventRecord(now->backward_done, state->streams.compute), error))
        return false;
    if (!settle(state, error))
        return explain(state, state->buckets - 1, error);
    if (!CUDA_TRY(cudaEventRecord(now->reduced, state->streams.communication), error) ||
        !CUDA_TRY(cudaStreamWaitEvent(state->streams.compute, now->reduced, 0), error))
        return false;
    now->queued = true;
    nccl_watch_step(state->watch, step);
    state->current = 1 - state->current;
    state->started = 0;
    return true;
}

const struct gradient_backend gradient_backend_nccl = {
    .name = "NCCL",
    .scratch_bytes = nccl_scratch_bytes,
    .open = nccl_open,
    .ready = nccl_ready,
    .progress = nccl_progress,
    .finish = nccl_finish,
    .close = nccl_close,
};
