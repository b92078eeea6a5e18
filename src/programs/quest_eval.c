/* quest-eval: top-1, top-5 and loss of a checkpoint on a dataset, on any number of ranks. */
#include <errno.h>
#include <hdf5.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data_loaders/format/dataset_classes.h"
#include "src/base/command_line.h"
#include "src/base/stop_signal.h"
#include "src/checkpoint/checkpoint.h"
#include "src/comm/comm.h"
#include "src/comm/device.h"
#include "src/config/load.h"
#include "src/input/augmentation.h"
#include "src/measure/evaluation.h"
#include "src/measure/logits_file.h"

struct arguments {
    const char *checkpoint, *data, *json, *logits, *device, *precision;
    size_t batch;
    bool ema;
};
#define INTO(member) .field = offsetof(struct arguments, member)

static const struct command_option options[] = {
    {"checkpoint", "C.h5", "The model to evaluate", command_line_text, INTO(checkpoint)},
    {"data", "F.h5", "The images to evaluate it on; also a pattern, 'val-*.h5'", command_line_text, INTO(data)},
    {"json", "OUT.json", "Also write the results here (- for standard output)", command_line_text, INTO(json)},
    {"logits", "OUT.h5", "Write float32 /logits [images, classes] in the order of the file", command_line_text,
     INTO(logits)},
    {"device", "auto|cpu|cuda", "Where to compute [auto: a GPU where there is one]", command_line_text, INTO(device)},
    {"batch", "N", "Images a rank computes at once [64]", command_line_count, INTO(batch)},
    {"precision", "fp32|bf16", "Instead of the precision that the model was trained in", command_line_text,
     INTO(precision)},
    {"ema", NULL, "Evaluate the checkpoint's running average of the weights (ema.decay)", command_line_flag, INTO(ema)},
    {0},
};

static bool refuse_operand(void *arguments, const char *text, struct error *error)
{
    (void)arguments;
    return error_input(error, "'%s': quest-eval takes options only (--checkpoint C.h5 --data F.h5)", text);
}

static bool has_files(void *from, struct error *error)
{
    const struct arguments *arguments = from;
    return (arguments->checkpoint && arguments->data) ||
           error_input(error, "--checkpoint C.h5 and --data F.h5 are needed");
}

static const struct command_line command_line = {
    options, NULL,
    "Evaluates a checkpoint. Under mpirun each rank takes its span of the images; every image counts exactly once.",
    refuse_operand, has_files};

struct job {
    const struct arguments *arguments;
    struct comm *comm;
    struct config config;
    struct checkpoint header;
    struct dataset data;
    const struct kernels *kernels;
    struct model *model;
    struct input_options input;
    float *logits; /* of this rank's span, or NULL */
};

/* ---- what can be said before anything is computed ---- */

static bool are_one_file(const char *a, const char *b)
{
    struct stat first, second;
    return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

/* Of a file of a set of data, which only opening it names. */
static bool is_no_output(const struct arguments *arguments, const char *path, struct error *error)
{
    const char *outputs[] = {arguments->json, arguments->logits};
    for (size_t i = 0; i < 2; i++)
        if (outputs[i] && are_one_file(outputs[i], path))
            return error_input(error, "%s: is read by this evaluation; name another file to write", outputs[i]);
    return true;
}

static bool check_output(const struct arguments *arguments, const char *path, struct error *error)
{
    if (!path || strcmp(path, "-") == 0)
        return true;
    if (are_one_file(path, arguments->checkpoint) || are_one_file(path, arguments->data))
        return error_input(error, "%s: is read by this evaluation; name another file to write", path);
    char copy[PATH_MAX];
    snprintf(copy, sizeof copy, "%s", path);
    struct stat status;
    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode))
        return error_input(error, "%s: cannot be written: it is a directory", path);
    if (stat(path, &status) == 0 ? access(path, W_OK) != 0 : access(dirname(copy), W_OK | X_OK) != 0)
        return error_input(error, "%s: cannot be written: %s", path, strerror(errno));
    return true;
}

static bool check_outputs(const struct job *job, struct error *error)
{
    const struct arguments *arguments = job->arguments;
    if (comm_rank(job->comm) != 0)
        return true;
    if (arguments->json && arguments->logits && strcmp(arguments->json, arguments->logits) == 0)
        return error_input(error, "%s: named for both --json and --logits", arguments->json);
    return check_output(arguments, arguments->json, error) && check_output(arguments, arguments->logits, error);
}

