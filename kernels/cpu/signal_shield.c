/* Signals blocked for the time of a product; signal_shield.h says why. */
#include "kernels/cpu/signal_shield.h"

#include <omp.h>
#include <string.h>

static int block(sigset_t *before)
{
    const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
    sigset_t set;
    sigfillset(&set);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&set, faults[i]);
    return pthread_sigmask(SIG_BLOCK, &set, before);
}

static bool check(int problem, struct error *error)
{
    return problem == 0 || error_runtime(error, "signals could not be blocked: %s", strerror(problem));
}

bool signal_shield_raise(sigset_t *before, struct error *error)
{
    return check(block(before), error);
}

bool signal_shield_lower(const sigset_t *before, struct error *error)
{
    return check(pthread_sigmask(SIG_SETMASK, before, NULL), error);
}

bool signal_shield_workers(int threads, struct error *error)
{
    int problem = 0;
#pragma omp parallel num_threads(threads) reduction(max : problem)
    if (omp_get_thread_num() > 0)
        problem = block(NULL);
    return check(problem, error);
}
