/* A logged step's counts and norms as the lines of metrics.jsonl and norms.jsonl. */
#include "src/retrieval/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"

enum { DIM = RETRIEVAL_DIM, TOKENS = RETRIEVAL_TOKENS, PARTS = 3 }; /* queries, keys, values */

/* A run that was stopped is begun again, so its lines go. */
bool retrieval_log_open(struct retrieval_log *log, const struct retrieval_config *config, const char *directory,
                        struct error *error)
{
    *log = (struct retrieval_log){.last_s = clock_s()};
    char *yaml = retrieval_config_format(config);
    bool ok = (yaml || error_runtime(error, "%s: out of memory", directory)) &&
              norm_statistics_open(&log->statistics, 1, 1, error) && run_log_open(&log->log, directory, true, error) &&
              run_log_rewind(log->log, 0, error) && run_log_config(log->log, yaml, error);
    free(yaml);
    return ok;
}

void retrieval_log_close(struct retrieval_log *log)
{
    run_log_close(log->log);
    norm_statistics_close(&log->statistics);
}

double *retrieval_log_statistics(struct retrieval_log *log)
{
    memcpy(log->statistics.host, log->statistics.initial, ATTENTION_STATISTICS * sizeof(double));
    return log->statistics.host;
}

void retrieval_log_count(struct retrieval_log *log, const struct retrieval_model *model,
                         const struct retrieval_batch *batch)
{
    for (size_t sample = 0; sample < batch->samples; sample++) {
        log->samples[batch->biased[sample]]++;
        log->right[batch->biased[sample]] += model->rank[sample] == 0;
    }
}

/* ---- metrics ---- */

static double share(size_t part, size_t whole)
{
    return whole ? (double)part / (double)whole : NAN;
}

static bool log_metrics(struct retrieval_log *log, const struct retrieval_model *model,
                        const struct retrieval_batch *batch, uint64_t step, double lr, struct error *error)
{
    double now_s = clock_s(), steps = (double)(step - log->last_step), loss = 0;
    size_t right = 0;
    for (size_t sample = 0; sample < batch->samples; sample++) {
        loss += (double)model->loss[sample] / (double)batch->samples;
        right += model->rank[sample] == 0;
    }
    double unbiased = share(log->right[0], log->samples[0]), biased = share(log->right[1], log->samples[1]);
    const struct log_field_of_run more[] = {{"top1_unbiased", &unbiased}, {"top1_biased", &biased}};
    struct metrics_record metrics = {
        .step = step,
        .epoch = NAN, /* every sample is new */
        .loss = loss,
        .top1 = share(right, batch->samples),
        .lr = lr,
        .grad_norm = sqrt(*model->gradient_square),
        .images_per_s = steps * (double)batch->samples / (now_s - log->last_s),
        .step_time_s = (now_s - log->last_s) / steps,
        .mfu = NAN,
        .more = more,
        .more_count = sizeof more / sizeof *more,
    };
    log->last_s = now_s;
    log->last_step = step;
    memset(log->samples, 0, sizeof log->samples);
    memset(log->right, 0, sizeof log->right);
    return run_log_metrics(log->log, &metrics, error);
}

/* ---- norms ---- */

static double row_norm(const float *row)
{
    double square = 0;
    for (size_t i = 0; i < DIM; i++)
        square += (double)row[i] * (double)row[i];
    return sqrt(square);
}

/* Means of a part's norms: of the answer tokens of biased (or unbiased) samples, and of all other tokens. */
static void mean_norms(double *answers, double *others, const struct retrieval_model *model,
                       const struct retrieval_batch *batch, size_t part, bool biased)
{
    double sums[2] = {0};
    size_t counts[2] = {0};
    for (size_t sample = 0; sample < batch->samples; sample++)
        for (size_t token = 0; token < TOKENS; token++) {
            bool answer = batch->biased[sample] == biased && batch->answer[sample] == token;
            sums[answer] += row_norm(model->qkv + ((sample * TOKENS + token) * PARTS + part) * DIM);
            counts[answer]++;
        }
    *answers = counts[1] ? sums[1] / (double)counts[1] : NAN;
    *others = counts[0] ? sums[0] / (double)counts[0] : NAN;
}

static double query_key_gradient_norm(const struct retrieval_weights *gradient)
{
    double square = 0;
    for (size_t i = 0; i < DIM; i++)
        square += pow(row_norm(gradient->query[i]), 2) + pow(row_norm(gradient->key[i]), 2);
    return sqrt(square + pow(row_norm(gradient->query_bias), 2) + pow(row_norm(gradient->key_bias), 2));
}

static bool log_norms(struct retrieval_log *log, const struct retrieval_model *model,
                      const struct retrieval_batch *batch, uint64_t step, struct error *error)
{
    enum { QUERIES, KEYS };
    double key_biased, key_other, query_unbiased, query_other;
    mean_norms(&key_biased, &key_other, model, batch, KEYS, true);
    mean_norms(&query_unbiased, &query_other, model, batch, QUERIES, false);
    const struct log_field_of_run more[] = {{"k_norm_biased_answer", &key_biased},
                                            {"k_norm_other", &key_other},
                                            {"q_norm_unbiased_answer", &query_unbiased},
                                            {"q_norm_other", &query_other}};
    const struct norm_record record = norm_statistics_record(
        &log->statistics, 0, step, (double)(batch->samples * TOKENS), query_key_gradient_norm(model->gradient));
    return run_log_norms_and(log->log, &record, more, sizeof more / sizeof *more, error);
}

bool retrieval_log_step(struct retrieval_log *log, const struct retrieval_model *model,
                        const struct retrieval_batch *batch, uint64_t step, double lr, struct error *error)
{
    return log_metrics(log, model, batch, step, lr, error) && log_norms(log, model, batch, step, error);
}
