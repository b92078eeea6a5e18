/* A crew of threads that work ahead of the one that takes their results in order. */
#include "src/base/ordered_work.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/stop_signal.h"

enum { AHEAD_PER_WORKER = 8 };

struct entry {
    void *result;
    bool made;
};

struct crew {
    const struct ordered_work *work;
    struct entry *ring; /* item i lies in ring[i % ring_size] */
    size_t ring_size, next_to_make, next_to_take, workers_named;
    bool stopping;
    pthread_mutex_t lock;
    pthread_cond_t room, made;
};

size_t ordered_work_cpus(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? (size_t)CPU_COUNT(&set) : 1;
}

static void *worker_main(void *argument)
{
    struct crew *crew = argument;
    const struct ordered_work *work = crew->work;
    pthread_mutex_lock(&crew->lock);
    size_t worker = crew->workers_named++;
    while (!crew->stopping && crew->next_to_make < work->items) {
        if (crew->next_to_make >= crew->next_to_take + crew->ring_size) {
            pthread_cond_wait(&crew->room, &crew->lock);
            continue;
        }
        size_t item = crew->next_to_make++;
        pthread_mutex_unlock(&crew->lock);
        void *result = work->make(work->owner, worker, item);
        pthread_mutex_lock(&crew->lock);
        crew->ring[item % crew->ring_size] = (struct entry){result, true};
        if (item == crew->next_to_take)
            pthread_cond_signal(&crew->made);
    }
    pthread_mutex_unlock(&crew->lock);
    if (work->thread_end)
        work->thread_end(work->owner);
    return NULL;
}

/* Lock held on entry and exit. */
static bool take_all(struct crew *crew, struct error *error)
{
    const struct ordered_work *work = crew->work;
    bool ok = true;
    while (ok && crew->next_to_take < work->items) {
        struct entry *entry = &crew->ring[crew->next_to_take % crew->ring_size];
        while (!entry->made)
            pthread_cond_wait(&crew->made, &crew->lock);
        void *result = entry->result;
        entry->made = false;
        pthread_mutex_unlock(&crew->lock);
        ok = work->take(work->owner, crew->next_to_take, result, error);
        if (ok && stop_signal_raised())
            ok = error_runtime(error, "interrupted after %zu of %zu; nothing is kept", crew->next_to_take + 1,
                               work->items);
        pthread_mutex_lock(&crew->lock);
        crew->next_to_take++;
        pthread_cond_broadcast(&crew->room);
    }
    return ok;
}

static bool run(struct crew *crew, pthread_t *threads, struct error *error)
{
    size_t started = 0;
    int failure = 0;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (failure == 0 && started < crew->work->workers) {
        failure = pthread_create(&threads[started], NULL, worker_main, crew);
        started += failure == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_mutex_lock(&crew->lock);
    bool ok = failure == 0 ? take_all(crew, error)
                           : error_runtime(error, "thread %zu cannot be started: %s", started, strerror(failure));
    crew->stopping = true;
    pthread_cond_broadcast(&crew->room);
    pthread_mutex_unlock(&crew->lock);
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < crew->ring_size; i++)
        if (crew->ring[i].made)
            crew->work->drop(crew->work->owner, crew->ring[i].result);
    return ok;
}

bool ordered_work_run(const struct ordered_work *work, struct error *error)
{
    struct crew crew = {.work = work, .ring_size = AHEAD_PER_WORKER * work->workers};
    crew.ring = calloc(crew.ring_size, sizeof *crew.ring);
    pthread_t *threads = calloc(work->workers, sizeof *threads);
    pthread_mutex_init(&crew.lock, NULL);
    pthread_cond_init(&crew.room, NULL);
    pthread_cond_init(&crew.made, NULL);
    bool ok = crew.ring && threads ? run(&crew, threads, error)
                                   : error_runtime(error, "no memory for %zu workers", work->workers);
    pthread_cond_destroy(&crew.made);
    pthread_cond_destroy(&crew.room);
    pthread_mutex_destroy(&crew.lock);
    free(threads);
    free(crew.ring);
    return ok;
}
