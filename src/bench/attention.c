/* quest-bench attention: one attention op on random numbers, by the kernels table of any backend. */
#include "src/bench/attention.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/attention_kinds.h"
#include "src/base/random.h"
#include "src/bench/options.h"
#include "src/comm/device.h"
#include "src/config/config.h"

enum { ROUNDS = 5 };

struct arguments {
    struct attention_shape shape;
    enum dtype dtype;
    const char *device;
    size_t iterations, warmup, threads;
    bool backward, statistics, json;
};

static bool take_kind(void *field, const struct command_option *option, const char *text, struct error *error)
{
    char names[256] = "";
    (void)option;
    if (attention_kind_from_name(field, text))
        return true;
    for (size_t i = 0; attention_kind_names[i]; i++) {
        const char *separator = i == 0 ? "" : attention_kind_names[i + 1] ? ", " : " or ";
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", separator, attention_kind_names[i]);
    }
    return error_input(error, "--kind: '%s' is not %s", text, names);
}

static const struct command_option options[] = {
    {"kind", "K", "Attention kind [quest]", take_kind, INTO(shape.kind)},
    {"batch", "B", "Images a rank [8]", command_line_count, INTO(shape.batch)},
    {"heads", "H", "[3]", command_line_count, INTO(shape.heads)},
    {"tokens", "N", "[197]", command_line_count, INTO(shape.tokens)},
    {"head-dim", "D", "A multiple of 8, at most 256 [64]", command_line_count, INTO(shape.head_dim)},
    BENCH_PRECISION,
    {"backward", NULL, "Time the backward pass instead of the forward one", command_line_flag, INTO(backward)},
    {"statistics", NULL, "The forward pass takes the statistics of a logged step", command_line_flag, INTO(statistics)},
    {"iterations", "I", "Timed calls, in up to 5 rounds of which the fastest counts [50]", command_line_count,
     INTO(iterations)},
    {"warmup", "W", "Calls before them [3]", command_line_count_or_none, INTO(warmup)},
    BENCH_THREADS,
    BENCH_DEVICE,
    BENCH_JSON,
    {0},
};

static const struct command_line command_line = {.options = options,
                                                 .meaning = "Times one attention op, forward or backward."};

/* Device memory of the op, freed in the order of `memory`. */
enum { QKV, OUT, OUT_GRADIENT, QKV_GRADIENT, LOGSUMEXP, STATISTICS, LEARNED, LEARNED_GRADIENTS, MEMORIES };

struct bench {
    const struct arguments *arguments;
    const struct kernels *kernels;
    struct context *ctx;
    void *memory[MEMORIES];
    struct attention_parameters parameters;
    struct attention_gradients gradients;
};

static bool upload(struct bench *bench, void *device, const void *host, size_t bytes, struct error *error)
{
    return bench->kernels->upload(bench->ctx, device, host, bytes, error) &&
           bench->kernels->synchronise(bench->ctx, error);
}

/* Random numbers of T, evenly in -1.7 .. 1.7: variance 1, as behind a LayerNorm and a projection. */
static bool fill_random(struct bench *bench, int which, size_t count, struct error *error)
{
    bool wide = bench->arguments->dtype == DTYPE_FLOAT32;
    float *numbers = malloc(count * sizeof *numbers);
    uint16_t *halves = (uint16_t *)numbers; /* written behind where numbers are read */
    if (!numbers)
        return error_runtime(error, "out of memory for the input");
    for (size_t i = 0; i < count; i += 2) {
        double pair[2];
        random_uniform_pair(pair, 0, random_stream("bench"), (uint64_t)which << 40 | i);
        for (size_t j = 0; j < 2 && i + j < count; j++) {
            float value = (float)(3.4 * pair[j] - 1.7);
            uint32_t bits;
            memcpy(&bits, &value, sizeof bits);
            if (wide)
                numbers[i + j] = value;
            else
                halves[i + j] = (uint16_t)(bits >> 16);
        }
    }
    bool ok = upload(bench, bench->memory[which], numbers, count * dtype_bytes(bench->arguments->dtype), error);
    free(numbers);
    return ok;
}

