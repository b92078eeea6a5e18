/* quest-bench step: whole training steps of a preset on random images, without a loader. */
#include "src/bench/step.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/profile.h"
#include "src/base/random.h"
#include "src/bench/options.h"
#include "src/bench/step_floor.h"
#include "src/comm/device.h"
#include "src/comm/gradient.h"
#include "src/config/load.h"
#include "src/model/replay.h"

#define IMAGE 224

struct arguments {
    const char *preset, *precision, *kind, *device, *graph;
    size_t batch, threads, iterations, warmup;
    enum products_mode products;
    bool recompute, floor, json;
};

static const struct command_option options[] = {
    {"preset", "P", "vit_tiny, vit_small, vit_base, vit_large or vit_huge, 224x224 [vit_tiny]", command_line_text,
     INTO(preset)},
    {"batch", "B", "Images a rank and step [8]", command_line_count, INTO(batch)},
    BENCH_THREADS,
    {"precision", "fp32|bf16", "[fp32]", command_line_text, INTO(precision)},
    {"kind", "K", "Attention kind [quest]", command_line_text, INTO(kind)},
    BENCH_DEVICE,
    {"graph", "auto|on|off", "train.graph [auto]", command_line_text, INTO(graph)},
    {"iterations", "I", "Timed steps [5]", command_line_count, INTO(iterations)},
    {"warmup", "W", "Steps before them [2]", command_line_count_or_none, INTO(warmup)},
    BENCH_PRODUCTS,
    {"recompute", NULL, "Recompute activations in the backward pass", command_line_flag, INTO(recompute)},
    {"floor", NULL, "Print what the ops of a bf16 step take at least on an H100, modelled; no GPU needed",
     command_line_flag, INTO(floor)},
    BENCH_JSON,
    {0},
};

static const struct command_line command_line = {.options = options, .meaning = "Times whole training steps."};

struct bench {
    struct comm *comm;
    struct comm_gradient *gradient;
    const struct arguments *arguments;
    struct config config;
    const struct kernels *kernels;
    int device;
    struct model *model;
    uint8_t *pixels;
    int32_t *labels;
    struct model_options model_options;
    size_t program_bytes;     /* resident before the model was opened */
    size_t planned_bytes;     /* of memory, foretold before the model was opened; on a GPU without the reserve */
    struct launches launches; /* of a step; all 0 on the CPU */
};

static bool configure(struct bench *bench, struct error *error)
{
    const struct arguments *arguments = bench->arguments;
    char text[256];
    snprintf(text, sizeof text,
             "model: {preset: %s, classes: 1000}\nattention: {kind: %s}\ntrain: {precision: %s, graph: %s}\n",
             arguments->preset, arguments->kind, arguments->precision, arguments->graph);
    if (!config_parse_model(&bench->config, text, strlen(text), "quest-bench step", error))
        return false;
    bench->config.train.recompute = arguments->recompute;
    return true;
}

/* The same random images and labels on every run; they are not what is measured. */
static bool make_input(struct bench *bench, struct error *error)
{
    struct model *model = bench->model;
    size_t batch = bench->arguments->batch, bytes = batch * model->patches * model->patch_dim;
    uint8_t *pixels = malloc(bytes + 16);
    int32_t *labels = malloc(batch * sizeof *labels);
    bool ok = pixels && labels ? true : error_runtime(error, "out of memory for the images");
    for (size_t i = 0; ok && i < bytes; i += 16)
        random_bits((uint32_t *)(void *)(pixels + i), 0, random_stream("bench"), i);
    for (size_t i = 0; ok && i < batch; i++)
        labels[i] = (int32_t)(i * 37 % model->classes);
    ok = ok && bench->kernels->allocate(model->context, (void **)&bench->pixels, bytes, "images", error) &&
         bench->kernels->allocate(model->context, (void **)&bench->labels, batch * sizeof *labels, "labels", error) &&
         bench->kernels->upload(model->context, bench->pixels, pixels, bytes, error) &&
         bench->kernels->upload(model->context, bench->labels, labels, batch * sizeof *labels, error) &&
         bench->kernels->synchronise(model->context, error);
    free(pixels);
    free(labels);
    return ok;
}

