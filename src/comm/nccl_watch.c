/* The watchdog over NCCL's reductions. */
#include "src/comm/nccl_watch.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/cuda_streams.h"
#include "src/base/clock.h"
#include "src/comm/gradient_backend.h"

#define WATCH_S 0.1

/* Events of one bucket on the communication stream, which is in order: at most one bucket has been reached and has not
 * ended. */
struct mark {
    cudaEvent_t reached, ended;
};

struct queued_step {
    struct mark *marks; /* [buckets] */
    uint64_t step;
    bool watched; /* all of it is queued */
};

struct nccl_watch {
    struct nccl_group *group;
    size_t buckets;

    pthread_t thread;
    bool running;
    pthread_mutex_t lock; /* of what follows, and of the communicator */
    pthread_cond_t wake;
    bool stop;
    struct queued_step steps[2]; /* the step that is being queued, or was queued last, and the one before */
    int current;

    const struct mark *under_way; /* what the device was in when it was last looked at, NULL for nothing */
    uint64_t step_under_way;
    double since_s;

    bool failed;
    ncclResult_t failure; /* what NCCL reported, or ncclInProgress for a time-out */
    uint64_t failed_step;
};

bool nccl_event_is_pending(cudaEvent_t event)
{
    bool not_ready = cudaEventQuery(event) == cudaErrorNotReady;
    (void)cudaGetLastError(); /* "not ready" would come up as the next launch's error */
    return not_ready;
}

/* The bucket that the device is in; NULL where it is in none. */
static const struct mark *find_under_way(const struct nccl_watch *watch, uint64_t *step)
{
    for (int i = 0; i < 2; i++)
        for (size_t bucket = 0; watch->steps[i].watched && bucket < watch->buckets; bucket++) {
            const struct mark *mark = &watch->steps[i].marks[bucket];
            *step = watch->steps[i].step;
            if (nccl_event_is_pending(mark->ended) && !nccl_event_is_pending(mark->reached))
                return mark;
        }
    return NULL;
}

/* What is wrong now, if anything. ncclInProgress stands for a time-out. Called with the lock held. */
static ncclResult_t inspect(struct nccl_watch *watch)
{
    ncclResult_t result = ncclSuccess;
    uint64_t step = 0;
    if (watch->group->library.ncclCommGetAsyncError(watch->group->communicator, &result) != ncclSuccess)
        result = ncclInternalError;
    if (result != ncclSuccess && result != ncclInProgress)
        return result;
    const struct mark *now = find_under_way(watch, &step);
    if (now != watch->under_way || step != watch->step_under_way)
        watch->since_s = clock_s();
    watch->under_way = now;
    watch->step_under_way = step;
    return now && clock_s() - watch->since_s > watch->group->timeout_s ? ncclInProgress : ncclSuccess;
}

static void *run(void *argument)
{
    struct nccl_watch *watch = argument;
    (void)cudaSetDevice(watch->group->device); /* it was set in the main thread: cannot fail here */
    pthread_mutex_lock(&watch->lock);
    while (!watch->stop && !watch->failed) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += (long)(1e9 * WATCH_S);
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&watch->wake, &watch->lock, &until);
        ncclResult_t wrong = watch->stop ? ncclSuccess : inspect(watch);
        if (wrong == ncclSuccess)
            continue;
        watch->failed = true;
        watch->failure = wrong;
        watch->failed_step = watch->under_way ? watch->step_under_way : watch->steps[1 - watch->current].step;
        /* The streams go on, and with them a host that waits for the step. */
        watch->group->library.ncclCommAbort(watch->group->communicator);
        watch->group->communicator = NULL;
    }
    pthread_mutex_unlock(&watch->lock);
    return NULL;
}

