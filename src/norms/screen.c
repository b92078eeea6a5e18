/* Draws the screen of quest-norms watch from a reading: layers, one chart, the newest events. */
#include "src/norms/screen.h"

#include <curses.h>
#include <math.h>
#include <stdlib.h>

static const struct statistic {
    const char *title;
    bool smallest; /* of several numbers, the smallest matters */
    int column;    /* of the table, which shows one of those with the same column */
} statistics[NORMS_SCREEN_STATISTICS] = {
    {"query norm", false, 0},    {"largest query", false, 0}, {"key norm", false, 1},     {"largest key", false, 1},
    {"largest logit", false, 2}, {"entropy", true, 3},        {"least entropy", true, 3}, {"gradient", false, 4},
};
enum { COLUMNS = 5, CHART_ROWS = 6, CHART_MARGIN = 14, ROWS_FOR_CHART = 24 };

/* ---- numbers ---- */

static double better(double a, double b, bool smallest)
{
    return isnan(a) ? b : isnan(b) ? a : smallest ? fmin(a, b) : fmax(a, b);
}

/* The layer's number in bucket `at`: of one head, or (head < 0) of the head that matters most. */
static double value_at(const struct norms_layer *layer, size_t statistic, long head, size_t at)
{
    const float *row = layer->buckets.values + at * layer->buckets.columns;
    size_t heads = layer->heads, first = statistic * heads;
    if (statistic == NEWEST_STATISTICS)
        return (double)row[first];
    if (head >= 0)
        return (size_t)head < heads ? (double)row[first + (size_t)head] : NAN;
    double best = NAN;
    for (size_t i = 0; i < heads; i++)
        best = better(best, (double)row[first + i], statistics[statistic].smallest);
    return best;
}

/* Against a tenth of the log ago: the arrow stands for a change of more than 5 %. */
static const char *trend(const struct norms_layer *layer, size_t statistic, long head)
{
    size_t count = layer->buckets.count, back = count / 10 > 0 ? count / 10 : 1;
    if (count < 2)
        return " ";
    double now = value_at(layer, statistic, head, count - 1),
           before = value_at(layer, statistic, head, count - 1 - back);
    return now > 1.05 * before ? "↑" : now < 0.95 * before ? "↓" : " ";
}

/* The chosen statistic in the newest but `ago` buckets: of the chosen layer, or of the one that matters most. */
static double history_at(const struct norms_series *series, const struct norms_view *view, size_t ago)
{
    double best = NAN;
    for (size_t i = 0; i < series->layer_count; i++) {
        const struct norms_layer *layer = &series->layers[i];
        if (layer->buckets.count <= ago || (view->layer >= 0 && (size_t)view->layer != i))
            continue;
        best = better(best, value_at(layer, view->statistic, view->head, layer->buckets.count - 1 - ago),
                      statistics[view->statistic].smallest);
    }
    return best;
}

size_t norms_screen_heads(const struct norms_series *series, long layer)
{
    size_t most = 0;
    for (size_t i = 0; i < series->layer_count; i++)
        if ((layer < 0 || (size_t)layer == i) && series->layers[i].heads > most)
            most = series->layers[i].heads;
    return most;
}

/* ---- parts of the screen ---- */

static int severity_colour(const struct norms_findings *findings, long layer)
{
    enum severity worst = SEVERITY_HEALTHY;
    for (size_t i = 0; i < findings->count; i++)
        if (findings->events[i].layer == layer && findings->events[i].severity > worst)
            worst = findings->events[i].severity;
    return worst == SEVERITY_CRITICAL ? COLOR_PAIR(1) : worst == SEVERITY_WARNING ? COLOR_PAIR(2) : A_NORMAL;
}

/* An eighth of a cell to a whole one. */
static const char *const blocks[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};

static void draw_sparkline(const struct norms_buckets *metrics, size_t column, const char *title)
{
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
        addstr(isnan(value) ? " " : blocks[1 + (int)fmin(7, 8 * share)]);
    }
    addch('\n');
}

static size_t shown_statistic(const struct norms_view *view, int column)
{
    size_t first = 0;
    if (statistics[view->statistic].column == column)
        return view->statistic;
    while (statistics[first].column != column)
        first++;
    return first;
}

static void draw_row(const struct norms_layer *layer, const struct norms_view *view, const char *title, long head)
{
    printw("%-12s", title);
    for (int i = 0; i < COLUMNS; i++) {
        size_t statistic = shown_statistic(view, i);
        if (head >= 0 && statistic == NEWEST_STATISTICS)
            continue;
        printw(" %13.4g ", value_at(layer, statistic, head, layer->buckets.count - 1));
        addstr(trend(layer, statistic, head));
    }
    addch('\n');
}

static void draw_titles(const struct norms_view *view)
{
    printw("\n%-12s", "");
    for (int i = 0; i < COLUMNS; i++) {
        size_t statistic = shown_statistic(view, i);
        attron(statistic == view->statistic ? A_REVERSE : A_NORMAL);
        printw(" %13s ", statistics[statistic].title);
        attroff(A_REVERSE);
        addch(' ');
    }
    addch('\n');
}

