/* Gradients in device memory, summed with NCCL on the communication stream.
 *
 *   compute        backward ... |bucket 0 done| ... |bucket 1 done| ......... |waits| optimiser
 *   communication                \ all-reduce 0      \ all-reduce 1 |reduced| /
 *
 * The host only queues: each bucket waits on the device for the backward pass, and the optimiser for the last bucket.
 * So a rank that hangs would not be noticed by the host until it waits for the step, and then for ever: a watchdog
 * thread looks at the newest `reduced` event and at NCCL's asynchronous errors; on a time-out or an error it aborts the
 * communicator, which lets the streams run dry, and the next call here returns the error. Gradients of that step are
 * undefined, so whoever keeps results of a step (a checkpoint) asks progress first. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cuda_streams.h"
#include "src/base/clock.h"
#include "src/comm/gradient_backend.h"
#include "src/comm/mpi.h"
#include "src/comm/nccl_library.h"

#define POLL_S  0.001 /* while NCCL says "in progress" */
#define WATCH_S 0.1
#define CLOSE_S 5.0

/* One step's reduction, for the time that the step was held up and for the watchdog. */
struct reduction {
    cudaEvent_t backward_done, reduced;
    uint64_t step;
    double since_s; /* when finish queued it; 0: never */
};

struct gradient_state {
    struct comm *comm;
    struct comm_gradient_options options;
    struct cuda_streams streams;
    struct nccl_library library;
    ncclComm_t nccl;
    void *wire; /* bfloat16 [count], NULL for float32 */
    size_t buckets, started;
    cudaEvent_t bucket_done;
    struct reduction reductions[2]; /* this step's and the last one's */
    int current;

    pthread_t watchdog;
    bool watching;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t wake;
    bool stop;
    struct reduction *watched; /* the newest; NULL before the first */
    ncclResult_t failure;      /* what NCCL reported, or ncclInProgress for a time-out */
    bool failed;
    uint64_t failed_step;
};

static void pause_s(double seconds)
{
    nanosleep(&(struct timespec){(time_t)seconds, (long)(1e9 * fmod(seconds, 1))}, NULL);
}

static bool nccl_failed(const struct nccl_library *library, const char *call, ncclResult_t result, ncclComm_t nccl,
                        struct error *error)
{
    const char *detail = nccl ? library->ncclGetLastError(nccl) : "";
    return error_runtime(error, "%s: %s%s%.300s (NCCL_DEBUG=WARN says more)", call, library->ncclGetErrorString(result),
                         detail && *detail ? ": " : "", detail ? detail : "");
}

/* A call on a non-blocking communicator is done when its asynchronous error is no longer ncclInProgress. */
static bool nccl_done(const struct gradient_state *state, ncclResult_t result, double timeout_s, const char *call,
                      struct error *error)
{
    for (double deadline = clock_s() + timeout_s; result == ncclInProgress; pause_s(POLL_S)) {
        ncclResult_t asked = state->library.ncclCommGetAsyncError(state->nccl, &result);
        if (asked != ncclSuccess)
            return nccl_failed(&state->library, call, asked, state->nccl, error);
        if (result == ncclInProgress && clock_s() > deadline)
            return error_runtime(error, "%s did not end within comm.timeout_s = %g s", call, timeout_s);
    }
    return result == ncclSuccess ? true : nccl_failed(&state->library, call, result, state->nccl, error);
}

/* ---- before training: who is where ---- */

struct place {
    char pci[16]; /* bus id of the GPU */
    int nccl_version;
};

static bool same_gpu(struct comm *comm, const struct place *places, int a, int b, struct error *error)
{
    if (strcmp(places[a].pci, places[b].pci) != 0 || strcmp(comm_host_of(comm, a), comm_host_of(comm, b)) != 0)
        return false;
    error_input(error,
                "ranks %d and %d share GPU %s on host %s; each rank needs its own: start fewer ranks there (mpirun "
                "--map-by ppr:N:node) or check CUDA_VISIBLE_DEVICES",
                a, b, places[a].pci, comm_host_of(comm, a));
    return true;
}

/* All ranks see the same places, so all come to the same error. */
static bool check_places(struct comm *comm, const struct place *places, struct error *error)
{
    for (int rank = 0; rank < comm_world_size(comm); rank++) {
        if (places[rank].nccl_version != places[0].nccl_version)
            return error_input(error,
                               "rank 0 (%s) has NCCL %d and rank %d (%s) has NCCL %d; install the same version on all "
                               "hosts (LD_LIBRARY_PATH may point to another one)",
                               comm_host_of(comm, 0), places[0].nccl_version, rank, comm_host_of(comm, rank),
                               places[rank].nccl_version);
        for (int other = 0; other < rank; other++)
            if (same_gpu(comm, places, other, rank, error))
                return false;
    }
    return true;
}

