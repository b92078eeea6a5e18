/* Rings of logged numbers, straight lines through their logarithms, medians and spikes. */
#include "src/diagnosis/series.h"

#include <math.h>
#include <string.h>

void series_clock_push(struct series_clock *clock, uint64_t step)
{
    clock->steps[clock->next] = step;
    clock->next = (clock->next + 1) % SERIES_WINDOW;
    if (clock->count < SERIES_WINDOW)
        clock->count++;
}

size_t series_at(const struct series_clock *clock, size_t i)
{
    return (clock->next + SERIES_WINDOW - clock->count + i) % SERIES_WINDOW;
}

struct line {
    double slope, middle_x, middle_y, r_squared;
};

static struct line fit_line(const double *x, const double *y, size_t count)
{
    double mean_x = 0, mean_y = 0, xx = 0, xy = 0, yy = 0;
    for (size_t i = 0; i < count; i++) {
        mean_x += x[i] / (double)count;
        mean_y += y[i] / (double)count;
    }
    for (size_t i = 0; i < count; i++) {
        double dx = x[i] - mean_x, dy = y[i] - mean_y;
        xx += dx * dx;
        xy += dx * dy;
        yy += dy * dy;
    }
    struct line line = {.middle_x = mean_x, .middle_y = mean_y};
    line.slope = xx > 0 ? xy / xx : 0;
    line.r_squared = xx > 0 && yy > 0 ? xy * xy / (xx * yy) : 0;
    return line;
}

bool series_fit_log(struct series_fit *fit, const struct series_clock *clock, const float *values)
{
    double x[SERIES_WINDOW], y[SERIES_WINDOW];
    size_t count = clock->count, half = count / 2;
    if (count < 12)
        return false;
    uint64_t origin = clock->steps[series_at(clock, 0)];
    for (size_t i = 0; i < count; i++) {
        size_t at = series_at(clock, i);
        if (isnan(values[at]))
            return false;
        x[i] = (double)(clock->steps[at] - origin);
        y[i] = log(fmax((double)values[at], 1e-6));
    }
    struct line whole = fit_line(x, y, count);
    struct line early = fit_line(x, y, half), late = fit_line(x + half, y + half, count - half);
    fit->slope = whole.slope;
    fit->first = whole.middle_y + whole.slope * (x[0] - whole.middle_x);
    fit->last = whole.middle_y + whole.slope * (x[count - 1] - whole.middle_x);
    fit->r_squared = whole.r_squared;
    fit->lasting = late.slope * whole.slope > 0 && fabs(late.slope) >= 0.6 * fabs(early.slope);
    return true;
}

uint64_t series_began(const struct series_clock *clock, const float *values, int direction)
{
    size_t i = clock->count - 1;
    for (; i > 0; i--) {
        float newer = values[series_at(clock, i)], older = values[series_at(clock, i - 1)];
        if (direction > 0 ? older > newer * 1.05f : older * 1.05f < newer)
            break;
    }
    return clock->steps[series_at(clock, i)];
}

double series_median(const double *values, size_t count)
{
    double sorted[SPIKE_WINDOW];
    count = count < SPIKE_WINDOW ? count : SPIKE_WINDOW;
    for (size_t i = 0; i < count; i++) {
        size_t at = i;
        for (; at > 0 && sorted[at - 1] > values[i]; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = values[i];
    }
    return count == 0 ? 0 : 0.5 * (sorted[(count - 1) / 2] + sorted[count / 2]);
}

double spike_recent_maximum(const struct spike_window *window, size_t count)
{
    double maximum = -INFINITY;
    for (size_t i = 1; i <= count && i <= window->count; i++)
        maximum = fmax(maximum, window->values[(window->next + SPIKE_WINDOW - i) % SPIKE_WINDOW]);
    return maximum;
}

double spike_push(struct spike_window *window, double value, double floor_relative, double floor_absolute,
                  double *median)
{
    double z = 0, deviations[SPIKE_WINDOW];
    *median = series_median(window->values, window->count);
    if (window->count >= SPIKE_MINIMUM) {
        for (size_t i = 0; i < window->count; i++)
            deviations[i] = fabs(window->values[i] - *median);
        double spread = 1.4826 * series_median(deviations, window->count);
        z = (value - *median) / fmax(spread, fmax(floor_relative * fabs(*median), floor_absolute));
    }
    window->values[window->next] = value;
    window->next = (window->next + 1) % SPIKE_WINDOW;
    if (window->count < SPIKE_WINDOW)
        window->count++;
    return z;
}
