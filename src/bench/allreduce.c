/* quest-bench allreduce: sums made-up gradients over the ranks, checks every number, times it. */
#include "src/bench/allreduce.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/bench/options.h"
#include "src/comm/device.h"
#include "src/comm/gradient.h"
#ifndef QUEST_NO_CUDA
#include "src/comm/nccl_trial.h"
#endif
#include "src/config/config.h"

struct arguments {
    size_t mib, bucket_mib, iterations, warmup, timeout_s;
    enum dtype dtype;
    const char *device;
    bool nccl_alone, json;
};

static const struct command_option options[] = {
    {"mib", "M", "MiB of float32 gradients [84: ViT-S]", command_line_count, INTO(mib)},
    {"bucket-mib", "M", "comm.bucket_mib [25]", command_line_count, INTO(bucket_mib)},
    {"dtype", "fp32|bf16", "comm.dtype: what goes over the wire [fp32]", bench_take_dtype, INTO(dtype)},
    {"iterations", "I", "Timed reductions [20]", command_line_count, INTO(iterations)},
    {"warmup", "W", "Reductions before them [3]", command_line_count, INTO(warmup)},
    {"timeout", "S", "comm.timeout_s [60]", command_line_count, INTO(timeout_s)},
    {"nccl-alone", NULL, NULL, command_line_flag, INTO(nccl_alone)}, /* try_alone */
    BENCH_DEVICE,
    BENCH_JSON,
    {0},
};

static const struct command_line command_line = {
    .options = options, .meaning = "Times the gradient all-reduce of a step: MPI on the CPU, NCCL on GPUs."};

struct bench {
    const struct arguments *arguments;
    struct comm *comm;
    struct comm_gradient_options gradient;
    struct comm_gradient *reducer;
    float *host;
    double host_s; /* that the host spent in the reductions that were timed */
};

static bool open_bench(struct bench *bench, struct error *error)
{
    const struct arguments *arguments = bench->arguments;
    /* The smallest workload: no op runs here. */
    struct context_options context = {.threads = 1,
                                      .workload = {.batch = 1,
                                                   .patches = 1,
                                                   .patch_dim = 16,
                                                   .dim = 16,
                                                   .hidden = 16,
                                                   .heads = 1,
                                                   .classes = 1,
                                                   .kind = ATTENTION_QUEST}};
    struct comm_gradient_options *gradient = &bench->gradient;
    gradient->count = (arguments->mib << 20) / sizeof(float);
    gradient->bucket_mib = (double)arguments->bucket_mib;
    gradient->dtype = arguments->dtype;
    gradient->timeout_s = (double)arguments->timeout_s;
    gradient->alone = arguments->nccl_alone;
    if (gradient->alone && comm_world_size(bench->comm) > 1)
        return error_input(error, "--nccl-alone is for one rank; more try NCCL out without it");
    if (!gradient->alone && comm_world_size(bench->comm) < 2)
        return error_input(error, "quest-bench allreduce needs at least two ranks: mpirun -np 2 quest-bench allreduce");
    bench->host = malloc(gradient->count * sizeof(float));
    void *device = NULL;
    if (!bench->host)
        return error_runtime(error, "out of memory for %zu MiB of gradients", arguments->mib);
    const char *chosen = gradient->alone ? "cuda" : arguments->device;
    if (!device_choose(&gradient->kernels, &context.device, chosen, bench->comm, error) ||
        !gradient->kernels->open(&gradient->context, &context, error) ||
        !gradient->kernels->allocate(gradient->context, &device, gradient->count * sizeof(float), "gradients", error))
        return false;
    gradient->gradient = device;
    return true;
}

static void close_bench(struct bench *bench)
{
    struct comm_gradient_options *gradient = &bench->gradient;
    if (gradient->gradient)
        gradient->kernels->release(gradient->context, gradient->gradient);
    if (gradient->context)
        gradient->kernels->close(gradient->context);
    free(bench->host);
}

/* One step's reduction, waited for. */
static bool reduce_once(struct bench *bench, uint64_t step, struct error *error)
{
    double wait_s, begin = clock_s();
    bool queued = comm_gradient_ready(bench->reducer, bench->gradient.count, error) &&
                  comm_gradient_finish(bench->reducer, step, &wait_s, error);
    bench->host_s += clock_s() - begin;
    return queued && bench->gradient.kernels->synchronise(bench->gradient.context, error) &&
           comm_gradient_progress(bench->reducer, error);
}

/* Small whole numbers, whose sum is exact in float32 and bfloat16: every one of them is compared. */
static bool check_sum(struct bench *bench, struct error *error)
{
    const struct comm_gradient_options *gradient = &bench->gradient;
    size_t ranks = (size_t)comm_world_size(bench->comm), bytes = gradient->count * sizeof(float);
    for (size_t i = 0; i < gradient->count; i++)
        bench->host[i] = (float)((i + (size_t)comm_rank(bench->comm)) % 2);
    if (!gradient->kernels->upload(gradient->context, gradient->gradient, bench->host, bytes, error) ||
        !reduce_once(bench, 1, error) ||
        !gradient->kernels->download(gradient->context, bench->host, gradient->gradient, bytes, error) ||
        !gradient->kernels->synchronise(gradient->context, error))
        return false;
    for (size_t i = 0; i < gradient->count; i++) {
        float expected = (float)(i % 2 == 0 ? ranks / 2 : ranks - ranks / 2);
        if (bench->host[i] != expected)
            return error_runtime(error, "the all-reduce is wrong: number %zu of %zu is %g, the sum over ranks is %g", i,
                                 gradient->count, (double)bench->host[i], (double)expected);
    }
    return true;
}

