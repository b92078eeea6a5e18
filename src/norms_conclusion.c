/* From a list of events to a story: what began it, what followed, what to change. */
#include <stdlib.h>
#include <string.h>

#include "src/norms_findings.h"

typedef unsigned long long ull;

/* Rules that speak of causes inside attention; the others are consequences, or something else. */
static bool is_attention(enum diagnosis_rule rule)
{
    return rule == DIAGNOSIS_LOGIT_EXPLOSION || rule == DIAGNOSIS_ENTROPY_COLLAPSE ||
           rule == DIAGNOSIS_KEY_NORM_OUTLIER || rule == DIAGNOSIS_QUERY_KEY_RUNAWAY;
}

/* The worst attention event with the earliest beginning: the layer that it names is the one to blame. Later ones of the
 * same severity in other layers are taken for its echo. */
static const struct diagnosis_event *culprit(const struct norms_findings *findings)
{
    const struct diagnosis_event *best = NULL;
    for (size_t i = 0; i < findings->count; i++) {
        const struct diagnosis_event *event = &findings->events[i];
        if (!is_attention(event->rule) || event->severity < DIAGNOSIS_WARNING)
            continue;
        if (!best || event->severity > best->severity ||
            (event->severity == best->severity && event->step < best->step))
            best = event;
    }
    return best;
}

static const struct diagnosis_event *first_critical(const struct norms_findings *findings, enum diagnosis_rule rule)
{
    for (size_t i = 0; i < findings->count; i++) {
        const struct diagnosis_event *event = &findings->events[i];
        if (event->rule == rule && event->severity == DIAGNOSIS_CRITICAL)
            return event;
    }
    return NULL;
}

/* The earliest beginning that any warning about attention in that layer names. */
static uint64_t first_sign(const struct norms_findings *findings, const struct diagnosis_event *cause)
{
    uint64_t begin = cause->since;
    for (size_t i = 0; i < findings->count; i++) {
        const struct diagnosis_event *event = &findings->events[i];
        if (event->layer == cause->layer && is_attention(event->rule) && event->severity >= DIAGNOSIS_WARNING &&
            event->since < begin)
            begin = event->since;
    }
    return begin;
}

/* Each rule's first word about the layer, in order of time, as one sentence each. */
static void tell_layer(FILE *out, const struct norms_findings *findings, long layer)
{
    bool told[DIAGNOSIS_RULES] = {false};
    for (size_t i = 0; i < findings->count; i++) {
        const struct diagnosis_event *event = &findings->events[i];
        if (event->layer != layer || !is_attention(event->rule) || event->severity < DIAGNOSIS_WARNING ||
            told[event->rule])
            continue;
        told[event->rule] = true;
        fprintf(out, " Step %llu: %s.", (ull)event->step, event->explanation);
    }
}

static void tell_consequences(FILE *out, const struct norms_findings *findings, uint64_t begin)
{
    const struct diagnosis_event *loss = first_critical(findings, DIAGNOSIS_LOSS_SPIKE);
    const struct diagnosis_event *broken = first_critical(findings, DIAGNOSIS_NONFINITE);
    if (loss && loss->step >= begin)
        fprintf(out, " The loss left its trend at step %llu, %llu steps after the first sign.", (ull)loss->step,
                (ull)(loss->step - begin));
    if (broken && broken->step >= begin)
        fprintf(out, " The first number that was not finite came at step %llu.", (ull)broken->step);
    if (!loss && !broken)
        fprintf(out, " The loss has not left its trend so far (step %llu).", (ull)findings->newest_step);
}

/* Nothing in attention: the worst of the rest. */
static void tell_rest(FILE *out, const struct norms_findings *findings, enum diagnosis_severity worst)
{
    for (size_t i = 0; i < findings->count; i++) {
        const struct diagnosis_event *event = &findings->events[i];
        if (event->severity != worst)
            continue;
        fprintf(out, "At step %llu %s. No rule about attention spoke before it. %s", (ull)event->step,
                event->explanation, event->advice);
        return;
    }
}

char *norms_conclusion(const struct norms_findings *findings)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return NULL;
    enum diagnosis_severity worst = norms_findings_worst(findings);
    const struct diagnosis_event *cause = culprit(findings);
    if (worst < DIAGNOSIS_WARNING) {
        fprintf(out, "healthy: no warning in %llu logged steps up to step %llu.", (ull)findings->steps,
                (ull)findings->newest_step);
    } else {
        fprintf(out, "%s: ", diagnosis_severity_name(worst));
        if (cause) {
            uint64_t begin = first_sign(findings, cause);
            fprintf(out, "it began in layer %ld, head %ld, around step %llu.", cause->layer, cause->head, (ull)begin);
            tell_layer(out, findings, cause->layer);
            tell_consequences(out, findings, begin);
            fprintf(out, " What to change: %s", cause->advice);
        } else {
            tell_rest(out, findings, worst);
        }
    }
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}
