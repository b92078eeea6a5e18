/* Reduces attention's records over ranks, sums first and then maxima, and turns them into norm records. */
#include "src/measure/norm_statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* How a field of two records is combined. */
static const enum comm_operation operations[ATTENTION_STATISTICS] = {
    [STATISTIC_Q_SUM] = COMM_SUM,       [STATISTIC_Q_SUM_SQUARES] = COMM_SUM, [STATISTIC_Q_MIN] = COMM_MIN,
    [STATISTIC_Q_MAX] = COMM_MAX,       [STATISTIC_K_SUM] = COMM_SUM,         [STATISTIC_K_SUM_SQUARES] = COMM_SUM,
    [STATISTIC_K_MIN] = COMM_MIN,       [STATISTIC_K_MAX] = COMM_MAX,         [STATISTIC_LOGIT_MAX] = COMM_MAX,
    [STATISTIC_ENTROPY_SUM] = COMM_SUM, [STATISTIC_ENTROPY_MIN] = COMM_MIN,
};

enum column { Q_MEAN, Q_STD, Q_MIN, Q_MAX, K_MEAN, K_STD, K_MIN, K_MAX, LOGIT_MAX, ENTROPY_MEAN, ENTROPY_MIN, COLUMNS };

static size_t record_count(const struct norm_statistics *statistics)
{
    return statistics->depth * statistics->heads;
}

bool norm_statistics_open(struct norm_statistics *statistics, size_t depth, size_t heads, struct error *error)
{
    *statistics = (struct norm_statistics){.depth = depth, .heads = heads};
    size_t bytes = depth * heads * ATTENTION_STATISTICS * sizeof(double);
    statistics->initial = malloc(bytes);
    statistics->host = calloc(1, bytes);
    statistics->columns = calloc(COLUMNS * heads, sizeof(double));
    if (!statistics->initial || !statistics->host || !statistics->columns)
        return error_runtime(error, "out of memory for the norm statistics");
    for (size_t record = 0; record < depth * heads; record++)
        for (size_t field = 0; field < ATTENTION_STATISTICS; field++)
            statistics->initial[record * ATTENTION_STATISTICS + field] = operations[field] == COMM_SUM   ? 0.0
                                                                         : operations[field] == COMM_MIN ? INFINITY
                                                                                                         : -INFINITY;
    return true;
}

void norm_statistics_close(struct norm_statistics *statistics)
{
    free(statistics->initial);
    free(statistics->host);
    free(statistics->columns);
    *statistics = (struct norm_statistics){0};
}

bool norm_statistics_begin(struct norm_statistics *statistics, struct model *model, struct error *error)
{
    return model->kernels->upload(model->context, model->statistics, statistics->initial,
                                  record_count(statistics) * ATTENTION_STATISTICS * sizeof(double), error);
}

bool norm_statistics_end(struct norm_statistics *statistics, struct model *model, struct error *error)
{
    return model->kernels->download(model->context, statistics->host, model->statistics,
                                    record_count(statistics) * ATTENTION_STATISTICS * sizeof(double), error);
}

bool norm_statistics_reduce(struct norm_statistics *statistics, struct comm *comm, struct error *error)
{
    size_t records = record_count(statistics);
    double *packed = malloc(records * ATTENTION_STATISTICS * sizeof(double));
    if (!packed)
        return error_runtime(error, "out of memory for the norm statistics");
    bool ok = true;
    for (enum comm_operation operation = COMM_SUM; operation <= COMM_MAX && ok; operation++) {
        size_t count = 0;
        for (size_t i = 0; i < records * ATTENTION_STATISTICS; i++)
            if (operations[i % ATTENTION_STATISTICS] == operation)
                packed[count++] = statistics->host[i];
        ok = comm_reduce(comm, packed, count, operation, error);
        count = 0;
        for (size_t i = 0; i < records * ATTENTION_STATISTICS && ok; i++)
            if (operations[i % ATTENTION_STATISTICS] == operation)
                statistics->host[i] = packed[count++];
    }
    free(packed);
    return ok;
}

static double deviation(double sum, double sum_squares, double count)
{
    double mean = sum / count;
    return sqrt(fmax(sum_squares / count - mean * mean, 0.0));
}

struct norm_record norm_statistics_record(struct norm_statistics *statistics, size_t layer, uint64_t step, double rows,
                                          double qkv_grad_norm)
{
    size_t heads = statistics->heads;
    double *columns = statistics->columns;
    for (size_t head = 0; head < heads; head++) {
        const double *record = statistics->host + (layer * heads + head) * ATTENTION_STATISTICS;
        columns[Q_MEAN * heads + head] = record[STATISTIC_Q_SUM] / rows;
        columns[Q_STD * heads + head] = deviation(record[STATISTIC_Q_SUM], record[STATISTIC_Q_SUM_SQUARES], rows);
        columns[Q_MIN * heads + head] = record[STATISTIC_Q_MIN];
        columns[Q_MAX * heads + head] = record[STATISTIC_Q_MAX];
        columns[K_MEAN * heads + head] = record[STATISTIC_K_SUM] / rows;
        columns[K_STD * heads + head] = deviation(record[STATISTIC_K_SUM], record[STATISTIC_K_SUM_SQUARES], rows);
        columns[K_MIN * heads + head] = record[STATISTIC_K_MIN];
        columns[K_MAX * heads + head] = record[STATISTIC_K_MAX];
        columns[LOGIT_MAX * heads + head] = record[STATISTIC_LOGIT_MAX];
        columns[ENTROPY_MEAN * heads + head] = record[STATISTIC_ENTROPY_SUM] / rows;
        columns[ENTROPY_MIN * heads + head] = record[STATISTIC_ENTROPY_MIN];
    }
    return (struct norm_record){
        .step = step,
        .layer = layer,
        .heads = heads,
        .q_norm_mean = columns + Q_MEAN * heads,
        .q_norm_std = columns + Q_STD * heads,
        .q_norm_min = columns + Q_MIN * heads,
        .q_norm_max = columns + Q_MAX * heads,
        .k_norm_mean = columns + K_MEAN * heads,
        .k_norm_std = columns + K_STD * heads,
        .k_norm_min = columns + K_MIN * heads,
        .k_norm_max = columns + K_MAX * heads,
        .logit_max = columns + LOGIT_MAX * heads,
        .entropy_mean = columns + ENTROPY_MEAN * heads,
        .entropy_min = columns + ENTROPY_MIN * heads,
        .qkv_grad_norm = qkv_grad_norm,
    };
}