static bool exchange_places(struct gradient_state *state, struct error *error)
{
    struct comm *comm = state->comm;
    struct place mine = {{0}, 0}, *all = calloc((size_t)comm_world_size(comm), sizeof *all);
    if (!all)
        return error_runtime(error, "out of memory for the list of GPUs");
    bool ok = CUDA_TRY(cudaDeviceGetPCIBusId(mine.pci, sizeof mine.pci, state->streams.device), error);
    ncclResult_t version = state->library.ncclGetVersion(&mine.nccl_version);
    if (ok && version != ncclSuccess)
        ok = nccl_failed(&state->library, "ncclGetVersion", version, NULL, error);
    /* Also a rank that failed takes part, or the others would wait for it. */
    int code = MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, comm_mpi(comm));
    if (ok && code != MPI_SUCCESS)
        ok = error_runtime(error, "MPI_Allgather of the ranks' GPUs failed");
    ok = comm_agree(comm, ok, error) && check_places(comm, all, error);
    free(all);
    return ok;
}

static bool join(struct gradient_state *state, struct error *error)
{
    struct comm *comm = state->comm;
    ncclUniqueId id;
    memset(&id, 0, sizeof id);
    ncclResult_t result = comm_rank(comm) == 0 ? state->library.ncclGetUniqueId(&id) : ncclSuccess;
    bool ok = result == ncclSuccess ? true : nccl_failed(&state->library, "ncclGetUniqueId", result, NULL, error);
    if (!comm_agree(comm, ok, error) || !comm_broadcast(comm, &id, sizeof id, 0, error))
        return false;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    result = state->library.ncclCommInitRankConfig(&state->nccl, comm_world_size(comm), id, comm_rank(comm), &config);
    ok = result == ncclSuccess || result == ncclInProgress
             ? nccl_done(state, result, state->options.timeout_s, "joining the ranks with NCCL", error)
             : nccl_failed(&state->library, "ncclCommInitRankConfig", result, NULL, error);
    return comm_agree(comm, ok, error);
}

/* ---- the watchdog ---- */

/* Not yet reached; an event that failed is none of ours to report. */
static bool pending(cudaEvent_t event)
{
    bool not_ready = cudaEventQuery(event) == cudaErrorNotReady;
    (void)cudaGetLastError(); /* "not ready" would come up as the next launch's error */
    return not_ready;
}

/* What is wrong now, if anything. ncclInProgress stands for a time-out. Called with the lock held. */
static ncclResult_t inspect(struct gradient_state *state)
{
    ncclResult_t result = ncclSuccess;
    if (state->library.ncclCommGetAsyncError(state->nccl, &result) != ncclSuccess)
        result = ncclInternalError;
    if (result != ncclSuccess && result != ncclInProgress)
        return result;
    const struct reduction *watched = state->watched;
    if (watched && pending(watched->reduced) && clock_s() - watched->since_s > state->options.timeout_s)
        return ncclInProgress;
    return ncclSuccess;
}

static void *watch(void *argument)
{
    struct gradient_state *state = argument;
    (void)cudaSetDevice(state->streams.device); /* it was set in the main thread: cannot fail here */
    pthread_mutex_lock(&state->lock);
    while (!state->stop && !state->failed) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += (long)(1e9 * WATCH_S);
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&state->wake, &state->lock, &until);
        ncclResult_t wrong = state->stop ? ncclSuccess : inspect(state);
        if (wrong == ncclSuccess)
            continue;
        state->failed = true;
        state->failure = wrong;
        state->failed_step = state->watched ? state->watched->step : 0;
        state->library.ncclCommAbort(state->nccl); /* the streams go on, and with them a host that waits for the step */
    }
    pthread_mutex_unlock(&state->lock);
    return NULL;
}

/* false with the watchdog's finding in `error`. */
static bool healthy(struct gradient_state *state, struct error *error)
{
    pthread_mutex_lock(&state->lock);
    bool failed = state->failed;
    pthread_mutex_unlock(&state->lock);
    if (!failed)
        return true;
    if (state->failure == ncclInProgress)
        return gradient_timed_out(state->comm, state->failed_step, state->options.timeout_s, error);
    int silent;
    if (comm_find_silent_rank(state->comm, &silent, error) && silent >= 0)
        return error_runtime(error, "rank %d (%s) left the gradient all-reduce after step %llu: NCCL: %s", silent,
                             comm_host_of(state->comm, silent), (unsigned long long)state->failed_step,
                             state->library.ncclGetErrorString(state->failure));
    return error_runtime(error, "the gradient all-reduce after step %llu failed: NCCL: %s (NCCL_DEBUG=WARN says more)",
                         (unsigned long long)state->failed_step, state->library.ncclGetErrorString(state->failure));
}

/* ---- the backend's table ---- */

static size_t nccl_scratch_bytes(const struct comm_gradient_options *options)
{
    return options->dtype == DTYPE_BFLOAT16 ? options->count * sizeof(uint16_t) : 0;
}

