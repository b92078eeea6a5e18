/* From a list of events to a story: what began it, what followed, what to change. */
#include <stdlib.h>
#include <string.h>

#include "src/norms/findings.h"

typedef unsigned long long ull;

/* The worst attention event with the earliest beginning: the layer that it names is the one to blame. Later ones of the
 * same severity in other layers are taken for its echo. */
static const struct event *culprit(const struct norms_findings *findings)
{
    const struct event *best = NULL;
    for (size_t i = 0; i < findings->count; i++) {
        const struct event *event = &findings->events[i];
        if (!diagnosis_names_cause(event->kind) || event->severity < SEVERITY_WARNING)
            continue;
        if (!best || event->severity > best->severity ||
            (event->severity == best->severity && event->step < best->step))
            best = event;
    }
    return best;
}

static const struct event *first_critical(const struct norms_findings *findings, enum event_kind rule)
{
    for (size_t i = 0; i < findings->count; i++) {
        const struct event *event = &findings->events[i];
        if (event->kind == rule && event->severity == SEVERITY_CRITICAL)
            return event;
    }
    return NULL;
}

/* The earliest beginning that any warning about attention in that layer names. */
static uint64_t first_sign(const struct norms_findings *findings, const struct event *cause)
{
    uint64_t begin = cause->since;
    for (size_t i = 0; i < findings->count; i++) {
        const struct event *event = &findings->events[i];
        if (event->layer == cause->layer && diagnosis_names_cause(event->kind) && event->severity >= SEVERITY_WARNING &&
            event->since < begin)
            begin = event->since;
    }
    return begin;
}

/* Each rule's first word about the layer, in order of time, as one sentence each. */
static void tell_layer(FILE *out, const struct norms_findings *findings, long layer)
{
    bool told[EVENT_RULES] = {false};
    for (size_t i = 0; i < findings->count; i++) {
        const struct event *event = &findings->events[i];
        if (event->layer != layer || !diagnosis_names_cause(event->kind) || event->severity < SEVERITY_WARNING ||
            told[event->kind])
            continue;
        told[event->kind] = true;
        fprintf(out, " Step %llu: %s.", (ull)event->step, event->message);
    }
}

static void tell_consequences(FILE *out, const struct norms_findings *findings, uint64_t begin)
{
    const struct event *loss = first_critical(findings, EVENT_LOSS_SPIKE);
    const struct event *broken = first_critical(findings, EVENT_NONFINITE);
    if (loss && loss->step >= begin)
        fprintf(out, " The loss left its trend at step %llu, %llu steps after the first sign.", (ull)loss->step,
                (ull)(loss->step - begin));
    if (broken && broken->step >= begin)
        fprintf(out, " The first number that was not finite came at step %llu.", (ull)broken->step);
    if (!loss && !broken)
        fprintf(out, " The loss has not left its trend so far (step %llu).", (ull)findings->newest_step);
}

/* Nothing in attention: the worst of the rest. */
static void tell_rest(FILE *out, const struct norms_findings *findings, enum severity worst)
{
    for (size_t i = 0; i < findings->count; i++) {
        const struct event *event = &findings->events[i];
        if (event->severity != worst)
            continue;
        fprintf(out, "At step %llu %s. No rule about attention spoke before it. %s", (ull)event->step, event->message,
                event->advice);
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
    enum severity worst = norms_findings_worst(findings);
    const struct event *cause = culprit(findings);
    if (worst < SEVERITY_WARNING) {
        fprintf(out, "healthy: no warning in %llu logged steps up to step %llu.", (ull)findings->steps,
                (ull)findings->newest_step);
    } else {
        fprintf(out, "%s: ", severity_name(worst));
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
