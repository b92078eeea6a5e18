#include "src/bench_gemm.h"

#include <stdio.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm_rate.h"
#include "src/command_line.h"
#include "src/config.h"

enum { OPTION_SIZE = 256, OPTION_THREADS, OPTION_PRECISION, OPTION_JSON };

static const struct argp_option options[] = {
    {"size", OPTION_SIZE, "S", 0, "Rows and columns of the matrices [2048]", 0},
    {"threads", OPTION_THREADS, "T", 0, "CPU threads [OMP_NUM_THREADS, or the cores that it may use]", 0},
    {"precision", OPTION_PRECISION, "fp32|bf16", 0, "[fp32]", 0},
    {"json", OPTION_JSON, NULL, 0, "Print one JSON object", 0},
    {0},
};

struct arguments {
    size_t size, threads;
    enum dtype dtype;
    bool json;
    struct error *error;
};

static error_t parse_precision(struct arguments *arguments, const char *value)
{
    if (strcmp(value, "fp32") != 0 && strcmp(value, "bf16") != 0) {
        error_input(arguments->error, "--precision: '%s' is neither fp32 nor bf16", value);
        return EINVAL;
    }
    arguments->dtype = strcmp(value, "fp32") == 0 ? DTYPE_FLOAT32 : DTYPE_BFLOAT16;
    return 0;
}

static error_t parse(int key, char *value, struct argp_state *state)
{
    struct arguments *arguments = state->input;
    switch (key) {
    case OPTION_SIZE:
        return command_line_count(&arguments->size, "--size", value, arguments->error) ? 0 : EINVAL;
    case OPTION_THREADS:
        return command_line_count(&arguments->threads, "--threads", value, arguments->error) ? 0 : EINVAL;
    case OPTION_PRECISION:
        return parse_precision(arguments, value);
    case OPTION_JSON:
        arguments->json = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {options, parse, NULL, "Times oneDNN's product of two square matrices on the CPU.",
                                 NULL,    NULL,  NULL};

bool bench_gemm(struct comm *comm, int argc, char **argv, bool *agreed, struct error *error)
{
    struct arguments arguments = {.size = 2048, .error = error};
    double flops = 0;
    *agreed = true;
    if (!comm_agree(comm, command_line_parse(&argp, argc, argv, &arguments, error), error))
        return false;
    struct context_options context = {.threads = (int)arguments.threads};
    int threads = cpu_threads(&context);
    if (!comm_agree(comm, cpu_gemm_rate(&flops, arguments.size, threads, arguments.dtype, 1.0, error), error))
        return false;
    *agreed = false;
    if (!comm_reduce(comm, &flops, 1, COMM_MIN, error))
        return false;
    if (comm_rank(comm) != 0)
        return true;
    if (arguments.json)
        printf("{\"size\": %zu, \"threads\": %d, \"precision\": \"%s\", \"device\": \"cpu\", \"gflops\": %.6g}\n",
               arguments.size, threads, dtype_name(arguments.dtype), 1e-9 * flops);
    else
        printf("%zu x %zu x %zu %s, %d thread%s: %.1f GFLOP/s\n", arguments.size, arguments.size, arguments.size,
               dtype_name(arguments.dtype), threads, threads == 1 ? "" : "s", 1e-9 * flops);
    return true;
}
