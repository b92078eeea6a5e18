/* The diagnosis: reads what a run logs, step by step, and says which layer and head goes wrong, since when, why, and
 * what to change. A pure library: no files, no clock, no ranks; the trainer feeds it as it logs and quest-norms feeds
 * it from a log with the limits of the run's config.yaml, so both say the same. (After a resume or a rewind the trainer
 * begins with empty windows, which a log does not show.) Rules, defaults and their sources: docs/diagnosis.md.
 *
 * Cost: windows of fixed size, no allocation after a layer's first record; about 1 us a head and record. */
#ifndef QUEST_DIAGNOSIS_DIAGNOSIS_H
#define QUEST_DIAGNOSIS_DIAGNOSIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "src/base/error.h"
#include "src/record/record.h"

struct diagnosis_options {
    enum attention_kind kind;
    size_t tokens;               /* N; 0 = unknown: the largest mean entropy seen stands for log N */
    double horizon_steps;        /* how far ahead a fit is believed */
    double logit_warning;        /* largest logit */
    double logit_critical;       /* largest logit; fits predict when this is crossed */
    double entropy_warning;      /* mean entropy of a head over log N */
    double entropy_critical;     /* the same, with logits over entropy_sharp_logit */
    double entropy_sharp_logit;  /* a head with smaller logits is sharp by need, not by blown-up logits */
    double key_outlier_warning;  /* largest key norm over the mean */
    double key_outlier_critical; /* the same, with logits over logit_warning */
    double runaway_growth;       /* growth of each norm in each of three windows in a row: 0.05 = 5 % */
    double spike_z;              /* robust z-score of loss and gradient norm */
    double rank_slow;            /* slowest rank's time over the median */
    double dead_entropy;         /* mean entropy over log N, over a whole window */
};
/* The defaults of docs/diagnosis.md. */
struct diagnosis_options diagnosis_defaults(void);

/* The limits that are keys of a run's configuration (diagnosis.*); the warnings that go with them follow from them. */
struct diagnosis_limits {
    double horizon_steps, logit_critical, entropy_critical, key_outlier, spike_z;
};
void diagnosis_set_limits(struct diagnosis_options *options, const struct diagnosis_limits *limits);

/* Called while a step is fed; the event lives only for the call. */
typedef void diagnosis_raise(void *owner, const struct event *event);

/* Whether a rule speaks of causes inside attention; the others speak of consequences, or of something else. */
bool diagnosis_names_cause(enum event_kind rule);

struct diagnosis;

bool diagnosis_open(struct diagnosis **diagnosis, const struct diagnosis_options *options, diagnosis_raise *raise,
                    void *owner, struct error *error);
void diagnosis_close(struct diagnosis *diagnosis);

/* A logged step. Values that are not finite raise `nonfinite`. */
void diagnosis_step(struct diagnosis *diagnosis, uint64_t step, double loss, double gradient_norm);
/* A layer's record, steps rising, any order of layers. A list that is NULL is unknown: its rules rest. Fails only when
 * memory runs out at a layer's first record. */
bool diagnosis_norms(struct diagnosis *diagnosis, const struct norm_record *record, struct error *error);
/* What each rank measured in a step: seconds of its own work (without waiting) and mean loss; either may be NULL. */
void diagnosis_ranks(struct diagnosis *diagnosis, uint64_t step, const double *seconds, const double *loss,
                     size_t ranks);

#endif
