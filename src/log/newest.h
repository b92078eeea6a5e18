/* A run's newest numbers: of the newest logged step and evaluation, and each layer's newest norm record. What
 * Prometheus is told, and what src/norms/series.h makes its curves of. Steps that were seen before (a resume without a
 * cut) are left out. */
#ifndef QUEST_LOG_NEWEST_H
#define QUEST_LOG_NEWEST_H

#include "src/base/error.h"
#include "src/record/norm_lists.h"
#include "src/record/record.h"

/* The statistics that are kept of a head. After the heads' a layer has one number more, qkv_grad_norm. */
enum { NEWEST_STATISTICS = 7 };
extern const char *const newest_statistic_names[NEWEST_STATISTICS];
extern const enum norms_merge newest_statistic_merges[NEWEST_STATISTICS];

struct newest_layer {
    size_t heads;  /* 0: no record yet */
    float *values; /* [NEWEST_STATISTICS * heads + 1]: statistic * heads + head, then qkv_grad_norm; NaN: unknown */
    uint64_t step;
    bool forgotten; /* the next record counts, whatever its step */
};

struct log_newest {
    struct metrics_record metrics, evaluation; /* step 0: none yet */
    uint64_t step;                             /* of the newest logged step */
    struct newest_layer *layers;
    size_t layer_count;
};

void log_newest_close(struct log_newest *newest);
/* The run went back: what follows may repeat steps. The newest numbers stay until then. */
void log_newest_forget(struct log_newest *newest);
/* true: a logged step that is newer than the one before it. */
bool log_newest_metrics(struct log_newest *newest, const struct metrics_record *record);
/* *layer: where the record was taken, NULL where it is no newer, or of another number of heads. */
bool log_newest_norms(struct log_newest *newest, const struct norm_record *record, struct newest_layer **layer,
                      struct error *error);

#endif
