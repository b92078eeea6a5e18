/* The names of severities and kinds of events, as the logs have them. */
#include "src/record/record.h"

#include <string.h>

static const char *const severities[] = {"healthy", "info", "warning", "critical"};

static const char *const kinds[EVENT_KINDS] = {
    [EVENT_LOGIT_EXPLOSION] = "logit_explosion",
    [EVENT_ENTROPY_COLLAPSE] = "entropy_collapse",
    [EVENT_KEY_NORM_OUTLIER] = "key_norm_outlier",
    [EVENT_QUERY_KEY_RUNAWAY] = "query_key_runaway",
    [EVENT_LOSS_SPIKE] = "loss_spike",
    [EVENT_GRADIENT_SPIKE] = "gradient_spike",
    [EVENT_NONFINITE] = "nonfinite",
    [EVENT_RANK_SKEW] = "rank_skew",
    [EVENT_DEAD_HEAD] = "dead_head",
    [EVENT_UPDATE_SKIPPED] = "update_skipped",
    [EVENT_CHECKPOINT_FAILED] = "checkpoint_failed",
    [EVENT_REWIND] = "rewind",
    [EVENT_OTHER] = "other",
};

const char *severity_name(enum severity severity)
{
    return severities[severity];
}

enum severity severity_from_name(const char *name)
{
    for (enum severity severity = SEVERITY_INFO; severity <= SEVERITY_CRITICAL; severity++)
        if (strcmp(name, severities[severity]) == 0)
            return severity;
    return SEVERITY_INFO;
}

const char *event_kind_name(enum event_kind kind)
{
    return kinds[kind];
}

enum event_kind event_kind_from_name(const char *name)
{
    for (enum event_kind kind = 0; kind < EVENT_OTHER; kind++)
        if (strcmp(name, kinds[kind]) == 0)
            return kind;
    return EVENT_OTHER;
}
