#ifndef QUEST_BENCH_GEMM_H
#define QUEST_BENCH_GEMM_H

#include "src/comm/comm.h"

/* `quest-bench gemm`: the rate of oneDNN's plain product of two square matrices on the CPU, which the rate of a
 * training step is measured against. argv[0] is "gemm". Collective: every rank multiplies at the same time, the slowest
 * one's rate is printed. */
bool bench_gemm(struct comm *comm, int argc, char **argv, struct error *error);

#endif