static bool plan_for(void *owner, size_t batch, struct memory_plan *plan, struct error *error)
{
    const struct bench *bench = owner;
    struct model_options model_options = bench->model_options;
    model_options.batch = batch;
    if (!model_plan(plan, &model_options, error))
        return false;
    memory_plan_add(plan, "images", batch * (IMAGE * IMAGE * 3 + sizeof(int32_t)));
    if (bench->kernels->on_host) {
        memory_plan_add(plan, "libraries", MEMORY_LIBRARIES_BYTES);
        memory_plan_add(plan, "program", bench->program_bytes);
    } else {
        memory_plan_add(plan, "reserve", memory_reserve_bytes(comm_world_size(bench->comm)));
    }
    return true;
}

static bool open_model(struct bench *bench, struct error *error)
{
    struct memory_plan plan = {0};
    struct memory_wish wish = {.plan = &plan,
                               .batch = bench->arguments->batch,
                               .batch_share = (size_t)comm_world_size(bench->comm),
                               .plan_for = plan_for,
                               .owner = bench};
    bench->model_options = (struct model_options){.kernels = bench->kernels,
                                                  .config = &bench->config,
                                                  .channels = 3,
                                                  .batch = bench->arguments->batch,
                                                  .training = true,
                                                  .device = bench->device,
                                                  .threads = (int)bench->arguments->threads,
                                                  .ranks_on_device = 1};
    if (bench->kernels->on_host)
        bench->model_options.ranks_on_device = (size_t)comm_local_size(bench->comm);
    bench->program_bytes = memory_resident_bytes();
    if (!plan_for(bench, bench->arguments->batch, &plan, error))
        return false;
    bench->planned_bytes = memory_plan_total(&plan);
    if (!bench->kernels->on_host)
        bench->planned_bytes -= memory_reserve_bytes(comm_world_size(bench->comm));
    if (comm_rank(bench->comm) == 0)
        memory_plan_print(&plan, stderr);
    struct model_options model_options = bench->model_options;
    model_options.memory = &wish;
    if (!model_open(&bench->model, &model_options, error))
        return false;
    bench->planned_bytes += bench->model->kept_bytes;
    return true;
}

static bool open_bench(struct bench *bench, struct error *error)
{
    const float mean[] = {0.5f, 0.5f, 0.5f}, deviation[] = {0.25f, 0.25f, 0.25f};
    if (!device_choose(&bench->kernels, &bench->device, bench->arguments->device, bench->comm, error) ||
        !configure(bench, error) || !open_model(bench, error) ||
        !model_set_normalisation(bench->model, mean, deviation, error))
        return false;
    size_t total = bench->model->parameters.total;
    float *master = malloc(total * sizeof *master);
    if (!master)
        return error_runtime(error, "out of memory for the parameters");
    parameters_initialise(&bench->model->parameters, master, 0);
    bool ok = model_set_parameters(bench->model, master, error);
    free(master);
    return ok && make_input(bench, error);
}

static bool gradient_ready(void *owner, size_t done, struct error *error)
{
    return comm_gradient_ready(owner, done, error);
}

