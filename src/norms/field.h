/* One field of the logs by its name, whatever it is: for what only some runs log (docs/experiments.md). */
#ifndef QUEST_NORMS_FIELD_H
#define QUEST_NORMS_FIELD_H

#include "src/norms/run.h"
#include "src/norms/series.h"

struct norms_field {
    struct norms_buckets model;   /* of metrics.jsonl, one column; without steps where it is not there */
    struct norms_buckets *layers; /* of norms.jsonl, a column a head; 0 columns: not there */
    size_t layer_count;
};

/* Reads the logs of `run` once more, from their beginning, thinned as norms_series does. Numbers and lists of numbers
 * count; evaluations do not. Close it also on failure. */
bool norms_field_read(struct norms_field *field, const struct norms_run *run, const char *name, struct error *error);
void norms_field_close(struct norms_field *field);

#endif
