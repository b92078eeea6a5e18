/* Windows over logged numbers: fits and robust statistics. Internal to src/diagnosis. */
#ifndef QUEST_DIAGNOSIS_SERIES_H
#define QUEST_DIAGNOSIS_SERIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 48 records are 480 steps at norms.every 10: long against a step's noise, short against the rise of an instability
 * (thousands of steps in Wortsman et al. 2023). 128 as llm.c's outlier detector. */
enum { SERIES_WINDOW = 48, SPIKE_WINDOW = 128, SPIKE_MINIMUM = 32 };

/* The steps of a window, oldest first after series_unroll. */
struct series_clock {
    uint64_t steps[SERIES_WINDOW];
    size_t count, next; /* count saturates at SERIES_WINDOW */
};
void series_clock_push(struct series_clock *clock, uint64_t step);
/* Index in a ring of the i-th oldest value. */
size_t series_at(const struct series_clock *clock, size_t i);

struct series_fit {
    double slope;       /* of log(value), a step */
    double first, last; /* of the fitted log(value) at both ends */
    double r_squared;
    bool lasting; /* the second half grows at least 0.6 times as fast as the first */
};
/* Least squares of log(value) over the window: growth is exponential where queries and keys feed each other. Needs 12
 * values and all of them known (not NaN), else false. */
bool series_fit_log(struct series_fit *fit, const struct series_clock *clock, const float *values);
/* The step from which the values have risen (direction > 0) or fallen to the newest without a set-back over 5 %. */
uint64_t series_began(const struct series_clock *clock, const float *values, int direction);

struct spike_window {
    double values[SPIKE_WINDOW];
    size_t count, next;
};
/* Robust z-score of `value` against the window before it: (value - median) / max(1.4826 MAD, floor); 0 while the window
 * holds fewer than SPIKE_MINIMUM. The floor keeps a converged run's tiny noise from making spikes of nothing. Then the
 * value joins the window. */
double spike_push(struct spike_window *window, double value, double floor_relative, double floor_absolute,
                  double *median);
/* Largest of the newest `count` values. */
double spike_recent_maximum(const struct spike_window *window, size_t count);
double series_median(const double *values, size_t count);

#endif