static void leave(struct gradient_state *state)
{
    struct error ignored;
    if (!state->nccl || state->failed)
        return; /* the watchdog aborted it */
    /* Finalising lets the other ranks finish reading our last bucket; one that is gone is not waited for long. */
    ncclResult_t result = state->library.ncclCommFinalize(state->nccl);
    if ((result == ncclSuccess || result == ncclInProgress) &&
        nccl_done(state, result, CLOSE_S, "ncclCommFinalize", &ignored))
        state->library.ncclCommDestroy(state->nccl);
    else
        state->library.ncclCommAbort(state->nccl);
}

static void nccl_close(struct gradient_state *state)
{
    if (!state)
        return;
    if (state->watching) {
        pthread_mutex_lock(&state->lock);
        state->stop = true;
        pthread_cond_signal(&state->wake);
        pthread_mutex_unlock(&state->lock);
        pthread_join(state->watchdog, NULL);
    }
    leave(state);
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
    pthread_cond_destroy(&state->wake);
    pthread_mutex_destroy(&state->lock);
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
    state->comm = comm;
    state->options = *options;
    state->streams = cuda_streams_of(options->context);
    state->buckets = bucket_count(options);
    pthread_mutex_init(&state->lock, NULL);
    pthread_cond_init(&state->wake, NULL);
    bool ok = nccl_library_open(&state->library, error) && prepare(state, error);
    if (!comm_agree(comm, ok, error) || !exchange_places(state, error) || !join(state, error))
        return false;
    state->watching = pthread_create(&state->watchdog, NULL, watch, state) == 0;
    return state->watching ? true : error_runtime(error, "the thread that watches NCCL could not be started");
}

/* Under the lock, so that the watchdog does not abort the communicator in the middle of a call. */
static bool reduce_bucket(struct gradient_state *state, void *data, size_t count, struct error *error)
{
    bool ok = false;
    pthread_mutex_lock(&state->lock);
    if (state->failed) {
        error_runtime(error, "NCCL had failed before");
    } else {
        ncclResult_t result = state->library.ncclAllReduce(data, data, count, state->wire ? ncclBfloat16 : ncclFloat32,
                                                           ncclSum, state->nccl, state->streams.communication);
        ok = result == ncclSuccess || result == ncclInProgress
                 ? nccl_done(state, result, state->options.timeout_s, "ncclAllReduce", error)
                 : nccl_failed(&state->library, "ncclAllReduce", result, state->nccl, error);
    }
    pthread_mutex_unlock(&state->lock);
    return ok;
}

static bool start_bucket(struct gradient_state *state, size_t bucket, struct error *error)
{
    struct context *ctx = state->options.context;
    size_t start = bucket_start(&state->options, bucket);
    size_t count = bucket_start(&state->options, bucket + 1) - start;
    float *gradient = state->options.gradient + start;
    void *data = gradient;
    if (!CUDA_TRY(cudaEventRecord(state->bucket_done, state->streams.compute), error) ||
        !CUDA_TRY(cudaStreamWaitEvent(state->streams.communication, state->bucket_done, 0), error))
        return false;
    if (state->wire) {
        data = (uint16_t *)state->wire + start;
        if (!cuda_wire_pack(ctx, data, gradient, count, error))
            return false;
    }
    return reduce_bucket(state, data, count, error) &&
           (!state->wire || cuda_wire_unpack(ctx, gradient, data, count, error));
}

static bool nccl_progress(struct gradient_state *state, struct error *error)
{
    return healthy(state, error);
}

static bool nccl_ready(struct gradient_state *state, size_t done, struct error *error)
{
    if (!healthy(state, error))
        return false;
    for (; state->started < state->buckets && bucket_start(&state->options, state->started + 1) <= done;
         state->started++)
        if (!start_bucket(state, state->started, error))
            return healthy(state, error) ? error_prefix(error, "gradient bucket %zu", state->started) : false;
    return true;
}

/* How long the step before was held up: known by now, and not without waiting for this one's. */
static double held_up_s(const struct reduction *last)
{
    float ms = 0;
    if (last->since_s == 0 || pending(last->reduced) ||
        cudaEventElapsedTime(&ms, last->backward_done, last->reduced) != cudaSuccess)
        return 0;
    return ms > 0 ? 1e-3 * ms : 0;
}

static bool nccl_finish(struct gradient_state *state, uint64_t step, double *wait_s, struct error *error)
{
    struct reduction *now = &state->reductions[state->current], *last = &state->reductions[1 - state->current];
    if (!healthy(state, error))
        return false;
    *wait_s = held_up_s(last);
    if (!CUDA_TRY(cudaEventRecord(now->backward_done, state->streams.compute), error) ||
        !CUDA_TRY(cudaEventRecord(now->reduced, state->streams.communication), error) ||
        !CUDA_TRY(cudaStreamWaitEvent(state->streams.compute, now->reduced, 0), error))
        return false;
    pthread_mutex_lock(&state->lock);
    now->step = step;
    now->since_s = clock_s();
    state->watched = now;
    pthread_mutex_unlock(&state->lock);
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
