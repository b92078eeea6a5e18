#ifndef QUEST_BENCH_STEP_H
#define QUEST_BENCH_STEP_H

#include "src/comm/comm.h"

/* `quest-bench step`: whole training steps (forward, loss, backward, reduction, AdamW) of a preset on random images
 * that lie in memory. argv[0] is "step". Collective. */
bool bench_step(struct comm *comm, int argc, char **argv, struct error *error);

#endif
