/* Draws the bar of a long command, or prints a line now and then where stderr is no terminal. */
#include "src/base/work_progress.h"

#include <stdio.h>
#include <unistd.h>

#include "src/base/clock.h"

enum { BAR_CELLS = 30 };

struct work_progress work_progress_begin(const char *what, size_t total)
{
    double now_s = clock_s();
    return (struct work_progress){what, total, isatty(STDERR_FILENO) == 1, now_s, now_s};
}

static void draw(const struct work_progress *progress, size_t done, double now_s)
{
    double elapsed_s = now_s - progress->start_s, rate = elapsed_s > 0 ? (double)done / elapsed_s : 0;
    if (progress->total == 0) {
        fprintf(stderr, progress->terminal ? "\r\033[K%s: %zu, %.0f images/s" : "%s: %zu, %.0f images/s\n",
                progress->what, done, rate);
        fflush(stderr);
        return;
    }
    double fraction = (double)done / (double)progress->total;
    double left_s = rate > 0 ? (double)(progress->total - done) / rate : 0;
    if (!progress->terminal) {
        fprintf(stderr, "%s: %zu of %zu, %.0f images/s, %.0f s left\n", progress->what, done, progress->total, rate,
                left_s);
        return;
    }
    char bar[BAR_CELLS + 1];
    for (int i = 0; i < BAR_CELLS; i++)
        bar[i] = i < (int)(fraction * BAR_CELLS) ? '#' : '.';
    bar[BAR_CELLS] = '\0';
    fprintf(stderr, "\r\033[K%s [%s] %3.0f %%  %zu/%zu  %.0f images/s  %.0f s left", progress->what, bar,
            100 * fraction, done, progress->total, rate, left_s);
    fflush(stderr);
}

void work_progress_update(struct work_progress *progress, size_t done)
{
    double now_s = clock_s();
    if (!progress->what || now_s - progress->shown_s < (progress->terminal ? 0.1 : 10.0))
        return;
    progress->shown_s = now_s;
    draw(progress, done, now_s);
}

void work_progress_clear(const struct work_progress *progress)
{
    if (progress->what && progress->terminal)
        fputs("\r\033[K", stderr);
}

void work_progress_end(struct work_progress *progress, size_t done)
{
    work_progress_clear(progress);
    double elapsed_s = clock_s() - progress->start_s;
    if (progress->what)
        fprintf(stderr, "%s: %zu images in %.1f s\n", progress->what, done, elapsed_s);
}
