/* Windows over what is fed, and the hysteresis that makes events of what the rules find in them. */
#include "src/diagnosis/diagnosis.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/diagnosis/state.h"

struct diagnosis_options diagnosis_defaults(void)
{
    return (struct diagnosis_options){
        .kind = ATTENTION_STANDARD,
        .horizon_steps = 2000,
        .logit_warning = 1e3,
        .logit_critical = 1e4,
        .entropy_warning = 0.1,
        .entropy_critical = 0.02,
        .entropy_sharp_logit = 50,
        .key_outlier_warning = 5,
        .key_outlier_critical = 20,
        .runaway_growth = 0.05,
        .spike_z = 6,
        .rank_slow = 1.5,
        .dead_entropy = 0.999,
    };
}

void diagnosis_set_limits(struct diagnosis_options *options, const struct diagnosis_limits *limits)
{
    options->horizon_steps = limits->horizon_steps;
    options->logit_critical = limits->logit_critical;
    options->logit_warning = 0.1 * limits->logit_critical;
    options->entropy_critical = limits->entropy_critical;
    options->entropy_warning = 5 * limits->entropy_critical;
    options->key_outlier_warning = limits->key_outlier;
    options->key_outlier_critical = 4 * limits->key_outlier;
    options->spike_z = limits->spike_z;
}

bool diagnosis_open(struct diagnosis **out, const struct diagnosis_options *options, diagnosis_raise *raise,
                    void *owner, struct error *error)
{
    struct diagnosis *diagnosis = calloc(1, sizeof *diagnosis);
    *out = diagnosis;
    if (!diagnosis)
        return error_runtime(error, "out of memory for the diagnosis");
    diagnosis->options = *options;
    diagnosis->raise = raise;
    diagnosis->owner = owner;
    diagnosis->slow_rank = diagnosis->odd_rank = -1;
    return true;
}

void diagnosis_close(struct diagnosis *diagnosis)
{
    if (!diagnosis)
        return;
    for (size_t i = 0; i < diagnosis->layer_count; i++)
        free(diagnosis->layers[i].heads);
    free(diagnosis->layers);
    free(diagnosis);
}

/* ---- hysteresis ---- */

enum { QUIET_UNTIL_CLEARED = 8 };

static void explain(struct event *event, const struct diagnosis_options *options)
{
    char at[128];
    diagnosis_place(event, at, sizeof at);
    for (const struct diagnosis_rule *rule = diagnosis_rules; rule->judge; rule++)
        if (rule->kind == event->kind) {
            rule->speak(event, options, at);
            return;
        }
    diagnosis_explain(event, at);
}

void diagnosis_settle(struct diagnosis *diagnosis, struct rule_state *state, enum event_kind rule, uint64_t step,
                      long layer, long rank, const struct finding *finding)
{
    if (finding->severity == SEVERITY_HEALTHY) {
        if (state->raised != SEVERITY_HEALTHY && ++state->quiet >= QUIET_UNTIL_CLEARED)
            memset(state, 0, sizeof *state);
        return;
    }
    bool begins = state->raised == SEVERITY_HEALTHY;
    state->quiet = 0;
    if (begins)
        state->since = finding->since;
    bool worse = finding->severity > state->raised || finding->excess >= 4 * state->excess ||
                 (state->affected > 0 && finding->affected >= 2 * state->affected);
    if (!begins && !worse)
        return;
    state->raised = finding->severity > state->raised ? finding->severity : state->raised;
    state->excess = fmax(state->excess, finding->excess);
    state->affected = finding->affected > state->affected ? finding->affected : state->affected;
    struct event event = {
        .step = step,
        .since = state->since < finding->since ? state->since : finding->since,
        .predicted = finding->predicted,
        .kind = rule,
        .severity = finding->severity,
        .layer = layer,
        .head = finding->head,
        .rank = rank,
        .affected = finding->affected,
        .value = finding->value,
        .threshold = finding->threshold,
    };
    explain(&event, &diagnosis->options);
    diagnosis->raise(diagnosis->owner, &event);
}

/* A rule over all heads of a layer: the worst speaks for the layer. */
static void judge_layer(struct diagnosis *diagnosis, size_t index, const struct diagnosis_rule *rule)
{
    struct layer_history *layer = &diagnosis->layers[index];
    struct finding worst = {.head = -1};
    size_t affected = 0;
    for (size_t head = 0; head < layer->head_count; head++) {
        struct finding finding = rule->judge(diagnosis, layer, head);
        affected += finding.severity > SEVERITY_HEALTHY;
        if (finding.severity > worst.severity ||
            (finding.severity == worst.severity && finding.severity > 0 && finding.excess > worst.excess)) {
            worst = finding;
            worst.head = (long)head;
        }
    }
    worst.affected = affected;
    uint64_t step = layer->clock.steps[series_at(&layer->clock, layer->clock.count - 1)];
    diagnosis_settle(diagnosis, &layer->states[rule->kind], rule->kind, step, (long)index, -1, &worst);
}

