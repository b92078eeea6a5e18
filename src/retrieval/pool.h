/* All runs of a grid, several at once, each in a process of its own with one thread. */
#ifndef QUEST_RETRIEVAL_POOL_H
#define QUEST_RETRIEVAL_POOL_H

#include "src/retrieval/config.h"

/* Runs into directories under `out`, `jobs` at a time (0: one a core that this process may use); runs that are finished
 * there already are left out. A line on stdout for each. After a failure or a signal (stop_signal.h, installed by the
 * caller) nothing new is begun, and the error is that of the first run that failed. */
bool retrieval_pool_run(const struct retrieval_grid *grid, const char *out, size_t jobs, struct error *error);

#endif
