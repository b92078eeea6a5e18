/* norms.jsonl kept small: at log.segment_mib it becomes a numbered segment (a rename), a new norms.jsonl goes on, and a
 * thread compresses the segment beside the training. Every moment of it leaves each line in exactly one place, or twice
 * in a plain and a compressed segment of the same number, of which readers take one. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "src/log/files.h"
#include "src/log/segments.h"

struct log_packer {
    pthread_t thread;
    const char *path;
    atomic_bool finished;
    bool ok;
    struct error error;
};

/* All segments that are not compressed yet, also those that another run left. */
static bool pack_all(const char *path, struct error *error)
{
    uint64_t first, last;
    log_segments_range(path, &first, &last);
    for (uint64_t number = first; number > 0 && number <= last; number++)
        if (log_segment_exists(path, number, LOG_SEGMENT_PLAIN) && !log_segment_pack(path, number, error))
            return false;
    return true;
}

static void *run_packer(void *argument)
{
    struct log_packer *packer = argument;
    /* Linux's nice value is the thread's own: the training keeps its cores. Where it cannot be set that is no loss. */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), 19);
    packer->ok = pack_all(packer->path, &packer->error);
    atomic_store(&packer->finished, true);
    return NULL;
}

bool run_log_start_packer(struct run_log *log, struct error *error)
{
    sigset_t all, before;
    struct log_packer *packer = calloc(1, sizeof *packer);
    if (!packer)
        return error_runtime(error, "%s: out of memory", log->paths[RUN_LOG_NORMS]);
    packer->path = log->paths[RUN_LOG_NORMS];
    atomic_init(&packer->finished, false);
    sigfillset(&all); /* signals to stop are the main thread's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int problem = pthread_create(&packer->thread, NULL, run_packer, packer);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (problem == 0) {
        log->packer = packer;
        return true;
    }
    free(packer);
    return error_runtime(error, "%s: its segments stay uncompressed: no thread: %s", log->paths[RUN_LOG_NORMS],
                         strerror(problem));
}

bool run_log_packed(struct run_log *log, bool wait, struct error *error)
{
    struct log_packer *packer = log->packer;
    if (!packer || (!wait && !atomic_load(&packer->finished)))
        return true;
    pthread_join(packer->thread, NULL);
    bool ok = packer->ok;
    if (!ok)
        *error = packer->error;
    free(packer);
    log->packer = NULL;
    return ok;
}

bool run_log_rotate(struct run_log *log, struct error *error)
{
    uint64_t first, last;
    const char *path = log->paths[RUN_LOG_NORMS];
    bool packed = run_log_packed(log, false, error);
    log_segments_range(path, &first, &last);
    char *segment = log_segment_path(path, last + 1, LOG_SEGMENT_PLAIN);
    bool ok = segment ? rename(path, segment) == 0 ||
                            error_runtime(error, "%s: cannot be renamed to %s: %s", path, segment, strerror(errno))
                      : error_runtime(error, "%s: out of memory", path);
    free(segment);
    ok = ok && run_log_open_file(log, RUN_LOG_NORMS, error);
    if (!ok)
        return false;
    /* A packer that is still at work is left to it: the next one finds this segment too. What the last one met is told,
     * and tried once more. */
    struct error other;
    return (log->packer || run_log_start_packer(log, packed ? error : &other)) && packed;
}

bool run_log_finish(struct run_log *log, struct error *error)
{
    bool ok = run_log_packed(log, true, error);
    return log->options.segment_mib > 0 && ok ? pack_all(log->paths[RUN_LOG_NORMS], error) : ok;
}
