/* quest-bench: one subcommand a part, each printing a line (or --json) that a script can read. */
#include <stdio.h>
#include <string.h>

#include "src/bench/allreduce.h"
#include "src/bench/attention.h"
#include "src/bench/gemm.h"
#include "src/bench/loader.h"
#include "src/bench/step.h"
#include "src/comm/comm.h"

/* All are collective; argv[0] is the subcommand. */
static const struct benchmark {
    const char *name, *meaning;
    bool (*run)(struct comm *comm, int argc, char **argv, struct error *error);
} benchmarks[] = {
    {"step", "whole training steps of a preset", bench_step},
    {"loader", "batches from a dataset", bench_loader},
    {"gemm", "a square matrix product, the measure of the others", bench_gemm},
    {"allreduce", "the gradient all-reduce of a step, two ranks or more", bench_allreduce},
    {"attention", "one attention op, forward or backward", bench_attention},
};

static void print_usage(void)
{
    printf("Usage: [mpirun -np R] quest-bench SUBCOMMAND [options]\n\n");
    for (size_t i = 0; i < sizeof benchmarks / sizeof *benchmarks; i++)
        printf("  %-10s %s\n", benchmarks[i].name, benchmarks[i].meaning);
    printf("\nquest-bench SUBCOMMAND --help lists a subcommand's options.\n");
}

static const struct benchmark *find(const char *name, struct error *error)
{
    for (size_t i = 0; i < sizeof benchmarks / sizeof *benchmarks; i++)
        if (strcmp(name, benchmarks[i].name) == 0)
            return &benchmarks[i];
    error_input(error, "quest-bench: there is no benchmark '%s'; --help lists them", name);
    error_shared(error);
    return NULL;
}

int main(int argc, char **argv)
{
    struct error error;
    struct comm *comm = NULL;
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0)) {
        print_usage();
        return 0;
    }
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        printf("QUEST-Train %s\n", QUEST_VERSION);
        return 0;
    }
    if (!comm_open(&comm, &argc, &argv, &error))
        comm_exit(comm, &error);
    const struct benchmark *benchmark = find(argc > 1 ? argv[1] : "(none given)", &error);
    if (!benchmark)
        comm_exit(comm, &error);
    if (!benchmark->run(comm, argc - 1, argv + 1, &error))
        comm_exit(comm, &error);
    comm_close(comm);
    return 0;
}