static bool run_step(struct bench *bench, uint64_t step, struct error *error)
{
    struct model *model = bench->model;
    const struct kernels *kernels = bench->kernels;
    size_t batch = bench->arguments->batch;
    struct adamw adamw = {.lr = 1e-4f,
                          .beta1 = 0.9f,
                          .beta2 = 0.999f,
                          .eps = 1e-8f,
                          .weight_decay = 0.05f,
                          .step = step,
                          .clip_grad_norm = 1.0f};
    float scale = 1.0f / (float)(batch * (size_t)comm_world_size(bench->comm));
    double wait_s;
    struct adamw_update update = {.master = model->master,
                                  .m = model->m,
                                  .v = model->v,
                                  .working = model->working,
                                  .gradient = model->gradient,
                                  .decay = model->decay,
                                  .gradient_sum_of_squares = model->sum_of_squares,
                                  .count = model->parameters.total,
                                  .adamw = &adamw};
    struct model_pass pass = {.pixels = bench->pixels,
                              .labels = bench->labels,
                              .batch = batch,
                              .loss.smoothing = 0.1f,
                              .gradient_scale = scale};
    /* A name of the timed steps alone, for `ncu --nvtx-include "timed pass/forward/"`. */
    return model_zero_gradient(model, error) &&
           PROFILED(step > bench->arguments->warmup ? "timed pass" : "warm-up",
                    model_run_pass(model, &pass, bench->gradient ? gradient_ready : NULL, bench->gradient, error)) &&
           comm_gradient_finish(bench->gradient, step, &wait_s, error) &&
           kernels->sum_of_squares(model->context, model->sum_of_squares, model->gradient, model->parameters.total,
                                   error) &&
           kernels->adamw_update(model->context, &update, error);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct launches launches_so_far(const struct bench *bench)
{
    struct launches launches = {0};
    if (bench->kernels->count_launches)
        bench->kernels->count_launches(bench->model->context, &launches);
    return launches;
}

/* Median seconds of a step. Products are tuned in the first one, which is not timed if there is a warm-up. */
static bool time_steps(struct bench *bench, double *step_s, struct error *error)
{
    size_t warmup = bench->arguments->warmup, iterations = bench->arguments->iterations;
    double *times = malloc(iterations * sizeof *times);
    bool ok = times ? true : error_runtime(error, "out of memory");
    if (bench->kernels->products)
        bench->kernels->products->set_mode(bench->model->context, bench->arguments->products);
    for (size_t i = 0; ok && i < warmup + iterations; i++) {
        double seconds = 0;
        struct context *context = bench->model->context;
        struct launches before = launches_so_far(bench);
        ok = bench->kernels->mark(context, 0, error) && run_step(bench, i + 1, error) &&
             bench->kernels->mark(context, 1, error) && bench->kernels->elapsed(context, 0, 1, &seconds, error);
        if (ok && i >= warmup)
            times[i - warmup] = seconds;
        struct launches after = launches_so_far(bench);
        bench->launches = (struct launches){after.kernels - before.kernels, after.products - before.products,
                                            after.copies - before.copies, after.graphs - before.graphs};
    }
    if (ok) {
        qsort(times, iterations, sizeof *times, ascending);
        *step_s = times[iterations / 2];
    }
    free(times);
    return ok;
}

/* Of this process on the CPU, of the device on a GPU, where nothing of it is given back before the end. */
static double peak_mib(const struct bench *bench)
{
    struct device_memory memory = {0};
    struct error ignored;
    bench->kernels->memory_state(bench->model->context, &memory, &ignored);
    return (double)memory.taken / 1048576.0;
}

/* Launches a step, as text or as fields of JSON: none on the CPU. */
static void print_launches(const struct bench *bench)
{
    const struct launches *launches = &bench->launches;
    unsigned long long kernels = launches->kernels, products = launches->products, copies = launches->copies,
                       graphs = launches->graphs;
    bool json = bench->arguments->json;
    if (!bench->kernels->count_launches)
        printf("%s", json ? ", \"launches\": null" : "");
    else if (json)
        printf(", \"launches\": %llu, \"kernels\": %llu, \"products\": %llu, \"graphs\": %llu, \"copies\": %llu",
               kernels + products + graphs, kernels, products, graphs, copies);
    else
        printf("; %llu launches a step (%llu kernels, %llu products, %llu graphs) and %llu copies",
               kernels + products + graphs, kernels, products, graphs, copies);
}

static void print(const struct bench *bench, double step_s)
{
    const struct arguments *arguments = bench->arguments;
    int ranks = comm_world_size(bench->comm);
    double images_per_s = (double)arguments->batch * ranks / step_s;
    double gflops = 3e-9 * model_forward_flops(bench->model) * images_per_s;
    double peak = peak_mib(bench), planned_mib = (double)bench->planned_bytes / 1048576.0;
    const char *memory = bench->kernels->on_host ? "rss" : "device";
    double flops = 0, bytes_per_s;
    if (!bench->kernels->on_host)
        bench->kernels->limits(bench->model->context, &flops, &bytes_per_s);
    if (arguments->json) {
        printf("{\"preset\": \"%s\", \"kind\": \"%s\", \"precision\": \"%s\", \"device\": \"%s\", \"ranks\": %d, "
               "\"batch\": %zu, "
               "\"images_per_s\": %.6g, \"step_time_ms\": %.6g, \"gflops\": %.6g, \"peak_%s_mib\": %.6g, "
               "\"planned_%s_mib\": %.6g, \"mfu\": %.6g",
               arguments->preset, arguments->kind, arguments->precision, bench->kernels->name, ranks, arguments->batch,
               images_per_s, 1e3 * step_s, gflops, memory, peak, memory, planned_mib,
               flops > 0 ? 1e9 * gflops / ranks / flops : 0);
        print_launches(bench);
        printf("}\n");
        return;
    }
    printf("%s %s %s, %d rank%s x %zu images on %s: %.1f images/s, %.2f ms a step, %.1f GFLOP/s (3 x forward)",
           arguments->preset, arguments->kind, arguments->precision, ranks, ranks > 1 ? "s" : "", arguments->batch,
           bench->kernels->name, images_per_s, 1e3 * step_s, gflops);
    if (flops > 0)
        printf(", %.1f %% of the device's peak at its highest clock", 1e11 * gflops / ranks / flops);
    print_launches(bench);
    printf("; peak memory %.0f MiB (%.0f foretold)\n", peak, planned_mib);
}

/* --floor: from the shapes alone, on rank 0. */
static bool print_floor(struct bench *bench, struct error *error)
{
    const struct arguments *arguments = bench->arguments;
    struct step_floor floor;
    if (arguments->recompute)
        return error_input(error, "--floor models a step that keeps its activations, not --recompute");
    if (!configure(bench, error) || !step_floor(&floor, &bench->config, arguments->batch, error))
        return false;
    if (comm_rank(bench->comm) != 0)
        return true;
    if (arguments->json)
        step_floor_print_json(&floor, arguments->preset, arguments->batch, stdout);
    else
        step_floor_print(&floor, arguments->preset, arguments->batch, stdout);
    return true;
}

bool bench_step(struct comm *comm, int argc, char **argv, struct error *error)
{
    struct arguments arguments = {.preset = "vit_tiny",
                                  .precision = "fp32",
                                  .kind = "quest",
                                  .device = "auto",
                                  .graph = "auto",
                                  .batch = 8,
                                  .iterations = 5,
                                  .warmup = 2};
    struct bench bench = {.comm = comm, .arguments = &arguments};
    double step_s = 0;
    if (!comm_agree(comm, command_line_parse(&command_line, argc, argv, &arguments, error), error))
        return false;
    if (arguments.floor)
        return comm_agree(comm, print_floor(&bench, error), error);
    if (!comm_agree(comm, open_bench(&bench, error), error)) {
        model_close(bench.model);
        return false;
    }
    struct comm_gradient_options gradient = {.kernels = bench.kernels,
                                             .context = bench.model->context,
                                             .gradient = bench.model->gradient,
                                             .count = bench.model->parameters.total,
                                             .bucket_mib = 4,
                                             .timeout_s = 300};
    if (!comm_agree(comm, comm_gradient_open(&bench.gradient, comm, &gradient, error), error))
        return false;
    if (!time_steps(&bench, &step_s, error) || !comm_reduce(comm, &step_s, 1, COMM_MAX, error))
        return false;
    if (comm_rank(comm) == 0)
        print(&bench, step_s);
    comm_gradient_close(bench.gradient);
    bench.kernels->release(bench.model->context, bench.pixels);
    bench.kernels->release(bench.model->context, bench.labels);
    model_close(bench.model);
    return true;
}
