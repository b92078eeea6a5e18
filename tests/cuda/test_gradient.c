/* The sum of gradients with NCCL, one rank: how long the host is held up, what follows a reduction on its stream, and
 * which reductions count as stuck. NCCL stands behind functions of this program, which start a reduction late, from a
 * thread of their own, as NCCL does on a communicator that does not block, or never end it. */
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <math.h>
#include <nccl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "src/comm/gradient.h"
#include "src/comm/nccl_trial.h"
#include "tests/cuda/twins.h"

static struct comm *comm;

static void sleep_s(double seconds)
{
    nanosleep(&(struct timespec){(time_t)seconds, (long)(1e9 * fmod(seconds, 1))}, NULL);
}

/* ---- between our code and NCCL ---- */

static struct {
    double start_s;       /* from the call until NCCL has queued the reduction */
    bool stuck;           /* a reduction never ends, until the communicator is aborted */
    bool threes;          /* the sum is 3 in every bfloat16, as if there were more ranks */
    atomic_bool starting; /* a call is under way */
    atomic_bool aborted;
    atomic_int calls_too_early; /* while another one was under way */
} nccl;

struct call {
    const void *in;
    void *out;
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t op;
    ncclComm_t communicator;
    cudaStream_t stream;
};

static void find(void *function, const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        found = dlsym(dlopen("libnccl.so.2", RTLD_LAZY), name);
    memcpy(function, &found, sizeof found);
}

static void CUDART_CB wait_for_the_abort(void *unused)
{
    (void)unused;
    while (!nccl.aborted)
        usleep(1000);
}

static ncclResult_t real_all_reduce(const struct call *call)
{
    __typeof__(ncclAllReduce) *real;
    find(&real, "ncclAllReduce");
    if (nccl.stuck && cudaLaunchHostFunc(call->stream, wait_for_the_abort, NULL) != cudaSuccess)
        return ncclUnhandledCudaError;
    ncclResult_t result =
        real(call->in, call->out, call->count, call->type, call->op, call->communicator, call->stream);
    if (nccl.threes && cudaMemsetAsync(call->out, 0x40, call->count * 2, call->stream) != cudaSuccess)
        return ncclUnhandledCudaError;
    return result;
}

static void *start_late(void *argument)
{
    struct call *call = argument;
    cudaSetDevice(0);
    for (double end = clock_s() + nccl.start_s; clock_s() < end;)
        ;
    real_all_reduce(call);
    free(call);
    nccl.starting = false;
    return NULL;
}

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): our names, not NCCL's */
ncclResult_t ncclAllReduce(const void *in, void *out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t communicator, cudaStream_t stream)
{
    struct call call = {in, out, count, type, op, communicator, stream}, *later;
    pthread_t thread;
    if (nccl.starting)
        nccl.calls_too_early++;
    if (nccl.start_s == 0)
        return real_all_reduce(&call);
    later = malloc(sizeof *later);
    assert_non_null(later);
    *later = call;
    nccl.starting = true;
    assert_int_equal(pthread_create(&thread, NULL, start_late, later), 0);
    pthread_detach(thread);
    return ncclInProgress;
}

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): our names, not NCCL's */
ncclResult_t ncclCommGetAsyncError(ncclComm_t communicator, ncclResult_t *result)
{
    __typeof__(ncclCommGetAsyncError) *real;
    find(&real, "ncclCommGetAsyncError");
    *result = ncclInProgress;
    return nccl.starting ? ncclSuccess : real(communicator, result);
}

ncclResult_t ncclCommAbort(ncclComm_t communicator)
{
    __typeof__(ncclCommAbort) *real;
    find(&real, "ncclCommAbort");
    nccl.aborted = true;
    return real(communicator);
}

/* ---- a reduction to test ---- */

enum { COUNT = 64 * 1024, BUCKETS = 4 };

struct sum {
    struct comm_gradient_options options;
    struct comm_gradient *gradient;
    float *host;
};