/* ---- loss and gradient ---- */

/* In logarithms: gradient norms spread over factors, not sums. */
static void judge_gradient(struct diagnosis *diagnosis, struct spike_window *window, struct rule_state *states,
                           uint64_t step, long layer, double gradient_norm)
{
    double median, value = log(fmax(gradient_norm, 1e-12)), recent = spike_recent_maximum(window, 8);
    double z = spike_push(window, value, 0, 0.1, &median);
    struct rule_state *state = &states[EVENT_GRADIENT_SPIKE];
    struct finding finding = {.head = -1, .value = gradient_norm, .threshold = exp(median), .since = step};
    /* A norm that rises slowly (warm-up) is no spike: at its onset it stands out of its neighbours too. */
    if (z >= diagnosis->options.spike_z && (state->raised || value > recent + log(1.3))) {
        finding.severity = SEVERITY_WARNING;
        finding.excess = z;
    }
    diagnosis_settle(diagnosis, state, EVENT_GRADIENT_SPIKE, step, layer, -1, &finding);
}

static void judge_loss(struct diagnosis *diagnosis, uint64_t step, double loss)
{
    double median, z = spike_push(&diagnosis->loss, loss, 0.02, 0.02, &median);
    struct rule_state *state = &diagnosis->states[EVENT_LOSS_SPIKE];
    struct finding finding = {.head = -1, .value = loss, .threshold = median, .since = step};
    diagnosis->loss_high = z >= diagnosis->options.spike_z ? diagnosis->loss_high + 1 : 0;
    if (diagnosis->loss_high > 0) {
        /* One high loss can be one hard batch; four logged ones in a row are a run that has left its trend. */
        finding.severity = diagnosis->loss_high >= 4 ? SEVERITY_CRITICAL : SEVERITY_WARNING;
        finding.excess = z;
    }
    diagnosis_settle(diagnosis, state, EVENT_LOSS_SPIKE, step, -1, -1, &finding);
}

static void judge_nonfinite(struct diagnosis *diagnosis, struct rule_state *state, uint64_t step, long layer, long head)
{
    struct finding finding = {
        .severity = SEVERITY_CRITICAL, .head = head, .value = NAN, .threshold = NAN, .excess = 1, .since = step};
    diagnosis_settle(diagnosis, state, EVENT_NONFINITE, step, layer, -1, &finding);
}

void diagnosis_step(struct diagnosis *diagnosis, uint64_t step, double loss, double gradient_norm)
{
    if (step <= diagnosis->newest_step)
        return; /* a log that holds a step twice (a resume without a cut) is read once */
    diagnosis->newest_step = step;
    if (!isfinite(loss) || !isfinite(gradient_norm)) {
        judge_nonfinite(diagnosis, &diagnosis->states[EVENT_NONFINITE], step, -1, -1);
        return;
    }
    judge_loss(diagnosis, step, loss);
    judge_gradient(diagnosis, &diagnosis->gradient, diagnosis->states, step, -1, gradient_norm);
}

/* ---- layers ---- */

static bool layer_of(struct diagnosis *diagnosis, size_t index, size_t heads, struct layer_history **layer,
                     struct error *error)
{
    if (index >= diagnosis->layer_count) {
        struct layer_history *layers = realloc(diagnosis->layers, (index + 1) * sizeof *layers);
        if (!layers)
            return error_runtime(error, "out of memory for the diagnosis of layer %zu", index);
        memset(layers + diagnosis->layer_count, 0, (index + 1 - diagnosis->layer_count) * sizeof *layers);
        diagnosis->layers = layers;
        diagnosis->layer_count = index + 1;
    }
    *layer = &diagnosis->layers[index];
    if ((*layer)->head_count != heads) {
        free((*layer)->heads);
        (*layer)->head_count = 0;
        (*layer)->clock = (struct series_clock){0};
        (*layer)->heads = calloc(heads, sizeof *(*layer)->heads);
        if (!(*layer)->heads)
            return error_runtime(error, "out of memory for the diagnosis of layer %zu", index);
        (*layer)->head_count = heads;
    }
    return true;
}

/* The first head with a known number that is not finite, or -1. */
static long first_nonfinite(const struct norm_record *record)
{
    const double *lists[] = {record->q_norm_mean, record->k_norm_mean, record->k_norm_max, record->logit_max,
                             record->entropy_mean};
    for (size_t head = 0; head < record->heads; head++)
        for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
            if (lists[i] && !isfinite(lists[i][head]))
                return (long)head;
    return -1;
}

