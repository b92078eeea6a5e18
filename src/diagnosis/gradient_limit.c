/* A ring of gradient norms, and the limit that they give for the next step. */
#include "src/diagnosis/gradient_limit.h"

#include <math.h>
#include <string.h>

#include "src/diagnosis/series.h"

void gradient_limit_push(struct gradient_limit *limit, uint64_t step, double norm)
{
    if (step != limit->newest_step + 1)
        limit->count = 0;
    if (limit->count == GRADIENT_LIMIT_NORMS) {
        limit->count--;
        memmove(limit->norms, limit->norms + 1, limit->count * sizeof *limit->norms);
    }
    limit->norms[limit->count++] = norm;
    limit->newest_step = step;
}

double gradient_limit_at(const struct gradient_limit *limit, uint64_t step, double z)
{
    double logs[GRADIENT_LIMIT_NORMS];
    size_t begin = 0, end = limit->count;
    while (end > 0 && limit->newest_step - (limit->count - end) + 2 > step)
        end--;
    if (end > SPIKE_WINDOW)
        begin = end - SPIKE_WINDOW;
    if (z <= 0 || end - begin < SPIKE_MINIMUM)
        return 0;
    size_t count = end - begin;
    for (size_t i = 0; i < count; i++)
        logs[i] = log(fmax(limit->norms[begin + i], 1e-12));
    double median = series_median(logs, count);
    for (size_t i = 0; i < count; i++)
        logs[i] = fabs(logs[i] - median);
    return exp(median + z * fmax(1.4826 * series_median(logs, count), 0.1));
}
