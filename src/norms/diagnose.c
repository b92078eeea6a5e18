/* quest-norms diagnose: findings in order of time, a conclusion, and an exit status that a script can act on. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/command_line.h"
#include "src/norms/findings.h"
#include "src/norms/norms.h"

enum { STATUS_HEALTHY = 0, STATUS_WARNINGS = 3, STATUS_CRITICAL = 4 };

static void print_event(const struct event *event)
{
    printf("step %-8llu %-8s %-17s %s\n", (unsigned long long)event->step, severity_name(event->severity),
           event_kind_name(event->kind), event->message);
    if (event->advice[0])
        printf("%33s -> %s\n", "", event->advice);
}

/* Advice is the same for many events of a kind: it is printed at the first of them only. */
static void print_text(struct norms_findings *findings, const char *conclusion)
{
    char last_advice[EVENT_RULES][sizeof findings->events[0].advice];
    memset(last_advice, 0, sizeof last_advice);
    for (size_t i = 0; i < findings->count; i++) {
        struct event *event = &findings->events[i];
        bool repeated = strcmp(last_advice[event->kind], event->advice) == 0;
        memcpy(last_advice[event->kind], event->advice, sizeof event->advice);
        if (repeated)
            event->advice[0] = '\0';
        print_event(event);
    }
    if (findings->dropped > 0)
        printf("%zu later events are left out\n", findings->dropped);
    printf("%s%s\n", findings->count > 0 ? "\n" : "", conclusion);
}

static json_t *real_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *place_or_null(long place)
{
    return place >= 0 ? json_integer(place) : json_null();
}

static json_t *event_json(const struct event *event)
{
    return json_pack("{s:I, s:I, s:o, s:s, s:s, s:o, s:o, s:o, s:I, s:o, s:o, s:s, s:s}", "step",
                     (json_int_t)event->step, "since", (json_int_t)event->since, "predicted_step",
                     event->predicted > 0 ? json_integer((json_int_t)event->predicted) : json_null(), "kind",
                     event_kind_name(event->kind), "severity", severity_name(event->severity), "layer",
                     place_or_null(event->layer), "head", place_or_null(event->head), "rank",
                     place_or_null(event->rank), "heads_affected", (json_int_t)event->affected, "value",
                     real_or_null(event->value), "threshold", real_or_null(event->threshold), "explanation",
                     event->message, "advice", event->advice);
}

static bool print_json(const struct norms_findings *findings, const struct norms_run *run, const char *conclusion)
{
    json_t *events = json_array();
    for (size_t i = 0; events && i < findings->count; i++)
        if (json_array_append_new(events, event_json(&findings->events[i])) != 0)
            break;
    bool whole = events && json_array_size(events) == findings->count;
    json_t *root =
        json_pack("{s:s, s:s, s:I, s:I, s:o, s:s}", "run", run->directory, "result",
                  severity_name(norms_findings_worst(findings)), "logged_steps", (json_int_t)findings->steps,
                  "newest_step", (json_int_t)findings->newest_step, "events", events, "conclusion", conclusion);
    bool ok = whole && root && json_dumpf(root, stdout, JSON_INDENT(2)) == 0 && putchar('\n') == '\n';
    json_decref(root);
    return ok;
}

int norms_diagnose(const void *from)
{
    const struct norms_arguments *arguments = from;
    struct error error;
    struct norms_run run;
    struct norms_findings findings = {0};
    bool ok = norms_run_open(&run, arguments->runs[0], &error) && norms_findings_open(&findings, &run, &error) &&
              norms_findings_read(&findings, &run, NULL, NULL, &error);
    norms_findings_sort(&findings);
    char *conclusion = ok ? norms_conclusion(&findings) : NULL;
    if (ok && !conclusion)
        ok = error_runtime(&error, "out of memory");
    if (ok) {
        norms_run_warn(&run);
        if (!arguments->json)
            print_text(&findings, conclusion);
        else if (!print_json(&findings, &run, conclusion))
            ok = error_runtime(&error, "the findings cannot be written as JSON");
    }
    enum severity worst = norms_findings_worst(&findings);
    free(conclusion);
    norms_findings_close(&findings);
    norms_run_close(&run);
    if (!ok)
        return command_line_fail(&error);
    return worst == SEVERITY_CRITICAL ? STATUS_CRITICAL : worst == SEVERITY_WARNING ? STATUS_WARNINGS : STATUS_HEALTHY;
}
