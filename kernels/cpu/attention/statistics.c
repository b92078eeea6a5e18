/* What the norm log needs from attention: one record a task (image, head), combined in the order of the images, so that
 * the numbers do not depend on the threads. Sums are float64 throughout. */
#include <math.h>

#include "kernels/cpu/attention/attention.h"

void attention_statistics_begin(double *record)
{
    for (int i = 0; i < ATTENTION_STATISTICS; i++)
        record[i] = 0;
    record[STATISTIC_Q_MIN] = record[STATISTIC_K_MIN] = record[STATISTIC_ENTROPY_MIN] = INFINITY;
    record[STATISTIC_LOGIT_MAX] = -INFINITY;
}

void attention_norm_statistics(double *record, enum attention_statistic first, const float *norms, size_t count)
{
    double sum = 0, squares = 0, smallest = INFINITY, largest = 0;
    for (size_t i = 0; i < count; i++) {
        double norm = norms[i];
        sum += norm;
        squares += norm * norm;
        smallest = fmin(smallest, norm);
        largest = fmax(largest, norm);
    }
    enum { SUM, SUM_SQUARES, MIN, MAX }; /* the order of the queries' and of the keys' statistics */
    record[first + SUM] = sum;
    record[first + SUM_SQUARES] = squares;
    record[first + MIN] = smallest;
    record[first + MAX] = largest;
}

/* With p = e^below / sum: entropy = -sum p ln p = ln sum - sum p * below. Both terms are positive. */
void attention_panel_statistics(double *record, const struct panel_sums *sums, size_t queries)
{
    for (size_t lane = 0; lane < queries; lane++) {
        double sum = sums->sum[lane], entropy = log(sum) - sums->weighted[lane] / sum;
        record[STATISTIC_LOGIT_MAX] = fmax(record[STATISTIC_LOGIT_MAX], sums->maximum[lane]);
        record[STATISTIC_ENTROPY_SUM] += entropy;
        record[STATISTIC_ENTROPY_MIN] = fmin(record[STATISTIC_ENTROPY_MIN], entropy);
    }
}

void attention_statistics_combine(double *statistics, const double *records, size_t batch, size_t heads)
{
    for (size_t image = 0; image < batch; image++)
        for (size_t i = 0; i < heads * ATTENTION_STATISTICS; i++) {
            double value = records[image * heads * ATTENTION_STATISTICS + i];
            switch (i % ATTENTION_STATISTICS) {
            case STATISTIC_Q_MIN:
            case STATISTIC_K_MIN:
            case STATISTIC_ENTROPY_MIN:
                statistics[i] = fmin(statistics[i], value);
                break;
            case STATISTIC_Q_MAX:
            case STATISTIC_K_MAX:
            case STATISTIC_LOGIT_MAX:
                statistics[i] = fmax(statistics[i], value);
                break;
            default:
                statistics[i] += value;
            }
        }
}
