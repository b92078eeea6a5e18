/* Per-layer query and key norms, logits and entropy of a logged step: from attention's records on every rank to lines
 * of norms.jsonl. */
#ifndef QUEST_MEASURE_NORM_STATISTICS_H
#define QUEST_MEASURE_NORM_STATISTICS_H

#include "src/comm/comm.h"
#include "src/model/model.h"
#include "src/record/record.h"

struct norm_statistics {
    size_t depth, heads;
    double *initial; /* [depth, heads, ATTENTION_STATISTICS]: what the records start from */
    double *host;    /* the same shape: this step's, downloaded, then reduced over the ranks */
    double *columns; /* [11, heads]: one layer's fields as norm_record wants them */
};

bool norm_statistics_open(struct norm_statistics *statistics, size_t depth, size_t heads, struct error *error);
void norm_statistics_close(struct norm_statistics *statistics);
/* Queues the reset of the model's records before the forward passes of a logged step. */
bool norm_statistics_begin(struct norm_statistics *statistics, struct model *model, struct error *error);
/* Queues the download into statistics->host after them. */
bool norm_statistics_end(struct norm_statistics *statistics, struct model *model, struct error *error);
/* Collective, once the download is done: combines all ranks' records. */
bool norm_statistics_reduce(struct norm_statistics *statistics, struct comm *comm, struct error *error);
/* One layer as a record; `rows` = images * tokens of the global batch. Valid until the next call. */
struct norm_record norm_statistics_record(struct norm_statistics *statistics, size_t layer, uint64_t step, double rows,
                                          double qkv_grad_norm);

#endif