static struct sum opened(enum dtype wire, double timeout_s)
{
    struct error error;
    struct sum sum = {.options = {.kernels = kernels_cuda(),
                                  .count = COUNT,
                                  .bucket_mib = 4.0 * COUNT / BUCKETS / 1048576,
                                  .dtype = wire,
                                  .timeout_s = timeout_s,
                                  .alone = true}};
    struct context_options context = {
        .workload = {.batch = 2, .patches = 16, .patch_dim = 48, .dim = 64, .hidden = 256, .heads = 2, .classes = 10}};
    void *memory;
    assert_ok(kernels_cuda()->open(&sum.options.context, &context, &error), &error);
    assert_ok(kernels_cuda()->allocate(sum.options.context, &memory, COUNT * sizeof(float), "a test", &error), &error);
    sum.options.gradient = memory;
    sum.host = malloc(COUNT * sizeof(float));
    assert_non_null(sum.host);
    memset(&nccl, 0, sizeof nccl);
    assert_ok(comm_gradient_open(&sum.gradient, comm, &sum.options, &error), &error);
    return sum;
}

static void closed(struct sum *sum)
{
    comm_gradient_close(sum->gradient);
    kernels_cuda()->release(sum->options.context, sum->options.gradient);
    kernels_cuda()->close(sum->options.context);
    free(sum->host);
}

/* One step, whose backward pass takes pause_s on the host between two buckets; returns the time in our calls. */
static double step(struct sum *sum, uint64_t number, double pause_s)
{
    struct error error;
    double wait_s, spent_s = 0;
    for (size_t bucket = 1; bucket <= BUCKETS; bucket++) {
        double begin = clock_s();
        assert_ok(comm_gradient_ready(sum->gradient, bucket * COUNT / BUCKETS, &error), &error);
        spent_s += clock_s() - begin;
        if (pause_s > 0) /* a pause of nothing takes the kernel's timers some 50 us */
            sleep_s(pause_s);
    }
    double begin = clock_s();
    assert_ok(comm_gradient_finish(sum->gradient, number, &wait_s, &error), &error);
    return spent_s + clock_s() - begin;
}

/* Microseconds a bucket of the fastest step: other processes only add, a whole time slice at each sched_yield where
 * more want to run than there are cores. So there are more steps while none was faster than `most_us`, for 20 s. */
static double fastest_us(struct sum *sum, double pause_s, double most_us)
{
    struct error error;
    double best_us = INFINITY, begin_s = clock_s();
    for (uint64_t number = 1; number <= 20 || (best_us >= most_us && clock_s() < begin_s + 20); number++) {
        best_us = fmin(best_us, 1e6 * step(sum, number, pause_s) / BUCKETS);
        assert_ok(kernels_cuda()->synchronise(sum->options.context, &error), &error);
    }
    return best_us;
}

/* ---- the tests ---- */

/* A nap of a millisecond, as it once was, would show as 1000 us a bucket. */
static void the_host_waits_for_nccl_no_longer_than_nccl_takes(void **state)
{
    (void)state;
    const double starts_us[] = {50, 150};
    for (int i = 0; i < 2; i++) {
        struct sum sum = opened(DTYPE_FLOAT32, 60);
        nccl.start_s = 1e-6 * starts_us[i];
        double us = fastest_us(&sum, 0, starts_us[i] + 400);
        print_message("NCCL takes %.0f us a bucket, the host %.0f\n", starts_us[i], us);
        assert_true(us < starts_us[i] + 400);
        assert_int_equal(nccl.calls_too_early, 0);
        closed(&sum);
    }
}

static void the_backward_pass_hides_what_nccl_takes(void **state)
{
    (void)state;
    struct sum sum = opened(DTYPE_FLOAT32, 60);
    nccl.start_s = 2e-3;
    double us = fastest_us(&sum, 10e-3, 1000);
    print_message("NCCL takes 2000 us a bucket, the backward pass 10000, the host waits %.0f\n", us);
    assert_true(us < 1000);
    closed(&sum);
}

