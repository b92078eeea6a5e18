#ifndef QUEST_BENCH_ATTENTION_H
#define QUEST_BENCH_ATTENTION_H

#include "src/comm/comm.h"

/* `quest-bench attention`: one attention op of the table in kernels.h, of any backend. argv[0] is "attention".
 * Collective: every rank runs it at the same time, the slowest one's time is printed. */
bool bench_attention(struct comm *comm, int argc, char **argv, struct error *error);

#endif
