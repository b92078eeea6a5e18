/* Starts the grid's runs as processes, as many at a time as asked for, and collects what each hands back. */
#include "src/retrieval/pool.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "src/base/stop_signal.h"
#include "src/retrieval/run.h"

/* A process and what it hands back: memory shared between the two. */
struct slot {
    pid_t process; /* 0: free */
    struct retrieval_result result;
    struct error error;
};

struct pool {
    const struct retrieval_grid *grid;
    const char *out;
    struct slot *slots;
    size_t jobs, running;
    char **directories; /* [grid->count] */
    bool *finished;     /* [grid->count]: before this call */
    size_t next, done, pending;
    double begin_s;
    bool failed; /* *error is filled in */
    struct error *error;
};

static size_t cores(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? (size_t)CPU_COUNT(&set) : 1;
}

static bool open_pool(struct pool *pool, struct error *error)
{
    if (pool->jobs > 1024)
        return error_input(error, "--jobs: %zu are more than the 1024 that are possible", pool->jobs);
    pool->directories = calloc(pool->grid->count, sizeof *pool->directories);
    pool->finished = calloc(pool->grid->count, sizeof *pool->finished);
    void *slots =
        mmap(NULL, pool->jobs * sizeof *pool->slots, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pool->slots = slots == MAP_FAILED ? NULL : slots;
    return (pool->directories && pool->finished && pool->slots) ||
           error_runtime(error, "out of memory for %zu processes", pool->jobs);
}

static void close_pool(struct pool *pool)
{
    if (pool->slots)
        munmap(pool->slots, pool->jobs * sizeof *pool->slots);
    for (size_t i = 0; pool->directories && i < pool->grid->count; i++)
        free(pool->directories[i]);
    free(pool->directories);
    free(pool->finished);
}

/* Where each run goes, and whether it is finished. */
static bool look_around(struct pool *pool, struct error *error)
{
    struct retrieval_result result;
    for (size_t i = 0; i < pool->grid->count; i++) {
        const struct retrieval_config *config = &pool->grid->runs[i];
        char *directory = pool->directories[i] = retrieval_run_directory(config, pool->out);
        if (!directory)
            return error_runtime(error, "out of memory for the names of %zu runs", pool->grid->count);
        for (size_t before = 0; before < i; before++)
            if (strcmp(pool->directories[before], directory) == 0)
                return error_input(error, "two runs of the grid would go to %s; are a file or a value given twice?",
                                   directory);
        if (!retrieval_run_finished(&pool->finished[i], &result, config, directory, error))
            return false;
        pool->pending += !pool->finished[i];
    }
    return true;
}

/* ---- a run's process ---- */

static _Noreturn void run_in_child(const struct pool *pool, struct slot *slot, size_t index)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    bool ok = retrieval_run(&slot->result, &pool->grid->runs[index], pool->directories[index], &slot->error);
    _exit(ok ? 0 : 1);
}

static void fail(struct pool *pool, const struct error *error)
{
    if (!pool->failed)
        *pool->error = *error;
    pool->failed = true;
}

static void start(struct pool *pool, size_t index)
{
    struct error error;
    struct slot *slot = pool->slots;
    while (slot->process)
        slot++;
    memset(slot, 0, sizeof *slot);
    fflush(stdout);
    pid_t process = fork();
    if (process == 0)
        run_in_child(pool, slot, index);
    if (process < 0) {
        error_runtime(&error, "a process cannot be started: %s", strerror(errno));
        fail(pool, &error);
        return;
    }
    slot->process = process;
    pool->running++;
}

static void print_result(struct pool *pool, const struct retrieval_result *result)
{
    pool->done++;
    double passed_s = clock_s() - pool->begin_s;
    printf(
        "[%*zu/%zu] %s %-11s lr %-6g decay %-4g seed %-2llu  unbiased %5.1f %%  biased %5.1f %%  %.2f s; %.0f s left\n",
        (int)snprintf(NULL, 0, "%zu", pool->pending), pool->done, pool->pending, result->specification, result->kind,
        result->lr, result->weight_decay, (unsigned long long)result->seed, 100 * result->accuracy_unbiased,
        100 * result->accuracy_biased, result->cpu_s,
        passed_s * (double)(pool->pending - pool->done) / (double)pool->done);
    fflush(stdout);
}

/* Waits for one process to end. */
static void collect(struct pool *pool)
{
    struct error error;
    int status = 0;
    pid_t process = waitpid(-1, &status, 0);
    if (process < 0)
        return;
    struct slot *slot = pool->slots;
    while (slot < pool->slots + pool->jobs && slot->process != process)
        slot++;
    if (slot == pool->slots + pool->jobs)
        return;
    slot->process = 0;
    pool->running--;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        print_result(pool, &slot->result);
    } else if (slot->error.status != ERROR_NONE) {
        fail(pool, &slot->error);
    } else {
        error_runtime(&error, "the process of a run ended unexpectedly (%s %d)",
                      WIFSIGNALED(status) ? "signal" : "status",
                      WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        fail(pool, &error);
    }
}

static void stop_all(const struct pool *pool)
{
    for (size_t i = 0; i < pool->jobs; i++)
        if (pool->slots[i].process)
            kill(pool->slots[i].process, SIGTERM);
}

static void run_pending(struct pool *pool)
{
    while (pool->running > 0 || (pool->next < pool->grid->count && !pool->failed && !stop_signal_raised())) {
        if ((pool->failed || stop_signal_raised()) && pool->running > 0)
            stop_all(pool);
        while (pool->running < pool->jobs && pool->next < pool->grid->count && !pool->failed && !stop_signal_raised()) {
            size_t index = pool->next++;
            if (!pool->finished[index])
                start(pool, index);
        }
        if (pool->running > 0)
            collect(pool);
    }
}

bool retrieval_pool_run(const struct retrieval_grid *grid, const char *out, size_t jobs, struct error *error)
{
    struct pool pool = {.grid = grid, .out = out, .jobs = jobs ? jobs : cores(), .begin_s = clock_s(), .error = error};
    bool ok = open_pool(&pool, error) && look_around(&pool, error);
    if (ok) {
        printf("%zu runs in %s, %zu of them finished before; %zu at a time\n", grid->count, out,
               grid->count - pool.pending, pool.jobs);
        run_pending(&pool);
        ok = !pool.failed && !stop_signal_raised();
        if (stop_signal_raised())
            error_runtime(error, "stopped after %zu of %zu runs; the same command goes on from there", pool.done,
                          pool.pending);
        printf("%zu runs in %.1f s\n", pool.done, clock_s() - pool.begin_s);
    }
    close_pool(&pool);
    return ok;
}
