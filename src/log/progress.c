/* The live line of a run, and plain lines where there is no terminal. */
#include "src/log/progress.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Open MPI gives a rank a terminal of its own, whatever mpirun prints to: ask what our parent, mpirun, prints to. */
static bool prints_to_terminal(void)
{
    char path[64];
    if (!isatty(STDOUT_FILENO) || !getenv("OMPI_COMM_WORLD_RANK"))
        return isatty(STDOUT_FILENO);
    snprintf(path, sizeof path, "/proc/%ld/fd/1", (long)getppid());
    int file = open(path, O_WRONLY | O_NOCTTY | O_NONBLOCK);
    bool terminal = file >= 0 && isatty(file);
    if (file >= 0)
        close(file);
    return terminal;
}

void progress_open(struct progress *progress, bool silent, uint64_t total_steps, double epochs)
{
    *progress =
        (struct progress){.silent = silent, .live = prints_to_terminal(), .total_steps = total_steps, .epochs = epochs};
}

static void end_line(struct progress *progress)
{
    if (progress->line_open)
        putchar('\n');
    progress->line_open = false;
}

static void format_duration(char *text, size_t text_bytes, double seconds)
{
    long whole = seconds > 0 ? (long)(seconds + 0.5) : 0;
    if (whole >= 86400)
        snprintf(text, text_bytes, "%ldd%02ldh", whole / 86400, whole / 3600 % 24);
    else if (whole >= 3600)
        snprintf(text, text_bytes, "%ldh%02ldm", whole / 3600, whole / 60 % 60);
    else
        snprintf(text, text_bytes, "%ldm%02lds", whole / 60, whole % 60);
}

void progress_step(struct progress *progress, const struct metrics_record *metrics)
{
    char left[32], use[32] = "";
    if (progress->silent)
        return;
    format_duration(left, sizeof left, (double)(progress->total_steps - metrics->step) * metrics->step_time_s);
    if (metrics->mfu > 0)
        snprintf(use, sizeof use, "  mfu %.1f %%", 100 * metrics->mfu);
    printf("%sepoch %.2f/%.4g  step %llu/%llu  loss %.4f  top-1 %.1f %%  lr %.2e  %.0f images/s%s  wait data %.0f %% "
           "comm %.0f %%"
           "  %s left%s",
           progress->live ? "\r\033[K" : "", metrics->epoch, progress->epochs, (unsigned long long)metrics->step,
           (unsigned long long)progress->total_steps, metrics->loss, 100 * metrics->top1, metrics->lr,
           metrics->images_per_s, use, 100 * metrics->data_wait_s / metrics->step_time_s,
           100 * metrics->comm_wait_s / metrics->step_time_s, left, progress->live ? "" : "\n");
    progress->line_open = progress->live;
    fflush(stdout);
}

void progress_say(struct progress *progress, const char *format, ...)
{
    va_list arguments;
    if (progress->silent)
        return;
    end_line(progress);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

void progress_warn(struct progress *progress, const char *format, ...)
{
    va_list arguments;
    if (progress->silent)
        return;
    end_line(progress);
    fflush(stdout);
    fputs("warning: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

void progress_close(struct progress *progress)
{
    end_line(progress);
    fflush(stdout);
}
