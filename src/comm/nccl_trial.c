/* NCCL tried out, the calls of a good end and those of a bad one. */
#include "src/comm/nccl_trial.h"

#include <ifaddrs.h>
#include <math.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cuda_streams.h"
#include "src/base/clock.h"
#include "src/comm/nccl_watch.h"

/* Of the sum that does not end: how long it may take, and how long it takes. */
#define TIMEOUT_S 1.0
#define STUCK_S   2.5

enum trial { JOIN, SUM, FINALISE, TIME_OUT, ABORT };

static const char *const names[NCCL_TRIAL_RESULTS] = {[JOIN] = "initialisation",
                                                      [SUM] = "all-reduce",
                                                      [FINALISE] = "finalise",
                                                      [TIME_OUT] = "time-out",
                                                      [ABORT] = "abort"};

static void use_the_loopback_where_nothing_else_is(void)
{
    struct ifaddrs *list;
    bool other = false;
    if (getifaddrs(&list) != 0)
        return;
    for (const struct ifaddrs *at = list; at; at = at->ifa_next)
        other = other || (!(at->ifa_flags & IFF_LOOPBACK) && (at->ifa_flags & IFF_UP) && at->ifa_addr);
    freeifaddrs(list);
    if (!other)
        setenv("NCCL_SOCKET_IFNAME", "lo", 0);
}

static bool all_reduce(const struct nccl_group *group, const struct comm_gradient_options *options, struct error *error)
{
    cudaStream_t stream = cuda_streams_of(options->context).communication;
    ncclResult_t result = group->library.ncclAllReduce(options->gradient, options->gradient, options->count,
                                                       ncclFloat32, ncclSum, group->communicator, stream);
    return nccl_group_wait(group, result, options->timeout_s, "ncclAllReduce", error);
}

static bool fill(const struct comm_gradient_options *options, float *host, struct error *error)
{
    for (size_t i = 0; i < options->count; i++)
        host[i] = 1;
    return options->kernels->upload(options->context, options->gradient, host, options->count * sizeof *host, error) &&
           options->kernels->synchronise(options->context, error);
}

static bool sum_is_right(const struct nccl_group *group, const struct comm_gradient_options *options, float *host,
                         struct error *error)
{
    const struct kernels *kernels = options->kernels;
    int ranks = comm_world_size(group->comm);
    if (!fill(options, host, error) || !all_reduce(group, options, error) ||
        !kernels->synchronise(options->context, error) ||
        !kernels->download(options->context, host, options->gradient, options->count * sizeof *host, error) ||
        !kernels->synchronise(options->context, error))
        return false;
    for (size_t i = 0; i < options->count; i++)
        if (host[i] != (float)ranks)
            return error_runtime(error, "number %zu of %zu is %g, the sum over ranks is %d", i, options->count,
                                 (double)host[i], ranks);
    return true;
}

static void CUDART_CB hold_up(void *seconds)
{
    double s = *(const double *)seconds;
    nanosleep(&(struct timespec){(time_t)s, (long)(1e9 * fmod(s, 1))}, NULL);
}

/* Queues a sum behind work that the device is not through with in time; *noticed and `what` say what the watch makes of
 * it. */
static bool get_stuck(struct nccl_group *group, const struct comm_gradient_options *options, bool *noticed,
                      struct error *what, struct error *error)
{
    double hold_s = STUCK_S;
    cudaStream_t stream = cuda_streams_of(options->context).communication;
    struct nccl_watch *watch = NULL;
    struct error later;
    group->timeout_s = TIMEOUT_S;
    bool ok = nccl_watch_open(&watch, group, 1, error) && nccl_watch_begin(watch, 0, stream, error) &&
              CUDA_TRY(cudaLaunchHostFunc(stream, hold_up, &hold_s), error);
    if (ok && nccl_watch_enter(watch)) {
        ok = all_reduce(group, options, error);
        nccl_watch_exit(watch);
    }
    ok = ok && nccl_watch_end(watch, 0, stream, error);
    if (ok)
        nccl_watch_step(watch, 1);
    if (!options->kernels->synchronise(options->context, &later) && ok) {
        *error = later;
        ok = false;
    }
    *noticed = ok && !nccl_watch_healthy(watch, what);
    nccl_watch_close(watch);
    return ok;
}

static bool note(struct nccl_trial_result *result, double since_s, bool ok, const char *detail)
{
    result->ok = ok;
    result->seconds = clock_s() - since_s;
    snprintf(result->detail, sizeof result->detail, "%s", detail);
    return ok;
}

static bool try_join(struct nccl_trial_result *result, struct nccl_group *group)
{
    struct error error;
    char text[128];
    int version = 0;
    double begin = clock_s();
    if (!nccl_group_join(group, &error))
        return note(result, begin, false, error.message);
    (void)group->library.ncclGetVersion(&version);
    snprintf(text, sizeof text, "NCCL %d.%d.%d, %d rank%s", version / 10000, version / 100 % 100, version % 100,
             comm_world_size(group->comm), comm_world_size(group->comm) == 1 ? "" : "s");
    return note(result, begin, true, text);
}

static bool try_the_good_end(struct nccl_trial_result *results, struct nccl_group *group,
                             const struct comm_gradient_options *options, float *host)
{
    struct error error;
    char text[128];
    if (!try_join(&results[JOIN], group))
        return false;
    double begin = clock_s();
    snprintf(text, sizeof text, "%zu numbers are right", options->count);
    bool summed = sum_is_right(group, options, host, &error);
    note(&results[SUM], begin, summed, summed ? text : error.message);
    begin = clock_s();
    bool left = nccl_group_leave(group, &error);
    return note(&results[FINALISE], begin, left, left ? "ended in good order" : error.message) && summed;
}

static void try_the_bad_end(struct nccl_trial_result *results, struct nccl_group *group,
                            const struct comm_gradient_options *options)
{
    struct error error, what = {.message = "the sum that did not end went unnoticed"};
    bool noticed = false;
    double begin = clock_s();
    if (!nccl_group_join(group, &error)) {
        note(&results[TIME_OUT], begin, false, error.message);
        return;
    }
    bool ok = get_stuck(group, options, &noticed, &what, &error);
    note(&results[TIME_OUT], begin, noticed, ok ? what.message : error.message);
    bool aborted = ok && !group->communicator; /* by the watch, with the sum still queued */
    note(&results[ABORT], begin, aborted,
         aborted ? "ncclCommAbort with work queued returned, and the streams ran dry" : "it was not called");
    (void)nccl_group_leave(group, &error);
}

void nccl_trial(struct nccl_trial_result results[NCCL_TRIAL_RESULTS], struct comm *comm,
                const struct comm_gradient_options *options)
{
    struct nccl_group group = {
        .comm = comm, .device = cuda_streams_of(options->context).device, .timeout_s = options->timeout_s};
    float *host = malloc(options->count * sizeof *host);
    for (int i = 0; i < NCCL_TRIAL_RESULTS; i++)
        results[i] = (struct nccl_trial_result){.name = names[i], .detail = "not reached"};
    use_the_loopback_where_nothing_else_is();
    if (!host)
        note(&results[JOIN], clock_s(), false, "out of memory for the numbers");
    else if (try_the_good_end(results, &group, options, host))
        try_the_bad_end(results, &group, options);
    free(host);
}