/* The learned extras at their initial values, room for `most` numbers each. */
static bool make_extras(struct bench *bench, size_t most, struct error *error)
{
    const struct attention_shape *shape = &bench->arguments->shape;
    float *host = calloc(ATTENTION_EXTRAS * most, sizeof *host);
    if (!host)
        return error_runtime(error, "out of memory for the learned extras");
    for (enum attention_extra extra = 0; extra < ATTENTION_EXTRAS; extra++) {
        if (!attention_learns(shape->kind, extra))
            continue;
        for (size_t i = 0; i < most; i++)
            host[extra * most + i] = (float)attention_extra_start(shape->kind, extra, shape->head_dim);
        bench->parameters.extra[extra] = (float *)bench->memory[LEARNED] + extra * most;
        bench->gradients.extra[extra] = (float *)bench->memory[LEARNED_GRADIENTS] + extra * most;
    }
    bool ok = upload(bench, bench->memory[LEARNED], host, ATTENTION_EXTRAS * most * sizeof *host, error);
    free(host);
    return ok;
}

static bool open_bench(struct bench *bench, const struct comm *comm, struct error *error)
{
    static const char *const names[MEMORIES] = {"qkv",       "out",        "out_gradient", "qkv_gradient",
                                                "logsumexp", "statistics", "parameters",   "gradients"};
    const struct arguments *arguments = bench->arguments;
    const struct attention_shape *shape = &arguments->shape;
    size_t dim = shape->heads * shape->head_dim, rows = shape->batch * shape->tokens;
    size_t most = (shape->heads > shape->head_dim ? shape->heads : shape->head_dim) + 15;
    most -= most % 16; /* keeps the gradients aligned */
    size_t number = dtype_bytes(arguments->dtype);
    size_t bytes[MEMORIES] = {[QKV] = 3 * rows * dim * number,
                              [OUT] = rows * dim * number,
                              [OUT_GRADIENT] = rows * dim * number,
                              [QKV_GRADIENT] = 3 * rows * dim * number,
                              [LOGSUMEXP] = rows * shape->heads * sizeof(float),
                              [STATISTICS] = shape->heads * ATTENTION_STATISTICS * sizeof(double),
                              [LEARNED] = ATTENTION_EXTRAS * most * sizeof(float),
                              [LEARNED_GRADIENTS] = ATTENTION_EXTRAS * most * sizeof(float)};
    struct context_options context = {.dtype = arguments->dtype, .threads = (int)arguments->threads};
    context.workload = (struct workload){.batch = shape->batch,
                                         .patches = shape->tokens - 1,
                                         .patch_dim = 16,
                                         .dim = dim,
                                         .hidden = dim,
                                         .heads = shape->heads,
                                         .classes = 1,
                                         .kind = shape->kind};
    if (!attention_head_dim_fits(shape->head_dim))
        return error_input(error, "--head-dim: %zu is not a multiple of %d up to %d", shape->head_dim,
                           ATTENTION_HEAD_DIM_STEP, ATTENTION_MOST_HEAD_DIM);
    if (!device_choose(&bench->kernels, &context.device, arguments->device, comm, error) ||
        !bench->kernels->open(&bench->ctx, &context, error))
        return false;
    for (int i = 0; i < MEMORIES; i++)
        if (!bench->kernels->allocate(bench->ctx, &bench->memory[i], bytes[i], names[i], error))
            return false;
    return make_extras(bench, most, error) && fill_random(bench, QKV, 3 * rows * dim, error) &&
           fill_random(bench, OUT_GRADIENT, rows * dim, error);
}

static void close_bench(struct bench *bench)
{
    if (!bench->ctx)
        return;
    for (int i = 0; i < MEMORIES; i++)
        if (bench->memory[i])
            bench->kernels->release(bench->ctx, bench->memory[i]);
    bench->kernels->close(bench->ctx);
}

static bool forward(struct bench *bench, struct error *error)
{
    void **memory = bench->memory;
    return bench->kernels->attention_forward(
        bench->ctx, memory[OUT], memory[LOGSUMEXP], memory[QKV], &bench->parameters,
        bench->arguments->statistics ? memory[STATISTICS] : NULL, &bench->arguments->shape, error);
}

static bool backward(struct bench *bench, struct error *error)
{
    void **memory = bench->memory;
    struct attention_backward backward = {.qkv_gradient = memory[QKV_GRADIENT],
                                          .gradients = &bench->gradients,
                                          .out_gradient = memory[OUT_GRADIENT],
                                          .out = memory[OUT],
                                          .logsumexp = memory[LOGSUMEXP],
                                          .qkv = memory[QKV],
                                          .parameters = &bench->parameters,
                                          .shape = &bench->arguments->shape};
    return bench->kernels->attention_backward(bench->ctx, &backward, error);
}

static bool run(struct bench *bench, size_t calls, struct error *error)
{
    for (size_t i = 0; i < calls; i++)
        if (!(bench->arguments->backward ? backward : forward)(bench, error))
            return false;
    return true;
}

