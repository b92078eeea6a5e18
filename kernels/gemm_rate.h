/* How fast this CPU multiplies matrices: what every other speed is measured against. */
#ifndef QUEST_KERNELS_GEMM_RATE_H
#define QUEST_KERNELS_GEMM_RATE_H

#include "kernels/kernels.h"

/* *flops = FLOP/s of oneDNN's plain size^3 product of `dtype` on *threads threads: the best of as many products as fit
 * in `budget_s` seconds, at least 3. *threads = 0 stands for as many as the backend would take, and becomes their
 * number. ERROR_INPUT where the CPU cannot multiply the dtype. */
bool cpu_gemm_rate(double *flops, size_t size, int *threads, enum dtype dtype, double budget_s, struct error *error);

#endif
