/* One run from its configuration to its result: the directory, the training, the tests on new samples. */
#include "src/retrieval/run.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

#include "src/base/clock.h"
#include "src/base/stop_signal.h"
#include "src/config/schema.h"
#include "src/files/file_output.h"
#include "src/retrieval/data.h"
#include "src/retrieval/log.h"
#include "src/retrieval/model.h"

/* ---- the directory ---- */

char *retrieval_run_directory(const struct retrieval_config *config, const char *out)
{
    char *path = NULL;
    int length = asprintf(&path, "%s/%s_%s_lr%g_wd%g_seed%lld", out, config->specification,
                          retrieval_kind_name(config->attention.kind), config->optim.lr, config->optim.weight_decay,
                          (long long)config->train.seed);
    return length < 0 ? NULL : path;
}

/* *same: config.yaml of the directory is that of this run, or there is none yet. */
static bool same_configuration(bool *same, const struct retrieval_config *config, const char *directory,
                               struct error *error)
{
    char *wanted = retrieval_config_format(config), *path = file_path(directory, "config.yaml"), *text = NULL;
    size_t bytes = 0;
    bool ok = (wanted && path) || error_runtime(error, "%s: out of memory", directory);
    FILE *file = ok ? fopen(path, "re") : NULL;
    *same = true;
    if (ok && !file && errno != ENOENT)
        ok = error_input(error, "%s: %s", path, strerror(errno));
    if (file) {
        fclose(file);
        ok = config_read_file(&text, &bytes, path, error);
        *same = ok && bytes == strlen(wanted) && memcmp(text, wanted, bytes) == 0;
    }
    free(text);
    free(path);
    free(wanted);
    return ok;
}

bool retrieval_run_finished(bool *finished, struct retrieval_result *result, const struct retrieval_config *config,
                            const char *directory, struct error *error)
{
    bool same;
    if (!retrieval_result_read(result, finished, directory, error) ||
        !same_configuration(&same, config, directory, error))
        return false;
    return same || error_input(error, "%s: holds a run of another configuration; give another --out", directory);
}

/* ---- training ---- */

struct training {
    const struct retrieval_config *config;
    struct retrieval_model model;
    struct retrieval_batch batch;
    struct retrieval_log log;
    struct retrieval_result *result;
};

static bool train_step(struct training *training, uint64_t step, struct error *error)
{
    const struct retrieval_config *config = training->config;
    struct retrieval_model *model = &training->model;
    struct retrieval_batch *batch = &training->batch;
    bool logged = step % (uint64_t)config->log.every == 0 || step == (uint64_t)config->train.steps || step == 1;
    const struct adamw adamw = {.lr = (float)config->optim.lr,
                                .beta1 = (float)config->optim.beta1,
                                .beta2 = (float)config->optim.beta2,
                                .eps = (float)config->optim.eps,
                                .weight_decay = (float)config->optim.weight_decay,
                                .step = step};
    retrieval_draw(batch, &config->data, (uint64_t)config->train.seed, "retrieval train", (step - 1) * batch->samples,
                   RETRIEVAL_MIXED);
    if (!retrieval_forward(model, batch, logged ? retrieval_log_statistics(&training->log) : NULL, error) ||
        !retrieval_backward(model, batch, error))
        return false;
    training->result->skipped_updates += !isfinite(*model->gradient_square);
    retrieval_log_count(&training->log, model, batch);
    if (logged && !retrieval_log_step(&training->log, model, batch, step, config->optim.lr, error))
        return false;
    return retrieval_update(model, &adamw, error);
}

static bool train(struct training *training, const char *directory, struct error *error)
{
    uint64_t steps = (uint64_t)training->config->train.steps;
    for (uint64_t step = 1; step <= steps; step++) {
        if (stop_signal_raised())
            return error_runtime(error, "%s: stopped at step %llu of %llu", directory, (unsigned long long)step,
                                 (unsigned long long)steps);
        if (!train_step(training, step, error))
            return false;
    }
    training->result->loss = 0;
    for (size_t sample = 0; sample < training->batch.samples; sample++)
        training->result->loss += (double)training->model.loss[sample] / (double)training->batch.samples;
    return true;
}

/* The share of fresh samples of one sort that the model gets right. */
static bool test(struct training *training, double *accuracy, const char *stream, enum retrieval_bias bias,
                 struct error *error)
{
    const struct retrieval_config *config = training->config;
    struct retrieval_batch *batch = &training->batch;
    size_t samples = (size_t)config->test.samples, most = (size_t)config->train.batch_size, right = 0;
    for (size_t first = 0; first < samples; first += most) {
        batch->samples = samples - first < most ? samples - first : most;
        retrieval_draw(batch, &config->data, (uint64_t)config->train.seed, stream, first, bias);
        if (!retrieval_forward(&training->model, batch, NULL, error))
            return false;
        for (size_t sample = 0; sample < batch->samples; sample++)
            right += training->model.rank[sample] == 0;
    }
    *accuracy = (double)right / (double)samples;
    return true;
}

static double processor_s(void)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static bool train_and_test(struct training *training, const char *directory, struct error *error)
{
    struct retrieval_result *result = training->result;
    double begin_s = clock_s(), begin_cpu_s = processor_s();
    if (!train(training, directory, error) ||
        !test(training, &result->accuracy_unbiased, "retrieval test unbiased", RETRIEVAL_UNBIASED, error) ||
        !test(training, &result->accuracy_biased, "retrieval test biased", RETRIEVAL_BIASED, error))
        return false;
    const void *weights = training->model.weights;
    result->weights_crc32 = (uint32_t)crc32(0, weights, sizeof *training->model.weights);
    result->seconds = clock_s() - begin_s;
    result->cpu_s = processor_s() - begin_cpu_s;
    return retrieval_result_write(result, directory, error);
}

bool retrieval_run(struct retrieval_result *result, const struct retrieval_config *config, const char *directory,
                   struct error *error)
{
    *result = (struct retrieval_result){.lr = config->optim.lr,
                                        .weight_decay = config->optim.weight_decay,
                                        .seed = (uint64_t)config->train.seed,
                                        .steps = (uint64_t)config->train.steps};
    snprintf(result->specification, sizeof result->specification, "%s", config->specification);
    snprintf(result->kind, sizeof result->kind, "%s", retrieval_kind_name(config->attention.kind));
    struct training training = {.config = config, .result = result};
    const struct retrieval_start start = {.biases = config->model.biases, .tied = config->model.tied_start};
    size_t samples = (size_t)config->train.batch_size;
    bool ok = retrieval_batch_open(&training.batch, samples, error) &&
              retrieval_log_open(&training.log, config, directory, error) &&
              retrieval_model_open(&training.model, config->attention.kind, start, samples, result->seed, error) &&
              train_and_test(&training, directory, error);
    retrieval_model_close(&training.model);
    retrieval_log_close(&training.log);
    retrieval_batch_close(&training.batch);
    return ok;
}