static void what_follows_a_reduction_comes_after_it(void **state)
{
    (void)state;
    struct error error;
    struct sum sum = opened(DTYPE_BFLOAT16, 60);
    const struct kernels *k = kernels_cuda();
    struct context *ctx = sum.options.context;
    nccl.start_s = 3e-3;
    nccl.threes = true;
    for (size_t i = 0; i < COUNT; i++)
        sum.host[i] = 1;
    assert_ok(k->upload(ctx, sum.options.gradient, sum.host, COUNT * sizeof(float), &error), &error);
    step(&sum, 1, 0);
    assert_ok(k->download(ctx, sum.host, sum.options.gradient, COUNT * sizeof(float), &error) &&
                  k->synchronise(ctx, &error),
              &error);
    for (size_t i = 0; i < COUNT; i++)
        assert_true(sum.host[i] == 3);
    assert_int_equal(nccl.calls_too_early, 0);
    closed(&sum);
}

static void CUDART_CB take_long(void *seconds)
{
    sleep_s(*(const double *)seconds);
}

static void long_work_before_the_reduction_is_no_time_out(void **state)
{
    (void)state;
    struct error error;
    struct sum sum = opened(DTYPE_FLOAT32, 0.3);
    double long_s = 1.5;
    assert_int_equal(cudaLaunchHostFunc(kernels_cuda()->stream(sum.options.context), take_long, &long_s), cudaSuccess);
    step(&sum, 1, 0);
    assert_ok(kernels_cuda()->synchronise(sum.options.context, &error), &error);
    assert_ok(comm_gradient_progress(sum.gradient, &error), &error);
    assert_false(nccl.aborted);
    closed(&sum);
}

static void a_reduction_that_does_not_end_is_one(void **state)
{
    (void)state;
    struct error error;
    struct sum sum = opened(DTYPE_FLOAT32, 0.3);
    step(&sum, 41, 0);
    assert_ok(kernels_cuda()->synchronise(sum.options.context, &error), &error);
    nccl.stuck = true;
    double begin = clock_s();
    step(&sum, 42, 0);
    assert_ok(kernels_cuda()->synchronise(sum.options.context, &error), &error); /* the streams go on */
    double seconds = clock_s() - begin;
    print_message("aborted after %.2f s\n", seconds);
    assert_true(nccl.aborted);
    assert_true(seconds >= 0.3 && seconds < 5);
    assert_false(comm_gradient_progress(sum.gradient, &error));
    assert_non_null(
        strstr(error.message, "the gradient all-reduce of step 42 took longer than comm.timeout_s = 0.3 s"));
    closed(&sum);
}

static void all_calls_are_tried_with_one_rank(void **state)
{
    (void)state;
    struct sum sum = opened(DTYPE_FLOAT32, 60);
    struct nccl_trial_result results[NCCL_TRIAL_RESULTS];
    nccl_trial(results, comm, &sum.options);
    for (int i = 0; i < NCCL_TRIAL_RESULTS; i++) {
        print_message("%s: %s\n", results[i].name, results[i].detail);
        assert_true(results[i].ok);
    }
    assert_true(nccl.aborted);
    assert_non_null(strstr(results[3].detail, "took longer than comm.timeout_s"));
    closed(&sum);
}

int main(int argc, char **argv)
{
    struct error error;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_host_waits_for_nccl_no_longer_than_nccl_takes),
        cmocka_unit_test(the_backward_pass_hides_what_nccl_takes),
        cmocka_unit_test(what_follows_a_reduction_comes_after_it),
        cmocka_unit_test(long_work_before_the_reduction_is_no_time_out),
        cmocka_unit_test(a_reduction_that_does_not_end_is_one),
        cmocka_unit_test(all_calls_are_tried_with_one_rank),
    };
    if (!comm_open(&comm, &argc, &argv, &error))
        comm_exit(comm, &error);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(comm);
    return failed;
}