/* *call_s: seconds of a call in the fastest of up to ROUNDS rounds, `iterations` calls in all; a GPU's calls are queued
 * without waiting for each. */
static bool time_calls(struct bench *bench, double *call_s, struct error *error)
{
    size_t left = bench->arguments->iterations, a_round = (left + ROUNDS - 1) / ROUNDS;
    *call_s = INFINITY;
    if ((bench->arguments->backward && !forward(bench, error)) || !run(bench, bench->arguments->warmup, error))
        return false;
    while (left > 0) {
        size_t calls = left < a_round ? left : a_round;
        double seconds;
        if (!bench->kernels->mark(bench->ctx, 0, error) || !run(bench, calls, error) ||
            !bench->kernels->mark(bench->ctx, 1, error) || !bench->kernels->elapsed(bench->ctx, 0, 1, &seconds, error))
            return false;
        *call_s = fmin(*call_s, seconds / (double)calls);
        left -= calls;
    }
    return true;
}

/* What part of the device's peak a rate is, as text; nothing where the peak is not known or was not asked for (CPU). */
static void format_fraction(char *text, size_t text_bytes, const struct bench *bench, double flop_per_s,
                            double bytes_per_s)
{
    double peak_flops = 0, peak_bytes = 0;
    text[0] = '\0';
    if (bench->kernels->on_host)
        return;
    bench->kernels->limits(bench->ctx, &peak_flops, &peak_bytes);
    if (peak_flops > 0 && peak_bytes > 0)
        snprintf(text, text_bytes, " (%.1f %% and %.1f %% of the device's limits)", 100 * flop_per_s / peak_flops,
                 100 * bytes_per_s / peak_bytes);
}

/* Products only: 2 of them forward; backward 5, with the logits again. Bytes: each input read and each output written
 * once. */
static void print(const struct bench *bench, double call_s)
{
    const struct arguments *arguments = bench->arguments;
    const struct attention_shape *shape = &arguments->shape;
    double rows = (double)shape->batch * (double)shape->tokens * (double)shape->heads;
    double numbers = rows * (double)shape->head_dim;
    double flop = (arguments->backward ? 10 : 4) * numbers * (double)shape->tokens;
    double bytes = (arguments->backward ? 8 : 4) * numbers * (double)dtype_bytes(arguments->dtype) + 4 * rows;
    const char *pass = arguments->backward ? "backward" : "forward";
    char fraction[96];
    format_fraction(fraction, sizeof fraction, bench, flop / call_s, bytes / call_s);
    if (arguments->json)
        printf("{\"kind\": \"%s\", \"pass\": \"%s\", \"precision\": \"%s\", \"device\": \"%s\", \"batch\": %zu, "
               "\"heads\": %zu, \"tokens\": %zu, \"head_dim\": %zu, \"statistics\": %s, \"time_ms\": %.6g, "
               "\"gflops\": %.6g, \"gb_per_s\": %.6g}\n",
               attention_kind_name(shape->kind), pass, dtype_name(arguments->dtype), bench->kernels->name, shape->batch,
               shape->heads, shape->tokens, shape->head_dim, arguments->statistics ? "true" : "false", 1e3 * call_s,
               1e-9 * flop / call_s, 1e-9 * bytes / call_s);
    else
        printf("%s attention %s%s, %s on %s, %zu images x %zu heads x %zu tokens x %zu: %.3f ms, %.1f GFLOP/s, "
               "%.2f GB/s of compulsory traffic%s\n",
               attention_kind_name(shape->kind), pass, arguments->statistics ? " with statistics" : "",
               dtype_name(arguments->dtype), bench->kernels->name, shape->batch, shape->heads, shape->tokens,
               shape->head_dim, 1e3 * call_s, 1e-9 * flop / call_s, 1e-9 * bytes / call_s, fraction);
}

bool bench_attention(struct comm *comm, int argc, char **argv, struct error *error)
{
    struct arguments arguments = {
        .shape = {ATTENTION_QUEST, 8, 197, 3, 64}, .device = "auto", .iterations = 50, .warmup = 3};
    struct bench bench = {.arguments = &arguments};
    double call_s = 0;
    bool ok = comm_agree(comm, command_line_parse(&command_line, argc, argv, &arguments, error), error) &&
              comm_agree(comm, open_bench(&bench, comm, error), error) &&
              comm_agree(comm, time_calls(&bench, &call_s, error), error);
    ok = ok && comm_reduce(comm, &call_s, 1, COMM_MAX, error);
    if (ok && comm_rank(comm) == 0)
        print(&bench, call_s);
    close_bench(&bench);
    return ok;
}
