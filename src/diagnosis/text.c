/* What an event says to the person who has to act on it: of the whole model here, and what the sentences of the rules
 * over heads have in common, which stand beside their rules. */
#include <math.h>
#include <stdio.h>

#include "kernels/attention_kinds.h"
#include "src/diagnosis/state.h"

typedef unsigned long long ull;

void diagnosis_place(const struct event *event, char *text, size_t bytes)
{
    char others[48] = "";
    if (event->affected > 1)
        snprintf(others, sizeof others, " (and %zu more head%s)", event->affected - 1, event->affected > 2 ? "s" : "");
    if (event->layer >= 0 && event->head >= 0)
        snprintf(text, bytes, "layer %ld, head %ld%s", event->layer, event->head, others);
    else if (event->layer >= 0)
        snprintf(text, bytes, "layer %ld", event->layer);
    else
        snprintf(text, bytes, "the whole model");
}

void diagnosis_prediction(const struct event *event, const char *what, char *text, size_t bytes)
{
    text[0] = '\0';
    if (event->predicted > 0)
        snprintf(text, bytes, "; at this rate it passes %s at step %llu", what, (ull)event->predicted);
}

void diagnosis_advise(struct event *event, enum attention_kind kind)
{
    bool free_query = attention_kinds[kind].query == NORM_NONE, free_key = attention_kinds[kind].key == NORM_NONE;
    char *text = event->advice;
    size_t bytes = sizeof event->advice;
    if (free_query && free_key)
        snprintf(text, bytes,
                 "Train with attention.kind: quest (keys normalised: the loop between query and key norm is cut) or "
                 "qknorm; or go on from the last checkpoint before this step with a lower optim.lr or a longer "
                 "optim.warmup_steps.");
    else if (free_key)
        snprintf(text, bytes, "The keys are not normalised here: train with attention.kind: quest, or lower optim.lr.");
    else if (free_query)
        snprintf(text, bytes,
                 "Only the query norm can do this under %s: lower optim.lr, raise optim.weight_decay, or take "
                 "attention.kind: qknorm, which bounds both.",
                 attention_kind_name(kind));
    else
        snprintf(text, bytes,
                 "Both norms are bounded here, so the learned scale grew: lower optim.lr, or raise "
                 "optim.weight_decay.");
}

static void explain_spike(struct event *event, const char *at)
{
    bool critical = event->severity == SEVERITY_CRITICAL;
    if (event->kind == EVENT_LOSS_SPIKE) {
        snprintf(event->message, sizeof event->message, "the loss is %.4g where its recent median is %.4g%s",
                 event->value, event->threshold,
                 critical ? ", several logged steps in a row: it has left its trend" : "");
        snprintf(event->advice, sizeof event->advice, "%s",
                 critical
                     ? "Go on from the last checkpoint before this with a lower optim.lr; earlier events say which "
                       "layer began it."
                     : "A single one is often one hard batch; if they come again, set optim.clip_grad_norm (1.0) or "
                       "lower optim.lr.");
    } else {
        snprintf(event->message, sizeof event->message,
                 "the gradient norm of %s%s is %.4g where its recent median is %.4g",
                 event->layer >= 0 ? "the query, key and value weights of " : "", at, event->value, event->threshold);
        snprintf(event->advice, sizeof event->advice,
                 "Set optim.clip_grad_norm (1.0 is usual); if spikes come again, lower optim.lr or optim.beta2.");
    }
}

void diagnosis_explain(struct event *event, const char *at)
{
    switch (event->kind) {
    case EVENT_LOSS_SPIKE:
    case EVENT_GRADIENT_SPIKE:
        explain_spike(event, at);
        break;
    case EVENT_NONFINITE:
        snprintf(event->message, sizeof event->message, "%s%s: a NaN or Inf at step %llu", at,
                 event->layer >= 0 ? "" : " (loss or gradient norm)", (ull)event->step);
        snprintf(
            event->advice, sizeof event->advice,
            "Go on from the last checkpoint before this with a lower optim.lr or optim.clip_grad_norm: 1.0; earlier "
            "events say which layer began it.");
        break;
    case EVENT_RANK_SKEW:
        snprintf(event->message, sizeof event->message, "rank %ld: its %s is %.3g times %sthe other ranks' mean",
                 event->rank, event->threshold >= 1 ? "time a step" : "loss", event->value,
                 event->threshold >= 1 ? "" : "off ");
        snprintf(event->advice, sizeof event->advice, "%s",
                 event->threshold >= 1
                     ? "Look for a throttled GPU, a busy node or a slow disk on that rank; all others "
                       "wait for it."
                     : "Look at that rank's data: its share differs from the others', or its memory "
                       "is damaged.");
        break;
    default:
        break; /* a rule over heads, which explains itself */
    }
}
