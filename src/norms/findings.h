/* The rules over a whole log: what `diagnose`, `report` and `watch` show. */
#ifndef QUEST_NORMS_FINDINGS_H
#define QUEST_NORMS_FINDINGS_H

#include <stdio.h>

#include "src/diagnosis/diagnosis.h"
#include "src/norms/run.h"
#include "src/norms/series.h"

struct norms_findings {
    struct diagnosis *diagnosis;
    struct event *events; /* the newest EVENTS_MAX at most; `dropped` says how many more */
    size_t count, capacity, dropped;
    uint64_t steps, newest_step; /* logged steps read */
    bool out_of_memory;
};

bool norms_findings_open(struct norms_findings *findings, const struct norms_run *run, struct error *error);
void norms_findings_close(struct norms_findings *findings);
void norms_findings_metrics(struct norms_findings *findings, const struct metrics_record *metrics);
bool norms_findings_record(struct norms_findings *findings, const struct norm_record *record, struct error *error);
/* What only the trainer can have seen: a slow rank, the name of a tensor that was not finite. */
void norms_findings_event(struct norms_findings *findings, const struct event *event);
/* Reads the whole log of a run; events stand in the order in which they were found. `series` (or NULL) is filled on the
 * way. Called again it reads what has been added; *restarted (or NULL) is set where a file was replaced or cut, so that
 * all is to be read anew. */
bool norms_findings_read(struct norms_findings *findings, struct norms_run *run, struct norms_series *series,
                         bool *restarted, struct error *error);
void norms_findings_sort(struct norms_findings *findings);
enum severity norms_findings_worst(const struct norms_findings *findings);

/* A few sentences: which layer and head, since when, what followed, what to change. Caller frees; NULL: out of memory.
 */
char *norms_conclusion(const struct norms_findings *findings);

#endif