static bool read_model_configuration(struct job *job, struct error *error)
{
    const char *path = job->arguments->checkpoint, *precision = job->arguments->precision;
    if (!checkpoint_read_header(&job->header, path, error)) {
        error->status = ERROR_INPUT; /* the user named this file; there is no other to fall back to */
        return false;
    }
    if (job->arguments->ema && !job->header.has_average)
        return error_input(error, "--ema: %s holds no average of the weights (its run had ema.decay 0)", path);
    if (!config_parse_model(&job->config, job->header.config, strlen(job->header.config), path, error))
        return false;
    if (precision && strcmp(precision, "fp32") != 0 && strcmp(precision, "bf16") != 0)
        return error_input(error, "--precision %s: fp32 or bf16 is expected", precision);
    if (precision)
        job->config.train.precision = strcmp(precision, "bf16") == 0 ? DTYPE_BFLOAT16 : DTYPE_FLOAT32;
    job->config.train.recompute = false;
    return true;
}

static bool open_data(struct job *job, struct error *error)
{
    if (!dataset_open(&job->data, job->arguments->data, error))
        return false;
    for (size_t i = 0; i < job->data.file_count; i++)
        if (!is_no_output(job->arguments, job->data.files[i].path, error))
            return false;
    if (job->config.model.classes == 0)
        job->config.model.classes = (int64_t)job->data.classes;
    if (job->data.classes > (size_t)job->config.model.classes)
        return error_input(error, "%s: %zu classes, but the model of %s knows %lld", job->data.path, job->data.classes,
                           job->arguments->checkpoint, (long long)job->config.model.classes);
    return dataset_match_classes(&job->data, job->header.class_names, (size_t)job->config.model.classes,
                                 job->arguments->checkpoint, error);
}

/* ---- the evaluation ---- */

/* Every rank reads the parameters itself: the file is not large, and evaluation starts once. */
static bool load_parameters(struct job *job, struct error *error)
{
    const struct parameters *parameters = &job->model->parameters;
    float *master = calloc(parameters->total, sizeof *master);
    struct checkpoint_tensor *tensors = calloc(parameters->count, sizeof *tensors);
    bool ok = master && tensors ? true : error_runtime(error, "out of memory for the parameters");
    for (size_t i = 0; ok && i < parameters->count; i++) {
        const struct parameter *parameter = &parameters->list[i];
        float *values = master + parameter->offset;
        bool ema = job->arguments->ema;
        tensors[i] = (struct checkpoint_tensor){.name = parameter->name,
                                                .rank = parameter->rank,
                                                .average = ema ? values : NULL,
                                                .parameter = ema ? NULL : values};
        memcpy(tensors[i].shape, parameter->shape, sizeof tensors[i].shape);
    }
    struct checkpoint checkpoint = {.tensors = tensors, .tensor_count = parameters->count, .has_average = true};
    ok = ok && checkpoint_read_tensors(job->arguments->checkpoint, &checkpoint, false, false, error) &&
         model_set_parameters(job->model, master, error);
    free(tensors);
    free(master);
    return ok;
}

static bool open_model(struct job *job, struct error *error)
{
    int device;
    if (!device_choose(&job->kernels, &device, job->arguments->device, job->comm, error))
        return false;
    struct model_options model_options = {.kernels = job->kernels,
                                          .config = &job->config,
                                          .channels = job->data.channels,
                                          .batch = job->arguments->batch,
                                          .device = device};
    bool has_own = job->header.channels == job->data.channels; /* else: a file of weights alone */
    if (!model_open(&job->model, &model_options, error) ||
        !model_set_normalisation(job->model, has_own ? job->header.mean : job->data.mean,
                                 has_own ? job->header.std : job->data.std, error))
        return false;
    job->input = (struct input_options){
        .kernels = job->kernels,
        .context = job->model->context,
        .loader = {.dataset = &job->data,
                   .image_size = (size_t)job->config.model.image_size,
                   .patch_size = (size_t)job->config.model.patch_size,
                   .rank = (size_t)comm_rank(job->comm),
                   .world_size = (size_t)comm_world_size(job->comm),
                   .batch = job->arguments->batch,
                   .accumulate = 1,
                   .augment = input_resizing(&job->config),
                   .evaluation = true,
                   .strict = true,
                   .workers = 1,
                   .prefetch = 4},
    };
    return load_parameters(job, error);
}