static bool time_reductions(struct bench *bench, double *seconds, struct error *error)
{
    const struct arguments *arguments = bench->arguments;
    uint64_t step = 2;
    double begin = 0;
    for (size_t i = 0; i < arguments->warmup + arguments->iterations; i++) {
        if (i == arguments->warmup) {
            begin = clock_s();
            bench->host_s = 0;
        }
        if (!reduce_once(bench, step++, error))
            return false;
    }
    *seconds = (clock_s() - begin) / (double)arguments->iterations;
    return true;
}

/* Bus bandwidth as nccl-tests define it: what each rank must send (and receive) in a ring. */
static void print(const struct bench *bench, double seconds)
{
    const struct arguments *arguments = bench->arguments;
    double ranks = comm_world_size(bench->comm),
           bytes = (double)bench->gradient.count * (double)dtype_bytes(arguments->dtype);
    double rate = 1e-9 * bytes / seconds, bus_rate = rate * 2 * (ranks - 1) / ranks;
    size_t buckets = (arguments->mib + arguments->bucket_mib - 1) / arguments->bucket_mib;
    double host_us = 1e6 * bench->host_s / (double)(arguments->iterations * buckets);
    const char *library = bench->gradient.kernels->stream(bench->gradient.context) ? "NCCL" : "MPI";
    if (arguments->json)
        printf(
            "{\"device\": \"%s\", \"library\": \"%s\", \"ranks\": %.0f, \"mib\": %zu, \"bucket_mib\": %zu, \"dtype\": "
            "\"%s\", \"time_ms\": %.6g, \"gb_per_s\": %.6g, \"bus_gb_per_s\": %.6g, "
            "\"host_us_per_bucket\": %.6g}\n",
            bench->gradient.kernels->name, library, ranks, arguments->mib, arguments->bucket_mib,
            dtype_name(arguments->dtype), 1e3 * seconds, rate, bus_rate, host_us);
    else
        printf("all-reduce of %zu MiB of gradients in %zu MiB buckets, %s over %s, %.0f ranks: %.3f ms, %.2f GB/s, bus "
               "%.2f GB/s; the host queues a bucket in %.0f us\n",
               arguments->mib, arguments->bucket_mib, dtype_name(arguments->dtype), library, ranks, 1e3 * seconds, rate,
               bus_rate, host_us);
}

/* On a machine with one GPU: NCCL with one rank, all its calls. */
static bool try_alone(const struct bench *bench, struct error *error)
{
#ifdef QUEST_NO_CUDA
    (void)bench;
    return error_input(error, "--nccl-alone: this build has no CUDA backend");
#else
    struct nccl_trial_result results[NCCL_TRIAL_RESULTS];
    bool ok = true;
    nccl_trial(results, bench->comm, &bench->gradient);
    for (int i = 0; i < NCCL_TRIAL_RESULTS; i++) {
        const struct nccl_trial_result *result = &results[i];
        const char *outcome = result->ok ? "ok" : "failed";
        if (bench->arguments->json)
            printf("{\"nccl\": \"%s\", \"result\": \"%s\", \"seconds\": %.6g}\n", result->name, outcome,
                   result->seconds);
        else
            printf("NCCL %-14s %-6s %8.3f s  %s\n", result->name, outcome, result->seconds, result->detail);
        if (ok && !result->ok)
            error_runtime(error, "NCCL with one rank: %s: %s", result->name, result->detail);
        ok = ok && result->ok;
    }
    fflush(stdout);
    return ok;
#endif
}

bool bench_allreduce(struct comm *comm, int argc, char **argv, struct error *error)
{
    struct arguments arguments = {
        .mib = 84, .bucket_mib = 25, .iterations = 20, .warmup = 3, .timeout_s = 60, .device = "auto"};
    struct bench bench = {.arguments = &arguments, .comm = comm};
    double seconds = 0;
    bool ok = comm_agree(comm, command_line_parse(&command_line, argc, argv, &arguments, error), error) &&
              comm_agree(comm, open_bench(&bench, error), error) &&
              (!arguments.nccl_alone || try_alone(&bench, error)) &&
              comm_agree(comm, comm_gradient_open(&bench.reducer, comm, &bench.gradient, error), error);
    ok = ok && check_sum(&bench, error) && time_reductions(&bench, &seconds, error) &&
         comm_reduce(comm, &seconds, 1, COMM_MAX, error);
    if (ok && comm_rank(comm) == 0)
        print(&bench, seconds);
    if (ok || error->shared) { /* a rank that was lost in a reduction cannot be asked */
        comm_gradient_close(bench.reducer);
        close_bench(&bench);
    }
    return ok;
}
