/* Input for benchmarks of single ops. */
#ifndef QUEST_BENCH_RANDOM_H
#define QUEST_BENCH_RANDOM_H

#include "kernels/kernels.h"

/* A new tensor of the backend, T [count], of random numbers of variance 1, evenly in -1.7 .. 1.7, as behind a LayerNorm
 * and a projection: on zeros a GPU draws less power, and multiplies up to an eighth faster. They repeat themselves
 * after some 250,000. Waits. */
bool bench_random(const struct kernels *kernels, struct context *ctx, void **tensor, size_t count, enum dtype dtype,
                  struct error *error);

#endif
