/* quest-norms watch: a running job in the terminal. The log is followed as it grows; every interval what is new is read
 * and the screen drawn again. --plain prints a line a logged interval instead, for pipes and logs. */
#include <curses.h>
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/norms.h"
#include "src/norms_reading.h"
#include "src/stop_signal.h"

enum { COLUMNS = 5 };
static const struct {
    const char *title;
    size_t statistic; /* NORMS_HEAD_STATISTICS: qkv_grad_norm */
    bool smallest;    /* of the heads, the smallest matters */
} columns[COLUMNS] = {{"query norm", 0, false},
                      {"key norm", 2, false},
                      {"largest logit", 4, false},
                      {"entropy", 5, true},
                      {"gradient", NORMS_HEAD_STATISTICS, false}};

struct watch {
    struct norms_reading *reading;
    const char *directory;
    long layer; /* chosen: its heads are shown */
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

static bool is_smaller(double a, double b)
{
    return isnan(b) || a < b;
}

/* The layer's number in bucket `at`: of one head, or of the head that matters most. */
static double value_at(const struct norms_layer *layer, size_t column, long head, size_t at)
{
    const float *row = layer->buckets.values + at * layer->buckets.columns;
    size_t heads = layer->heads, first = columns[column].statistic * heads;
    if (columns[column].statistic == NORMS_HEAD_STATISTICS)
        return (double)row[first];
    if (head >= 0)
        return (double)row[first + (size_t)head];
    double best = NAN;
    for (size_t i = 0; i < heads; i++) {
        double value = (double)row[first + i];
        if (!isnan(value) && (isnan(best) || is_smaller(value, best) == columns[column].smallest))
            best = value;
    }
    return best;
}

/* Against a tenth of the log ago: the arrow stands for a change of more than 5 %. */
static const char *trend(const struct norms_layer *layer, size_t column, long head)
{
    size_t count = layer->buckets.count, back = count / 10 > 0 ? count / 10 : 1;
    if (count < 2)
        return " ";
    double now = value_at(layer, column, head, count - 1), before = value_at(layer, column, head, count - 1 - back);
    return now > 1.05 * before ? "↑" : now < 0.95 * before ? "↓" : " ";
}

/* ---- the screen ---- */

static int severity_colour(const struct norms_findings *findings, long layer)
{
    enum diagnosis_severity worst = DIAGNOSIS_HEALTHY;
    for (size_t i = 0; i < findings->count; i++)
        if (findings->events[i].layer == layer && findings->events[i].severity > worst)
            worst = findings->events[i].severity;
    return worst == DIAGNOSIS_CRITICAL ? COLOR_PAIR(1) : worst == DIAGNOSIS_WARNING ? COLOR_PAIR(2) : A_NORMAL;
}

static void draw_sparkline(const struct norms_buckets *metrics, size_t column, const char *title)
{
    static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    size_t width = COLS > 40 ? (size_t)COLS - 30 : 10, begin = metrics->count > width ? metrics->count - width : 0;
    double low = INFINITY, high = -INFINITY, newest = NAN;
    for (size_t i = begin; i < metrics->count; i++) {
        double value = (double)metrics->values[i * metrics->columns + column];
        low = fmin(low, value);
        high = fmax(high, value);
        newest = isnan(value) ? newest : value;
    }
    printw("%-12s %-10.4g ", title, newest);
    for (size_t i = begin; i < metrics->count; i++) {
        double value = (double)metrics->values[i * metrics->columns + column];
        double share = high > low ? (value - low) / (high - low) : 0.5;
        addstr(isnan(value) ? " " : blocks[(int)fmin(7, 8 * share)]);
    }
    addch('\n');
}

static void draw_row(const struct norms_layer *layer, const char *title, long head)
{
    printw("%-12s", title);
    for (size_t i = 0; i < COLUMNS; i++) {
        if (head >= 0 && columns[i].statistic == NORMS_HEAD_STATISTICS)
            continue;
        printw(" %12.4g ", value_at(layer, i, head, layer->buckets.count - 1));
        addstr(trend(layer, i, head));
    }
    addch('\n');
}

static void draw_layers(const struct watch *watch)
{
    const struct norms_series *series = &watch->reading->series;
    printw("\n%-12s", "");
    for (size_t i = 0; i < COLUMNS; i++)
        printw(" %12s  ", columns[i].title);
    addch('\n');
    for (size_t i = 0; i < series->layer_count; i++) {
        char title[32];
        if (series->layers[i].heads == 0)
            continue;
        int style = severity_colour(&watch->reading->findings, (long)i) | ((long)i == watch->layer ? A_BOLD : 0);
        attron(style);
        snprintf(title, sizeof title, "%slayer %zu", (long)i == watch->layer ? ">" : " ", i);
        draw_row(&series->layers[i], title, -1);
        attroff(style);
        for (size_t head = 0; (long)i == watch->layer && head < series->layers[i].heads; head++) {
            snprintf(title, sizeof title, "    head %zu", head);
            draw_row(&series->layers[i], title, (long)head);
        }
    }
}

static void draw_events(const struct norms_findings *findings)
{
    int room = LINES - getcury(stdscr) - 3;
    size_t count = room < 1 ? 0 : (size_t)room < findings->count ? (size_t)room : findings->count;
    printw("\nevents: %zu\n", findings->count);
    for (size_t i = findings->count - count; i < findings->count; i++) {
        const struct diagnosis_event *event = &findings->events[i];
        int style = event->severity == DIAGNOSIS_CRITICAL  ? COLOR_PAIR(1)
                    : event->severity == DIAGNOSIS_WARNING ? COLOR_PAIR(2)
                                                           : A_NORMAL;
        attron(style);
        printw("%llu %s %.*s\n", (unsigned long long)event->step, diagnosis_rule_name(event->rule),
               COLS > 40 ? COLS - 32 : 8, event->explanation);
        attroff(style);
    }
}

static void draw(const struct watch *watch)
{
    const struct norms_series *series = &watch->reading->series;
    erase();
    printw("%s  step %llu  (up, down: layer; q: quit)\n", watch->reading->run.name,
           (unsigned long long)series->newest.step);
    draw_sparkline(&series->metrics, 0, "loss");
    draw_sparkline(&series->metrics, 3, "images/s");
    draw_layers(watch);
    draw_events(&watch->reading->findings);
    refresh();
}

static void press(struct watch *watch, int key)
{
    long layers = (long)watch->reading->series.layer_count;
    if (key == 'q')
        watch->quit = true;
    else if (key == KEY_DOWN && watch->layer + 1 < layers)
        watch->layer++;
    else if (key == KEY_UP && watch->layer >= 0)
        watch->layer--;
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
        draw(watch);
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
        const struct norms_metrics *newest = &watch->reading->series.newest;
        const struct norms_findings *findings = &watch->reading->findings;
        if (newest->step != said)
            printf("step %llu  loss %.4f  gradient %.3g  %.0f images/s\n", (unsigned long long)newest->step,
                   newest->loss, newest->grad_norm, newest->images_per_s);
        for (; events < findings->count; events++)
            printf("step %llu  %s  %s: %s\n", (unsigned long long)findings->events[events].step,
                   diagnosis_severity_name(findings->events[events].severity),
                   diagnosis_rule_name(findings->events[events].rule), findings->events[events].explanation);
        said = newest->step;
        if (fflush(stdout) != 0)
            return error_runtime(error, "standard output: %s", strerror(errno));
        poll(NULL, 0, (int)(1000 * interval_s));
        ok = follow(watch, error);
        events = watch->reading->findings.count < events ? 0 : events;
    }
    return ok;
}

int norms_watch(const struct norms_arguments *arguments)
{
    struct error error;
    struct watch watch = {.directory = arguments->runs[0], .layer = -1};
    setlocale(LC_CTYPE, "");
    bool ok = stop_signal_install(&error) && norms_readings_open(&watch.reading, &watch.directory, 1, &error) &&
              (arguments->plain ? watch_plain : watch_screen)(&watch, arguments->interval_s, &error);
    norms_readings_close(watch.reading, 1);
    return ok ? 0 : norms_fail(&error);
}
