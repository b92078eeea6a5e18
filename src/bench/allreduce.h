#ifndef QUEST_BENCH_ALLREDUCE_H
#define QUEST_BENCH_ALLREDUCE_H

#include "src/comm/comm.h"

/* `quest-bench allreduce`: the gradient all-reduce of a training step by itself, over MPI or NCCL as the device has it.
 * argv[0] is "allreduce". Collective; at least two ranks. */
bool bench_allreduce(struct comm *comm, int argc, char **argv, struct error *error);

#endif
