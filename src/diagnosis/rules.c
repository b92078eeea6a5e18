/* The rules that look at one head's window, each with the sentence that it says. Sources of the limits:
 * docs/diagnosis.md. */
#include <math.h>
#include <stdio.h>

#include "kernels/attention_kinds.h"
#include "src/diagnosis/state.h"

typedef unsigned long long ull;

/* log N, or what stands for it. */
static double log_of_tokens(const struct diagnosis *diagnosis)
{
    return diagnosis->options.tokens > 1 ? log((double)diagnosis->options.tokens) : diagnosis->entropy_seen;
}

static float newest(const struct layer_history *layer, const float *values)
{
    return values[series_at(&layer->clock, layer->clock.count - 1)];
}

static uint64_t newest_step(const struct layer_history *layer)
{
    return layer->clock.steps[series_at(&layer->clock, layer->clock.count - 1)];
}

/* The step at which a lasting exponential change reaches `limit`, where that lies within the horizon; 0 = it does not.
 * Asks for a change of at least a quarter over the window, so that noise on a plateau predicts nothing. */
static uint64_t crossing(const struct layer_history *layer, const float *values, double limit, double horizon_steps)
{
    struct series_fit fit;
    if (!series_fit_log(&fit, &layer->clock, values) || !fit.lasting || fit.r_squared < 0.8 ||
        fabs(fit.last - fit.first) < log(1.25))
        return 0;
    double steps = (log(limit) - fit.last) / fit.slope;
    return steps >= 0 && steps <= horizon_steps ? newest_step(layer) + 1 + (uint64_t)steps : 0;
}

static struct finding logit_explosion(const struct diagnosis *diagnosis, const struct layer_history *layer, size_t head)
{
    const struct diagnosis_options *options = &diagnosis->options;
    const float *logits = layer->heads[head].logit;
    double value = (double)newest(layer, logits);
    /* Every run's logits grow from nearly zero at first; below a twentieth of the warning that means nothing. */
    if (isnan(value) || value < options->logit_warning / 20)
        return (struct finding){0};
    struct finding finding = {.value = value,
                              .threshold = options->logit_critical,
                              .excess = value / options->logit_warning,
                              .since = series_began(&layer->clock, logits, 1)};
    if (value >= options->logit_critical) {
        finding.severity = SEVERITY_CRITICAL;
        return finding;
    }
    finding.predicted = crossing(layer, logits, options->logit_critical, options->horizon_steps);
    if (finding.predicted > 0 && value >= options->logit_critical / 20)
        finding.severity = SEVERITY_CRITICAL;
    else if (finding.predicted > 0 || value >= options->logit_warning)
        finding.severity = SEVERITY_WARNING;
    if (finding.predicted == 0)
        finding.threshold = options->logit_warning;
    return finding;
}

static void say_logit_explosion(struct event *event, const struct diagnosis_options *options, const char *at)
{
    char tail[160], limit[48];
    snprintf(limit, sizeof limit, "%.4g", options->logit_critical);
    diagnosis_prediction(event, limit, tail, sizeof tail);
    snprintf(event->message, sizeof event->message,
             "%s: the largest attention logit is %.4g and has risen since step %llu%s", at, event->value,
             (ull)event->since, tail);
    diagnosis_advise(event, options->kind);
}