static void remember(struct diagnosis *diagnosis, struct layer_history *layer, const struct norm_record *record)
{
    size_t at = layer->clock.next;
    for (size_t head = 0; head < record->heads; head++) {
        struct head_history *history = &layer->heads[head];
        history->query_norm[at] = record->q_norm_mean ? (float)record->q_norm_mean[head] : NAN;
        history->key_norm[at] = record->k_norm_mean ? (float)record->k_norm_mean[head] : NAN;
        history->logit[at] = record->logit_max ? (float)record->logit_max[head] : NAN;
        history->entropy[at] = record->entropy_mean ? (float)record->entropy_mean[head] : NAN;
        history->key_outlier = record->k_norm_max && record->k_norm_mean
                                   ? (float)(record->k_norm_max[head] / fmax(record->k_norm_mean[head], 1e-6))
                                   : NAN;
        if (record->entropy_mean)
            diagnosis->entropy_seen = fmax(diagnosis->entropy_seen, record->entropy_mean[head]);
    }
    series_clock_push(&layer->clock, record->step);
}

bool diagnosis_norms(struct diagnosis *diagnosis, const struct norm_record *record, struct error *error)
{
    struct layer_history *layer = NULL;
    if (record->heads == 0)
        return true;
    if (!layer_of(diagnosis, record->layer, record->heads, &layer, error))
        return false;
    struct series_clock *clock = &layer->clock;
    if (clock->count > 0 && record->step <= clock->steps[series_at(clock, clock->count - 1)])
        return true;
    long broken = first_nonfinite(record);
    if (broken >= 0) {
        *clock = (struct series_clock){0}; /* a window with a hole in it is no window */
        judge_nonfinite(diagnosis, &layer->states[EVENT_NONFINITE], record->step, (long)record->layer, broken);
        return true;
    }
    remember(diagnosis, layer, record);
    for (const struct diagnosis_rule *rule = diagnosis_rules; rule->judge; rule++)
        judge_layer(diagnosis, record->layer, rule);
    if (isfinite(record->qkv_grad_norm))
        judge_gradient(diagnosis, &layer->gradient, layer->states, record->step, (long)record->layer,
                       record->qkv_grad_norm);
    return true;
}

/* ---- ranks ---- */

/* The rank that lies farthest over (seconds) or off (loss) the mean of the others, in multiples of that mean. */
static long farthest_rank(const double *values, size_t ranks, bool both_sides, double *ratio)
{
    double sum = 0;
    long farthest = 0;
    *ratio = 0;
    for (size_t i = 0; i < ranks; i++)
        sum += values[i];
    for (size_t i = 0; i < ranks; i++) {
        double others = (sum - values[i]) / (double)(ranks - 1);
        double this_ratio =
            both_sides ? fabs(values[i] - others) / fmax(fabs(others), 1e-9) : values[i] / fmax(others, 1e-9);
        if (!isfinite(this_ratio) || this_ratio > *ratio) {
            *ratio = this_ratio;
            farthest = (long)i;
        }
    }
    return farthest;
}

static unsigned in_a_row(long *previous, unsigned count, long rank, bool over)
{
    count = over && rank == *previous ? count + 1 : over ? 1 : 0;
    *previous = over ? rank : -1;
    return count;
}

void diagnosis_ranks(struct diagnosis *diagnosis, uint64_t step, const double *seconds, const double *loss,
                     size_t ranks)
{
    if (ranks < 2)
        return;
    struct finding finding = {.head = -1, .since = step, .threshold = diagnosis->options.rank_slow};
    double ratio = 0;
    long rank = -1;
    if (seconds) {
        rank = farthest_rank(seconds, ranks, false, &ratio);
        diagnosis->slow_count =
            in_a_row(&diagnosis->slow_rank, diagnosis->slow_count, rank, ratio >= diagnosis->options.rank_slow);
        if (diagnosis->slow_count >= 3)
            finding.severity = SEVERITY_WARNING;
    }
    if (loss && finding.severity == SEVERITY_HEALTHY) {
        double off;
        long odd = farthest_rank(loss, ranks, true, &off);
        diagnosis->odd_count = in_a_row(&diagnosis->odd_rank, diagnosis->odd_count, odd, !(off < 0.5));
        if (diagnosis->odd_count >= 10) {
            finding.severity = SEVERITY_WARNING;
            finding.threshold = 0.5;
            ratio = off;
            rank = odd;
        }
    }
    finding.value = finding.excess = ratio;
    diagnosis_settle(diagnosis, &diagnosis->states[EVENT_RANK_SKEW], EVENT_RANK_SKEW, step, -1, rank, &finding);
}
