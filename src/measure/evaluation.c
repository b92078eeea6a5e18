/* Runs the model over this rank's span of a dataset and sums what is right over all ranks. */
#include "src/measure/evaluation.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/stop_signal.h"

struct sums {
    double top1, top5, loss, images, damaged, stopped;
};

size_t evaluation_span(size_t images, size_t rank, size_t world_size)
{
    return (rank + 1) * images / world_size - rank * images / world_size;
}

/* What comes down of a batch, in the backend's host memory: a download into other memory would wait for the device. */
struct landing {
    float *loss;         /* [batch] */
    int32_t *label_rank; /* [batch] */
    void *logits;        /* T [batch, classes], or NULL where they are not wanted */
};

static bool open_landing(struct landing *landing, struct model *model, bool with_logits, struct error *error)
{
    const struct kernels *kernels = model->kernels;
    const char *what = "the evaluation's results";
    size_t batch = model->batch, logits = batch * model->classes * dtype_bytes(model->dtype);
    return kernels->allocate_host(model->context, (void **)&landing->loss, batch * sizeof(float), what, error) &&
           kernels->allocate_host(model->context, (void **)&landing->label_rank, batch * sizeof(int32_t), what,
                                  error) &&
           (!with_logits || kernels->allocate_host(model->context, &landing->logits, logits, what, error));
}

static void close_landing(const struct landing *landing, const struct model *model)
{
    void *const buffers[] = {landing->loss, landing->label_rank, landing->logits};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        if (buffers[i])
            model->kernels->release_host(model->context, buffers[i]);
}

/* Where the model computes in bf16 its logits are widened. */
static bool download_logits(struct model *model, float *logits, void *landing, size_t count, struct error *error)
{
    size_t numbers = count * model->classes;
    if (!model->kernels->download(model->context, landing, model->logits, numbers * dtype_bytes(model->dtype), error) ||
        !model->kernels->synchronise(model->context, error))
        return false;
    if (model->dtype == DTYPE_FLOAT32)
        memcpy(logits, landing, numbers * sizeof *logits);
    for (size_t i = 0; model->dtype == DTYPE_BFLOAT16 && i < numbers; i++) {
        uint32_t bits = (uint32_t)((const uint16_t *)landing)[i] << 16;
        memcpy(logits + i, &bits, sizeof bits);
    }
    return true;
}

static bool add_batch(struct sums *sums, struct model *model, const struct input_batch *batch,
                      const struct landing *landing, struct error *error)
{
    size_t count = batch->count;
    float *loss = landing->loss;
    int32_t *label_rank = landing->label_rank;
    const struct model_targets targets = {.labels = batch->labels};
    if (!model_forward(model, batch->pixels, count, false, false, error) ||
        !model_loss(model, &targets, count, 0, error) ||
        !model->kernels->download(model->context, loss, model->loss, count * sizeof *loss, error) ||
        !model->kernels->download(model->context, label_rank, model->label_rank, count * sizeof *label_rank, error) ||
        !model->kernels->synchronise(model->context, error))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (batch->host->images[i] == BATCH_LEFT_OUT)
            continue;
        sums->loss += (double)loss[i];
        sums->top1 += label_rank[i] == 0;
        sums->top5 += label_rank[i] < 5;
    }
    sums->images += (double)(count - batch->host->skipped);
    sums->damaged += (double)batch->host->skipped;
    return true;
}

static bool run_over(struct sums *sums, struct model *model, struct input *input, float *logits, struct error *error)
{
    struct landing landing = {0};
    bool ok = open_landing(&landing, model, logits != NULL, error);
    while (ok && !stop_signal_raised()) {
        struct input_batch batch;
        double wait_s = 0;
        ok = input_next(input, &batch, &wait_s, error);
        if (!ok || batch.count == 0)
            break;
        ok = add_batch(sums, model, &batch, &landing, error) && input_prefetch(input, &wait_s, error);
        if (ok && logits) {
            ok = download_logits(model, logits, landing.logits, batch.count, error);
            logits += batch.count * model->classes;
        }
    }
    sums->stopped = stop_signal_raised();
    close_landing(&landing, model);
    return ok;
}

bool evaluate(struct evaluation *evaluation, struct model *model, struct comm *comm,
              const struct input_options *options, float *logits, bool *stopped, struct error *error)
{
    struct input *input = NULL;
    struct sums sums = {0};
    bool ok = input_open(&input, options, error) && run_over(&sums, model, input, logits, error);
    input_close(input);
    double totals[] = {sums.top1, sums.top5, sums.loss, sums.images, sums.damaged, sums.stopped};
    if (!comm_agree(comm, ok, error) || !comm_reduce(comm, totals, 6, COMM_SUM, error))
        return false;
    double images = totals[3] > 0 ? totals[3] : 1;
    *evaluation = (struct evaluation){totals[0] / images, totals[1] / images, totals[2] / images, (uint64_t)totals[3],
                                      (uint64_t)totals[4]};
    *stopped = totals[5] > 0;
    return true;
}
