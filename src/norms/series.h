/* A run's statistics over its steps, thinned as they are read: a log of any length becomes at most POINTS buckets of
 * equally many records, and two neighbours are merged when they run out. Extremes survive (a maximum stays the maximum
 * of its bucket, a minimum the minimum); means are averaged. A bucket stands at its last step. */
#ifndef QUEST_NORMS_SERIES_H
#define QUEST_NORMS_SERIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/log/newest.h"

enum { NORMS_POINTS = 256, METRICS_POINTS = 1024 };

/* Rows of `columns` numbers. */
struct norms_buckets {
    size_t columns, capacity, count;
    size_t stride, filled;          /* records a bucket; records in the newest one */
    const enum norms_merge *merges; /* [columns], borrowed */
    uint64_t *steps;                /* [capacity] */
    float *values;                  /* [capacity][columns]; NaN: unknown */
    float *known;                   /* [columns]: records behind the newest bucket's means */
};
bool norms_buckets_open(struct norms_buckets *buckets, size_t columns, size_t capacity, const enum norms_merge *merges,
                        struct error *error);
void norms_buckets_close(struct norms_buckets *buckets);
void norms_buckets_add(struct norms_buckets *buckets, uint64_t step, const float *row);

enum { METRICS_COLUMNS = 4 };
extern const char *const norms_metrics_columns[METRICS_COLUMNS];

struct norms_layer {
    size_t heads;                 /* 0: no record yet */
    struct norms_buckets buckets; /* columns as struct newest_layer has them */
    enum norms_merge *merges;
};

struct norms_series {
    struct norms_buckets metrics;
    struct log_newest newest;
    struct norms_layer *layers;
    size_t layer_count;
    uint64_t records;
};
bool norms_series_open(struct norms_series *series, struct error *error);
void norms_series_close(struct norms_series *series);
/* Steps that were read before (a resume without a cut) are left out. */
void norms_series_metrics(struct norms_series *series, const struct metrics_record *metrics);
bool norms_series_record(struct norms_series *series, const struct norm_record *record, struct error *error);

#endif