static void draw_layers(const struct norms_reading *reading, const struct norms_view *view)
{
    const struct norms_series *series = &reading->series;
    draw_titles(view);
    for (size_t i = 0; i < series->layer_count; i++) {
        char title[32];
        if (series->layers[i].buckets.count == 0)
            continue;
        bool chosen = (long)i == view->layer;
        int style = severity_colour(&reading->findings, (long)i) | (chosen && view->head < 0 ? A_BOLD : 0);
        attron(style);
        snprintf(title, sizeof title, "%slayer %zu", chosen ? ">" : " ", i);
        draw_row(&series->layers[i], view, title, -1);
        attroff(style);
        for (size_t head = 0; chosen && head < series->layers[i].heads; head++) {
            snprintf(title, sizeof title, "   %shead %zu", (long)head == view->head ? ">" : " ", head);
            attron((long)head == view->head ? A_BOLD : A_NORMAL);
            draw_row(&series->layers[i], view, title, (long)head);
            attroff(A_BOLD);
        }
    }
}

/* ---- the chart of what was chosen: over all its steps, a cell the number that matters most of those behind it ---- */

struct chart {
    double *values; /* [width] */
    size_t width;
    double low, high;
    uint64_t first_step, last_step;
};

static bool fill_chart(struct chart *chart, const struct norms_series *series, const struct norms_view *view)
{
    size_t count = 0;
    for (size_t i = 0; i < series->layer_count; i++) {
        const struct norms_buckets *buckets = &series->layers[i].buckets;
        if (buckets->count <= count || (view->layer >= 0 && (size_t)view->layer != i))
            continue;
        count = buckets->count;
        chart->first_step = buckets->steps[0];
        chart->last_step = buckets->steps[count - 1];
    }
    size_t room = COLS > CHART_MARGIN + 10 ? (size_t)(COLS - CHART_MARGIN - 2) : 8;
    chart->width = count < room ? count : room;
    chart->low = INFINITY;
    chart->high = -INFINITY;
    if (count == 0 || !(chart->values = malloc(chart->width * sizeof *chart->values)))
        return false;
    for (size_t i = 0; i < chart->width; i++) {
        chart->values[i] = NAN;
        for (size_t at = i * count / chart->width; at < (i + 1) * count / chart->width; at++)
            chart->values[i] = better(chart->values[i], history_at(series, view, count - 1 - at),
                                      statistics[view->statistic].smallest);
        chart->low = fmin(chart->low, chart->values[i]);
        chart->high = fmax(chart->high, chart->values[i]);
    }
    return true;
}

static void draw_chart_row(const struct chart *chart, int row)
{
    if (row == 0 || row == CHART_ROWS - 1)
        printw("%*.4g ", CHART_MARGIN - 1, row == 0 ? chart->high : chart->low);
    else
        printw("%*s", CHART_MARGIN, "");
    for (size_t i = 0; i < chart->width; i++) {
        double share = chart->high > chart->low ? (chart->values[i] - chart->low) / (chart->high - chart->low) : 0.5;
        double filled = 1 + share * (8 * CHART_ROWS - 1) - 8 * (CHART_ROWS - 1 - row);
        addstr(isnan(share) ? " " : blocks[(int)fmax(0, fmin(8, filled))]);
    }
    addch('\n');
}

static void draw_chart(const struct norms_series *series, const struct norms_view *view)
{
    struct chart chart = {0};
    char layer[32] = "of all layers", head[32] = "";
    if (view->layer >= 0)
        snprintf(layer, sizeof layer, "of layer %ld", view->layer);
    if (view->statistic < NEWEST_STATISTICS && view->head >= 0)
        snprintf(head, sizeof head, ", head %ld", view->head);
    else if (view->statistic < NEWEST_STATISTICS)
        snprintf(head, sizeof head, ", the %s of its heads",
                 statistics[view->statistic].smallest ? "smallest" : "largest");
    printw("\n%s %s%s: %.4g\n", statistics[view->statistic].title, layer, head, history_at(series, view, 0));
    if (!fill_chart(&chart, series, view))
        return;
    for (int row = 0; row < CHART_ROWS; row++)
        draw_chart_row(&chart, row);
    printw("%*sstep %llu to %llu\n", CHART_MARGIN, "", (unsigned long long)chart.first_step,
           (unsigned long long)chart.last_step);
    free(chart.values);
}

static void draw_events(const struct norms_findings *findings)
{
    int room = LINES - getcury(stdscr) - 3;
    size_t count = room < 1 ? 0 : (size_t)room < findings->count ? (size_t)room : findings->count;
    printw("\nevents: %zu\n", findings->count);
    for (size_t i = findings->count - count; i < findings->count; i++) {
        const struct event *event = &findings->events[i];
        int style = event->severity == SEVERITY_CRITICAL  ? COLOR_PAIR(1)
                    : event->severity == SEVERITY_WARNING ? COLOR_PAIR(2)
                                                          : A_NORMAL;
        attron(style);
        printw("%llu %s %.*s\n", (unsigned long long)event->step, event_kind_name(event->kind),
               COLS > 40 ? COLS - 32 : 8, event->message);
        attroff(style);
    }
}

void norms_screen_draw(const struct norms_reading *reading, const struct norms_view *view)
{
    const struct norms_series *series = &reading->series;
    erase();
    printw("%s  step %llu  (up, down: layer; left, right: head; s, S: statistic; q: quit)\n", reading->run.name,
           (unsigned long long)series->newest.metrics.step);
    draw_sparkline(&series->metrics, 0, "loss");
    draw_sparkline(&series->metrics, 3, "images/s");
    if (LINES >= ROWS_FOR_CHART)
        draw_chart(series, view);
    draw_layers(reading, view);
    draw_events(&reading->findings);
    refresh();
}
