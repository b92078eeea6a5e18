/* Handlers that note a request to stop; the second request ends the process. */
#include "src/base/stop_signal.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A signal handler can reach nothing but static storage. */
static volatile sig_atomic_t raised;
static volatile long long first_ms;

static void on_signal(int signal_number)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long long now_ms = (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    if (raised && now_ms - first_ms > 500)
        _exit(128 + signal_number);
    if (!raised)
        first_ms = now_ms;
    raised = 1;
}

bool stop_signal_install(struct error *error)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    const int signals[] = {SIGINT, SIGTERM, SIGUSR1};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (sigaction(signals[i], &action, NULL) != 0)
            return error_runtime(error, "signal handler could not be installed: %s", strerror(errno));
    return true;
}

bool stop_signal_raised(void)
{
    return raised != 0;
}
