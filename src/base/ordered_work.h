/* Many items made by several threads and taken in order by one: what importing, generating and verifying have in
 * common. Memory is bounded, because no thread runs further ahead than `ahead` items. */
#ifndef QUEST_BASE_ORDERED_WORK_H
#define QUEST_BASE_ORDERED_WORK_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/error.h"

struct ordered_work {
    size_t items, workers;
    void *owner;
    /* Any thread, any order. `worker` is 0 .. workers - 1, for buffers of its own. The result is handed to take. */
    void *(*make)(void *owner, size_t worker, size_t item);
    /* The calling thread, items in order; releases the result. false stops the work. */
    bool (*take)(void *owner, size_t item, void *result, struct error *error);
    /* Releases a result that will not be taken. */
    void (*drop)(void *owner, void *result);
    /* Ends what a library keeps for a thread; NULL for nothing. */
    void (*thread_end)(void *owner);
};

/* false where take failed, a thread could not be started, or SIGINT or SIGTERM asked to stop (stop_signal.h). */
bool ordered_work_run(const struct ordered_work *work, struct error *error);
/* CPUs that this process may use. */
size_t ordered_work_cpus(void);

#endif
