/* quest-train: trains the model that a configuration describes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/command_line.h"
#include "src/comm.h"
#include "src/config_load.h"
#include "src/stop_signal.h"
#include "src/trainer.h"

enum { OPTION_SET = 256, OPTION_OUT, OPTION_INIT, OPTION_RESUME, OPTION_DEVICE, OPTION_MAX_STEPS };

static const struct argp_option options[] = {
    {"set", OPTION_SET, "KEY.PATH=VALUE", 0, "Override a key of the configuration; may be repeated", 0},
    {"out", OPTION_OUT, "RUN_DIR", 0, "Directory for logs and checkpoints [runs/<name of the configuration>]", 0},
    {"init", OPTION_INIT, "W.h5", 0, "Start from the parameters of this file", 0},
    {"resume", OPTION_RESUME, NULL, 0, "Continue RUN_DIR from its newest valid checkpoint", 0},
    {"device", OPTION_DEVICE, "auto|cpu|cuda", 0, "Where to compute [auto: a GPU where there is one]", 0},
    {"max-steps", OPTION_MAX_STEPS, "N", 0, "Stop, with a checkpoint, when step N of the schedule is done", 0},
    {0},
};

struct arguments {
    const char *config, **overrides;
    size_t override_count, max_steps;
    const char *out, *init, *device;
    bool resume;
    struct error *error;
};

static error_t parse(int key, char *value, struct argp_state *state)
{
    struct arguments *arguments = state->input;
    switch (key) {
    case OPTION_SET:
        arguments->overrides[arguments->override_count++] = value;
        return 0;
    case OPTION_OUT:
        arguments->out = value;
        return 0;
    case OPTION_INIT:
        arguments->init = value;
        return 0;
    case OPTION_RESUME:
        arguments->resume = true;
        return 0;
    case OPTION_DEVICE:
        arguments->device = value;
        return 0;
    case OPTION_MAX_STEPS:
        return command_line_count(&arguments->max_steps, "--max-steps", value, arguments->error) ? 0 : EINVAL;
    case ARGP_KEY_ARG:
        if (arguments->config) {
            error_input(arguments->error, "'%s': one configuration is expected, and %s is given already", value,
                        arguments->config);
            return EINVAL;
        }
        arguments->config = value;
        return 0;
    case ARGP_KEY_NO_ARGS:
        error_input(arguments->error, "which configuration? quest-train CONFIG.yaml [options]");
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    options,
    parse,
    "CONFIG.yaml",
    "Trains a Vision Transformer. Under mpirun each rank takes its share of every batch.\v"
    "Ctrl-C finishes the step, writes a checkpoint and says how to resume; a second one ends at once.",
    NULL,
    NULL,
    NULL};

/* runs/<name> for configs/<name>.yaml. */
static void default_run_directory(char *path, size_t path_bytes, const char *config)
{
    const char *name = strrchr(config, '/');
    name = name ? name + 1 : config;
    const char *ending = strrchr(name, '.');
    snprintf(path, path_bytes, "runs/%.*s", (int)(ending && ending > name ? ending - name : (long)strlen(name)), name);
}

static bool read_configuration(struct trainer_options *trainer, const struct arguments *arguments, struct error *error)
{
    if (arguments->init && arguments->resume)
        return error_input(error, "--init and --resume: a run is either started or continued");
    return config_load(&trainer->config, arguments->config, arguments->overrides, arguments->override_count, error);
}

static bool train(struct comm *comm, const struct arguments *arguments, struct error *error)
{
    char run_directory[1024];
    struct trainer *trainer = NULL;
    struct trainer_options trainer_options = {.run_directory = arguments->out,
                                              .init = arguments->init,
                                              .device = arguments->device,
                                              .resume = arguments->resume,
                                              .max_steps = arguments->max_steps};
    if (!comm_agree(comm, read_configuration(&trainer_options, arguments, error), error))
        return false;
    if (!arguments->out) {
        default_run_directory(run_directory, sizeof run_directory, arguments->config);
        trainer_options.run_directory = run_directory;
    }
    bool ok = trainer_open(&trainer, comm, &trainer_options, error) && trainer_run(trainer, error);
    if (ok || error->shared)
        trainer_close(trainer);
    return ok;
}

int main(int argc, char **argv)
{
    struct error error;
    struct comm *comm = NULL;
    const char **overrides = calloc((size_t)argc, sizeof *overrides);
    struct arguments arguments = {.overrides = overrides, .device = "auto", .error = &error};

    if (!overrides)
        error_runtime(&error, "out of memory");
    /* Signals from here on: a stop while MPI starts is not lost. */
    bool parsed = overrides && command_line_parse(&argp, argc, argv, &arguments, &error) && stop_signal_install(&error);
    struct error open_error;
    if (!comm_open(&comm, &argc, &argv, &open_error))
        comm_exit(comm, &open_error);
    if (!comm_agree(comm, parsed, &error))
        comm_exit(comm, &error);
    if (!train(comm, &arguments, &error))
        comm_exit(comm, &error);
    comm_close(comm);
    free(overrides);
    return 0;
}