bool nccl_watch_open(struct nccl_watch **out, struct nccl_group *group, size_t buckets, struct error *error)
{
    struct nccl_watch *watch = *out = calloc(1, sizeof *watch);
    if (!watch)
        return error_runtime(error, "out of memory for the watch over NCCL");
    watch->group = group;
    watch->buckets = buckets;
    pthread_mutex_init(&watch->lock, NULL);
    pthread_cond_init(&watch->wake, NULL);
    for (int i = 0; i < 2; i++) {
        watch->steps[i].marks = calloc(buckets, sizeof *watch->steps[i].marks);
        if (!watch->steps[i].marks)
            return error_runtime(error, "out of memory for the watch over NCCL");
        for (size_t bucket = 0; bucket < buckets; bucket++) {
            struct mark *mark = &watch->steps[i].marks[bucket];
            if (!CUDA_TRY(cudaEventCreateWithFlags(&mark->reached, cudaEventDisableTiming), error) ||
                !CUDA_TRY(cudaEventCreateWithFlags(&mark->ended, cudaEventDisableTiming), error))
                return false;
        }
    }
    watch->running = pthread_create(&watch->thread, NULL, run, watch) == 0;
    return watch->running || error_runtime(error, "the thread that watches NCCL could not be started");
}

void nccl_watch_close(struct nccl_watch *watch)
{
    if (!watch)
        return;
    if (watch->running) {
        pthread_mutex_lock(&watch->lock);
        watch->stop = true;
        pthread_cond_signal(&watch->wake);
        pthread_mutex_unlock(&watch->lock);
        pthread_join(watch->thread, NULL);
    }
    for (int i = 0; i < 2; i++) {
        for (size_t bucket = 0; watch->steps[i].marks && bucket < watch->buckets; bucket++) {
            struct mark *mark = &watch->steps[i].marks[bucket];
            if (mark->reached)
                cudaEventDestroy(mark->reached);
            if (mark->ended)
                cudaEventDestroy(mark->ended);
        }
        free(watch->steps[i].marks);
    }
    pthread_cond_destroy(&watch->wake);
    pthread_mutex_destroy(&watch->lock);
    free(watch);
}

bool nccl_watch_enter(struct nccl_watch *watch)
{
    pthread_mutex_lock(&watch->lock);
    if (watch->failed)
        pthread_mutex_unlock(&watch->lock);
    return !watch->failed;
}

void nccl_watch_exit(struct nccl_watch *watch)
{
    pthread_mutex_unlock(&watch->lock);
}

static bool record(struct nccl_watch *watch, cudaEvent_t event, cudaStream_t stream, struct error *error)
{
    pthread_mutex_lock(&watch->lock);
    watch->steps[watch->current].watched = false; /* its marks are a newer step's now */
    bool ok = CUDA_TRY(cudaEventRecord(event, stream), error);
    pthread_mutex_unlock(&watch->lock);
    return ok;
}

bool nccl_watch_begin(struct nccl_watch *watch, size_t bucket, cudaStream_t stream, struct error *error)
{
    return record(watch, watch->steps[watch->current].marks[bucket].reached, stream, error);
}

bool nccl_watch_end(struct nccl_watch *watch, size_t bucket, cudaStream_t stream, struct error *error)
{
    return record(watch, watch->steps[watch->current].marks[bucket].ended, stream, error);
}

void nccl_watch_step(struct nccl_watch *watch, uint64_t step)
{
    pthread_mutex_lock(&watch->lock);
    watch->steps[watch->current].step = step;
    watch->steps[watch->current].watched = true;
    watch->current = 1 - watch->current;
    pthread_mutex_unlock(&watch->lock);
}

bool nccl_watch_healthy(struct nccl_watch *watch, struct error *error)
{
    if (nccl_watch_enter(watch)) {
        nccl_watch_exit(watch);
        return true;
    }
    const struct nccl_group *group = watch->group;
    if (watch->failure == ncclInProgress)
        return gradient_timed_out(group->comm, watch->failed_step, group->timeout_s, error);
    int silent;
    const char *reason = group->library.ncclGetErrorString(watch->failure);
    unsigned long long step = watch->failed_step;
    if (comm_find_silent_rank(group->comm, &silent, error) && silent >= 0)
        return error_runtime(error, "rank %d (%s) left the gradient all-reduce after step %llu: NCCL: %s", silent,
                             comm_host_of(group->comm, silent), step, reason);
    return error_runtime(error, "the gradient all-reduce after step %llu failed: NCCL: %s (NCCL_DEBUG=WARN says more)",
                         step, reason);
}
