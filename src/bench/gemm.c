/* quest-bench gemm: the rate of a plain product of two square matrices, on the CPU or through a backend; or, with
 * --plans, which algorithms a model's products are computed by. */
#include "src/bench/gemm.h"

#include <stdio.h>
#include <string.h>

#include "kernels/gemm_rate.h"
#include "kernels/products.h"
#include "src/bench/options.h"
#include "src/bench/plans.h"
#include "src/bench/random.h"
#include "src/comm/device.h"
#include "src/config/config.h"

struct arguments {
    size_t size, threads, batch;
    enum dtype dtype;
    enum products_mode products;
    const char *device, *preset;
    bool plans, json;
};

static const struct command_option options[] = {
    {"size", "S", "Rows and columns of the matrices [2048]", command_line_count, INTO(size)},
    {"threads", "T", "CPU threads [OMP_NUM_THREADS, or the cores that it may use]", command_line_count, INTO(threads)},
    BENCH_PRECISION,
    {"device", "cpu|cuda", "oneDNN on the CPU, or the CUDA backend's linear op [cpu]", command_line_text, INTO(device)},
    BENCH_PRODUCTS,
    {"plans", NULL, "Instead: what every product of a training step is computed by, on a GPU", command_line_flag,
     INTO(plans)},
    {"preset", "P", "--plans: of this model, 224x224, or of tiny, small, base and large [all]", command_line_text,
     INTO(preset)},
    {"batch", "B", "--plans: images [256]", command_line_count, INTO(batch)},
    BENCH_JSON,
    {0},
};

static const struct command_line command_line = {.options = options,
                                                 .meaning = "Times the product of two square matrices."};

/* FLOP/s of `calls` products through the backend's linear op, in the fastest of three rounds. */
static bool time_linear(const struct kernels *kernels, struct context *ctx, void *const matrices[3], size_t size,
                        double *flops, struct error *error)
{
    const size_t calls = size < 1024 ? 20 : 5;
    struct linear_forward product = {
        .out = matrices[0], .in = matrices[1], .weight = matrices[2], .rows = size, .in_dim = size, .out_dim = size};
    *flops = 0;
    for (int round = 0; round < 4; round++) { /* the first one warms up */
        double seconds;
        if (!kernels->mark(ctx, 0, error))
            return false;
        for (size_t i = 0; i < calls; i++)
            if (!kernels->linear_forward(ctx, &product, error))
                return false;
        if (!kernels->mark(ctx, 1, error) || !kernels->elapsed(ctx, 0, 1, &seconds, error))
            return false;
        double rate = 2.0 * (double)size * (double)size * (double)size * (double)calls / seconds;
        if (round > 0 && rate > *flops)
            *flops = rate;
    }
    return true;
}

/* *peak: of the device, 0 = unknown. */
static bool device_rate(const struct arguments *arguments, struct comm *comm, double *flops, double *peak,
                        struct error *error)
{
    const struct kernels *kernels;
    struct context *ctx;
    void *matrices[3] = {NULL};
    size_t size = arguments->size;
    double bytes_per_s;
    struct context_options context = {
        .dtype = arguments->dtype,
        .workload = {
            .batch = 1, .patches = size, .patch_dim = size, .dim = size, .hidden = size, .heads = 1, .classes = size}};
    if (!device_choose(&kernels, &context.device, arguments->device, comm, error) ||
        !kernels->open(&ctx, &context, error))
        return false;
    if (kernels->products)
        kernels->products->set_mode(ctx, arguments->products);
    bool ok = true;
    for (size_t i = 0; i < 3 && ok; i++)
        ok = bench_random(kernels, ctx, &matrices[i], size * size, arguments->dtype, error);
    ok = ok && time_linear(kernels, ctx, matrices, size, flops, error);
    if (ok)
        kernels->limits(ctx, peak, &bytes_per_s);
    for (size_t i = 0; i < 3; i++)
        if (matrices[i])
            kernels->release(ctx, matrices[i]);
    kernels->close(ctx);
    return ok;
}

static void print(const struct arguments *arguments, int threads, double flops, double peak)
{
    if (arguments->json) {
        printf("{\"size\": %zu, \"threads\": %d, \"precision\": \"%s\", \"device\": \"%s\", \"gflops\": %.6g, "
               "\"fraction_of_peak\": %.6g}\n",
               arguments->size, threads, dtype_name(arguments->dtype), arguments->device, 1e-9 * flops,
               peak > 0 ? flops / peak : 0);
        return;
    }
    printf("%zu x %zu x %zu %s, ", arguments->size, arguments->size, arguments->size, dtype_name(arguments->dtype));
    if (threads > 0)
        printf("%d thread%s: %.1f GFLOP/s\n", threads, threads == 1 ? "" : "s", 1e-9 * flops);
    else
        printf("%s: %.1f GFLOP/s, %.1f %% of the device's peak at its highest clock\n", arguments->device, 1e-9 * flops,
               peak > 0 ? 100 * flops / peak : 0);
}

bool bench_gemm(struct comm *comm, int argc, char **argv, struct error *error)
{
    struct arguments arguments = {.size = 2048, .batch = 256, .device = "cpu", .preset = "all"};
    double flops = 0, peak = 0;
    if (!comm_agree(comm, command_line_parse(&command_line, argc, argv, &arguments, error), error))
        return false;
    if (arguments.plans) {
        struct bench_plans plans = {.preset = arguments.preset,
                                    .batch = arguments.batch,
                                    .dtype = arguments.dtype,
                                    .mode = arguments.products,
                                    .device = arguments.device,
                                    .json = arguments.json};
        return bench_plans(comm, &plans, error);
    }
    bool on_cpu = strcmp(arguments.device, "cpu") == 0;
    int threads = on_cpu ? (int)arguments.threads : 0;
    bool ok = on_cpu ? cpu_gemm_rate(&flops, arguments.size, &threads, arguments.dtype, 1.0, error)
                     : device_rate(&arguments, comm, &flops, &peak, error);
    if (!comm_agree(comm, ok, error))
        return false;
    if (!comm_reduce(comm, &flops, 1, COMM_MIN, error))
        return false;
    if (comm_rank(comm) == 0)
        print(&arguments, threads, flops, peak);
    return true;
}
