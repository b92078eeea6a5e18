/* What the diagnosis remembers. Internal to src/diagnosis. */
#ifndef QUEST_DIAGNOSIS_STATE_H
#define QUEST_DIAGNOSIS_STATE_H

#include "src/diagnosis/diagnosis.h"
#include "src/diagnosis/series.h"

/* One head's window; the layer's clock says which entry is which step. NaN: unknown. */
struct head_history {
    float query_norm[SERIES_WINDOW], key_norm[SERIES_WINDOW], logit[SERIES_WINDOW], entropy[SERIES_WINDOW];
    float key_outlier; /* newest largest key norm over the mean */
};

/* What one rule says of one head, or of a layer's worst head. */
struct finding {
    enum severity severity;
    long head;
    size_t affected;
    double value, threshold;
    double excess; /* how bad, in multiples: an ongoing state is raised again when this has grown fourfold */
    uint64_t since, predicted;
};

/* Hysteresis: an ongoing state is raised once, and again only when it worsens or after it has cleared. */
struct rule_state {
    enum severity raised;
    double excess;
    size_t affected;
    uint64_t since;
    unsigned quiet; /* feeds in a row without a finding */
};

struct layer_history {
    struct series_clock clock;
    struct head_history *heads;
    size_t head_count;
    struct spike_window gradient;
    struct rule_state states[EVENT_RULES];
};

struct diagnosis {
    struct diagnosis_options options;
    diagnosis_raise *raise;
    void *owner;
    struct layer_history *layers;
    size_t layer_count;
    double entropy_seen; /* largest mean entropy so far, for unknown N */
    struct spike_window loss, gradient;
    unsigned loss_high;                    /* logged losses in a row over the limit */
    uint64_t newest_step;                  /* of diagnosis_step */
    long slow_rank, odd_rank;              /* the rank that was slowest, or had a loss of its own, last time */
    unsigned slow_count, odd_count;        /* how often in a row */
    struct rule_state states[EVENT_RULES]; /* of the whole run */
};

/* One head's newest values against the rule; severity HEALTHY where all is well. */
typedef struct finding diagnosis_judge(const struct diagnosis *diagnosis, const struct layer_history *layer,
                                       size_t head);
/* Fills in message and advice from the rest of the event; `at`: the place in words. */
typedef void diagnosis_speak(struct event *event, const struct diagnosis_options *options, const char *at);
/* The rules over heads, in the order in which they speak; they end with a judge of NULL. */
struct diagnosis_rule {
    enum event_kind kind;
    diagnosis_judge *judge;
    diagnosis_speak *speak;
    bool cause; /* of what follows in loss and gradient */
};
extern const struct diagnosis_rule diagnosis_rules[];

/* The same of the other rules. */
void diagnosis_explain(struct event *event, const char *at);
/* "layer 3, head 2 (and 4 more heads)", "the whole model". */
void diagnosis_place(const struct event *event, char *text, size_t bytes);
/* "; at this rate it passes `what` at step 900"; "" where nothing is predicted. */
void diagnosis_prediction(const struct event *event, const char *what, char *text, size_t bytes);
/* What to change where attention goes wrong, by which of the two norms still reach the logits. */
void diagnosis_advise(struct event *event, enum attention_kind kind);

/* Applies the hysteresis and raises. layer -1: the whole run. */
void diagnosis_settle(struct diagnosis *diagnosis, struct rule_state *state, enum event_kind rule, uint64_t step,
                      long layer, long rank, const struct finding *finding);

#endif
