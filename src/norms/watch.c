/* quest-norms watch: a running job in the terminal. The log is followed as it grows; every interval what is new is read
 * and the screen drawn again. --plain prints a line a logged interval instead, for pipes and logs. */
#include <curses.h>
#include <errno.h>
#include <locale.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/command_line.h"
#include "src/base/stop_signal.h"
#include "src/norms/norms.h"
#include "src/norms/reading.h"
#include "src/norms/screen.h"

enum { LOGIT_MAX = 4 }; /* of newest_statistic_names: what is shown first */

struct watch {
    struct norms_reading *reading;
    const char *directory;
    struct norms_view view;
    bool quit;
};

/* ---- following ---- */

/* A log that was cut back (a resume) is read anew from its start. */
static bool follow(struct watch *watch, struct error *error)
{
    bool restarted = false;
    struct norms_reading *reading = watch->reading;
    if (!norms_findings_read(&reading->findings, &reading->run, &reading->series, &restarted, error))
        return false;
    if (!restarted)
        return true;
    norms_readings_close(reading, 1);
    return norms_readings_open(&watch->reading, &watch->directory, 1, error);
}

/* ---- the screen ---- */

/* -1, that is all, and then 0 to count - 1. */
static long moved(long from, int by, size_t count)
{
    long to = from + by;
    return to < -1 ? -1 : to < (long)count ? to : from;
}

static void press(struct watch *watch, int key)
{
    struct norms_view *view = &watch->view;
    const struct norms_series *series = &watch->reading->series;
    if (key == 'q')
        watch->quit = true;
    else if (key == KEY_DOWN || key == KEY_UP)
        view->layer = moved(view->layer, key == KEY_DOWN ? 1 : -1, series->layer_count);
    else if (key == KEY_RIGHT || key == KEY_LEFT)
        view->head = moved(view->head, key == KEY_RIGHT ? 1 : -1, norms_screen_heads(series, view->layer));
    else if (key == 's' || key == 'S')
        view->statistic = (view->statistic + (key == 's' ? 1 : NORMS_SCREEN_STATISTICS - 1)) % NORMS_SCREEN_STATISTICS;
    if (view->head >= (long)norms_screen_heads(series, view->layer))
        view->head = -1;
}

static bool watch_screen(struct watch *watch, double interval_s, struct error *error)
{
    bool ok = true;
    SCREEN *screen = newterm(NULL, stdout, stdin);
    if (!screen)
        return error_input(error, "this terminal cannot show a screen (TERM=%s); use --plain",
                           getenv("TERM") ? getenv("TERM") : "");
    start_color();
    use_default_colors();
    init_pair(1, COLOR_RED, -1);
    init_pair(2, COLOR_YELLOW, -1);
    cbreak();
    noecho();
    keypad(stdscr, TRUE);
    timeout((int)(1000 * interval_s));
    while (ok && !watch->quit && !stop_signal_raised()) {
        norms_screen_draw(watch->reading, &watch->view);
        int key = getch();
        if (key == ERR)
            ok = follow(watch, error);
        else
            press(watch, key);
    }
    endwin();
    delscreen(screen);
    return ok;
}

/* ---- plain ---- */

static bool watch_plain(struct watch *watch, double interval_s, struct error *error)
{
    uint64_t said = 0;
    size_t events = 0;
    bool ok = true;
    while (ok && !stop_signal_raised()) {
        const struct metrics_record *newest = &watch->reading->series.newest.metrics;
        const struct norms_findings *findings = &watch->reading->findings;
        if (newest->step != said)
            printf("step %llu  loss %.4f  gradient %.3g  %.0f images/s\n", (unsigned long long)newest->step,
                   newest->loss, newest->grad_norm, newest->images_per_s);
        for (; events < findings->count; events++)
            printf("step %llu  %s  %s: %s\n", (unsigned long long)findings->events[events].step,
                   severity_name(findings->events[events].severity), event_kind_name(findings->events[events].kind),
                   findings->events[events].message);
        said = newest->step;
        if (fflush(stdout) != 0)
            return error_runtime(error, "standard output: %s", strerror(errno));
        poll(NULL, 0, (int)(1000 * interval_s));
        ok = follow(watch, error);
        events = watch->reading->findings.count < events ? 0 : events;
    }
    return ok;
}

int norms_watch(const void *from)
{
    const struct norms_arguments *arguments = from;
    struct error error;
    struct watch watch = {.directory = arguments->runs[0], .view = {.layer = -1, .head = -1, .statistic = LOGIT_MAX}};
    setlocale(LC_CTYPE, "");
    bool ok = stop_signal_install(&error) && norms_readings_open(&watch.reading, &watch.directory, 1, &error) &&
              (arguments->plain ? watch_plain : watch_screen)(&watch, arguments->interval_s, &error);
    norms_readings_close(watch.reading, 1);
    return ok ? 0 : command_line_fail(&error);
}
