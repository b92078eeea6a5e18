#ifndef QUEST_BENCH_LOADER_H
#define QUEST_BENCH_LOADER_H

#include <stdbool.h>

#include "src/comm/comm.h"

/* quest-bench loader: how fast batches come out of a dataset, and for JPEG how fast libturbojpeg alone decodes the same
 * streams. Every rank measures for itself; rank 0 prints. argv[0] is the subcommand. */
bool bench_loader(struct comm *comm, int argc, char **argv, struct error *error);

#endif