static bool open_alone(struct job *job, struct error *error)
{
    if (!check_outputs(job, error) || !read_model_configuration(job, error) || !open_data(job, error) ||
        !open_model(job, error))
        return false;
    size_t span = evaluation_span(job->data.images, job->input.loader.rank, job->input.loader.world_size);
    if (job->arguments->logits) {
        job->logits = malloc((span ? span : 1) * job->model->classes * sizeof(float));
        if (!job->logits)
            return error_runtime(error, "out of memory for %zu rows of logits", span);
    }
    return true;
}

/* Rank 0 gets everybody's span, in the order of the file, and writes it. */
static bool write_logits(struct job *job, struct error *error)
{
    size_t ranks = (size_t)comm_world_size(job->comm), row = job->model->classes * sizeof(float);
    size_t mine = evaluation_span(job->data.images, (size_t)comm_rank(job->comm), ranks);
    float *all = NULL;
    size_t *counts = NULL;
    bool ok = true;
    if (comm_rank(job->comm) == 0) {
        all = malloc(job->data.images * row);
        counts = malloc(ranks * sizeof *counts);
        ok = all && counts ? true : error_runtime(error, "out of memory for the logits of all images");
        for (size_t rank = 0; ok && rank < ranks; rank++)
            counts[rank] = evaluation_span(job->data.images, rank, ranks) * row;
    }
    ok = comm_agree(job->comm, ok, error) &&
         comm_agree(job->comm, comm_gather(job->comm, all, counts, job->logits, mine * row, error), error);
    if (ok && comm_rank(job->comm) == 0)
        ok = logits_file_write(job->arguments->logits, all, job->data.images, job->model->classes, error);
    free(all);
    free(counts);
    return comm_agree(job->comm, ok, error);
}

static bool write_json(const struct arguments *arguments, const struct evaluation *result, struct error *error)
{
    if (!arguments->json)
        return true;
    bool standard = strcmp(arguments->json, "-") == 0;
    FILE *file = standard ? stdout : fopen(arguments->json, "w");
    if (!file)
        return error_input(error, "%s: cannot be created (is the directory there and writable?)", arguments->json);
    int printed = fprintf(file, "{\"top1\": %.9g, \"top5\": %.9g, \"loss\": %.9g, \"images\": %llu}\n", result->top1,
                          result->top5, result->loss, (unsigned long long)result->images);
    bool ok = printed > 0 && fflush(file) == 0;
    if (!standard)
        ok = fclose(file) == 0 && ok;
    return ok || error_runtime(error, "%s: could not be written (disk full?)", arguments->json);
}

static bool run(struct job *job, struct error *error)
{
    struct evaluation result;
    bool stopped;
    if (!comm_agree(job->comm, stop_signal_install(error) && open_alone(job, error), error) ||
        !evaluate(&result, job->model, job->comm, &job->input, job->logits, &stopped, error))
        return false;
    if (stopped) {
        error_runtime(error, "stopped before all images were seen; there is no result");
        return error_shared(error);
    }
    bool ok = true;
    if (comm_rank(job->comm) == 0) {
        if (!job->arguments->json || strcmp(job->arguments->json, "-") != 0)
            printf("top-1 %.2f %%, top-5 %.2f %%, loss %.4f on %llu images of %s\n", 100 * result.top1,
                   100 * result.top5, result.loss, (unsigned long long)result.images, job->data.path);
        ok = write_json(job->arguments, &result, error);
    }
    return comm_agree(job->comm, ok, error) && (!job->logits || write_logits(job, error));
}

int main(int argc, char **argv)
{
    H5dont_atexit(); /* a file that a full disk keeps from closing would be closed again at exit, and crash there */
    struct error error, open_error;
    struct arguments arguments = {.device = "auto", .batch = 64};
    struct job job = {.arguments = &arguments, .data = {.file = -1}};

    bool parsed = command_line_parse(&command_line, argc, argv, &arguments, &error);
    if (!comm_open(&job.comm, &argc, &argv, &open_error))
        comm_exit(job.comm, &open_error);
    bool ok = comm_agree(job.comm, parsed, &error) && run(&job, &error);
    free(job.logits);
    model_close(job.model);
    dataset_close(&job.data);
    checkpoint_free(&job.header);
    if (!ok)
        comm_exit(job.comm, &error);
    comm_close(job.comm);
    return 0;
}