static struct finding entropy_collapse(const struct diagnosis *diagnosis, const struct layer_history *layer,
                                       size_t head)
{
    const struct diagnosis_options *options = &diagnosis->options;
    const struct head_history *history = &layer->heads[head];
    double log_tokens = log_of_tokens(diagnosis), value = (double)newest(layer, history->entropy);
    double logit = (double)newest(layer, history->logit), share = value / log_tokens;
    if (isnan(value) || log_tokens <= 0 || share > 0.4)
        return (struct finding){0};
    struct finding finding = {.value = value,
                              .threshold = options->entropy_warning * log_tokens,
                              .excess = options->entropy_warning / fmax(share, 1e-3),
                              .since = series_began(&layer->clock, history->entropy, -1)};
    bool sharp = logit >= options->entropy_sharp_logit;
    if (share < options->entropy_critical && sharp) {
        finding.severity = SEVERITY_CRITICAL;
        finding.threshold = options->entropy_critical * log_tokens;
    } else if (share < options->entropy_warning) {
        finding.severity = 2 * logit >= options->entropy_sharp_logit ? SEVERITY_WARNING : SEVERITY_INFO;
    } else if (sharp) {
        finding.predicted =
            crossing(layer, history->entropy, options->entropy_critical * log_tokens, 0.5 * options->horizon_steps);
        finding.severity = finding.predicted > 0 ? SEVERITY_WARNING : SEVERITY_HEALTHY;
    }
    return finding;
}

static void say_entropy_collapse(struct event *event, const struct diagnosis_options *options, const char *at)
{
    char tail[160];
    diagnosis_prediction(event, "the critical limit", tail, sizeof tail);
    snprintf(event->message, sizeof event->message,
             "%s: mean attention entropy is %.3g nats and has fallen since step %llu, so most queries look at one "
             "token%s",
             at, event->value, (ull)event->since, tail);
    diagnosis_advise(event, options->kind);
}

static struct finding key_norm_outlier(const struct diagnosis *diagnosis, const struct layer_history *layer,
                                       size_t head)
{
    const struct diagnosis_options *options = &diagnosis->options;
    double value = (double)layer->heads[head].key_outlier, logit = (double)newest(layer, layer->heads[head].logit);
    if (isnan(value) || value < options->key_outlier_warning)
        return (struct finding){0};
    struct finding finding = {.severity = SEVERITY_WARNING,
                              .value = value,
                              .threshold = options->key_outlier_warning,
                              .excess = value / options->key_outlier_warning,
                              .since = newest_step(layer)};
    if (attention_kinds[options->kind].key != NORM_NONE)
        finding.severity = SEVERITY_INFO; /* the key norm does not reach the logits */
    else if (value >= options->key_outlier_critical && logit >= options->logit_warning)
        finding.severity = SEVERITY_CRITICAL;
    return finding;
}

static void say_key_norm_outlier(struct event *event, const struct diagnosis_options *options, const char *at)
{
    bool harmless = event->severity == SEVERITY_INFO;
    snprintf(event->message, sizeof event->message, "%s: one token's key norm is %.3g times the mean, %s", at,
             event->value,
             harmless ? "which the normalisation of the keys keeps out of the logits"
                      : "so it draws attention from every query");
    diagnosis_advise(event, options->kind);
    if (harmless)
        snprintf(event->advice, sizeof event->advice, "Nothing to do under this attention.kind.");
}

/* Growth of log(value) from quarter to quarter of the window, each at least `least` and not slowing down. */
static bool keeps_growing(const struct layer_history *layer, const float *values, double least, double *total)
{
    double quarters[4] = {0};
    for (size_t i = 0; i < SERIES_WINDOW; i++) {
        double value = (double)values[series_at(&layer->clock, i)];
        quarters[i / (SERIES_WINDOW / 4)] += log(fmax(value, 1e-6)) / (SERIES_WINDOW / 4);
    }
    for (size_t i = 1; i < 4; i++)
        if (!(quarters[i] - quarters[i - 1] >= least))
            return false;
    *total = quarters[3] - quarters[0];
    return quarters[3] - quarters[2] >= 0.8 * (quarters[1] - quarters[0]);
}

static struct finding query_key_runaway(const struct diagnosis *diagnosis, const struct layer_history *layer,
                                        size_t head)
{
    const struct diagnosis_options *options = &diagnosis->options;
    const struct head_history *history = &layer->heads[head];
    double least = log(1 + options->runaway_growth), query_growth, key_growth;
    double logit = (double)newest(layer, history->logit), level = options->logit_warning / 50;
    const struct attention_kind_row *kind = &attention_kinds[options->kind];
    /* The loop needs both norms: where queries or keys are normalised, one does not reach the logits. */
    if (kind->query != NORM_NONE || kind->key != NORM_NONE || layer->clock.count < SERIES_WINDOW || !(logit >= level) ||
        isnan(newest(layer, history->query_norm)) || isnan(newest(layer, history->key_norm)) ||
        !keeps_growing(layer, history->query_norm, least, &query_growth) ||
        !keeps_growing(layer, history->key_norm, least, &key_growth))
        return (struct finding){0};
    return (struct finding){
        .severity = logit >= options->logit_warning ? SEVERITY_CRITICAL : SEVERITY_WARNING,
        .value = exp(query_growth + key_growth),
        .threshold = exp(6 * least),
        .excess = logit / level,
        .since = layer->clock.steps[series_at(&layer->clock, 0)],
    };
}

static void say_query_key_runaway(struct event *event, const struct diagnosis_options *options, const char *at)
{
    snprintf(event->message, sizeof event->message,
             "%s: query and key norms have grown together without slowing down since step %llu, their product "
             "%.3g-fold: each one's gradient is proportional to the other",
             at, (ull)event->since, event->value);
    diagnosis_advise(event, options->kind);
}

static struct finding dead_head(const struct diagnosis *diagnosis, const struct layer_history *layer, size_t head)
{
    const float *entropy = layer->heads[head].entropy;
    double log_tokens = log_of_tokens(diagnosis), low = INFINITY, high = -INFINITY;
    /* Every head begins uniform: only after the first thousand steps is that worth a word. */
    if (layer->clock.count < SERIES_WINDOW || newest_step(layer) < 1000 || diagnosis->options.tokens < 2)
        return (struct finding){0};
    for (size_t i = 0; i < SERIES_WINDOW; i++) {
        if (isnan(entropy[i]))
            return (struct finding){0};
        low = fmin(low, (double)entropy[i]);
        high = fmax(high, (double)entropy[i]);
    }
    if (!(low >= diagnosis->options.dead_entropy * log_tokens) || high - low > 1e-3 * log_tokens)
        return (struct finding){0};
    return (struct finding){.severity = SEVERITY_INFO,
                            .value = (double)newest(layer, entropy),
                            .threshold = diagnosis->options.dead_entropy * log_tokens,
                            .excess = 1,
                            .since = layer->clock.steps[series_at(&layer->clock, 0)]};
}

static void say_dead_head(struct event *event, const struct diagnosis_options *options, const char *at)
{
    (void)options;
    snprintf(event->message, sizeof event->message,
             "%s: attention has stayed uniform since step %llu (entropy %.4g nats): this head does nothing", at,
             (ull)event->since, event->value);
    snprintf(event->advice, sizeof event->advice,
             "Harmless; if many heads are so, the learning rate is too low or there are more heads than the task "
             "needs.");
}

const struct diagnosis_rule diagnosis_rules[] = {
    {EVENT_KEY_NORM_OUTLIER, key_norm_outlier, say_key_norm_outlier, .cause = true},
    {EVENT_QUERY_KEY_RUNAWAY, query_key_runaway, say_query_key_runaway, .cause = true},
    {EVENT_LOGIT_EXPLOSION, logit_explosion, say_logit_explosion, .cause = true},
    {EVENT_ENTROPY_COLLAPSE, entropy_collapse, say_entropy_collapse, .cause = true},
    {EVENT_DEAD_HEAD, dead_head, say_dead_head, .cause = false},
    {EVENT_RULES, NULL, NULL, false},
};

bool diagnosis_names_cause(enum event_kind kind)
{
    for (const struct diagnosis_rule *rule = diagnosis_rules; rule->judge; rule++)
        if (rule->kind == kind)
            return rule->cause;
    return false;
}
