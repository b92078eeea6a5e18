/* quest-train: trains the model that a configuration describes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/command_line.h"
#include "src/base/stop_signal.h"
#include "src/comm/comm.h"
#include "src/config/load.h"
#include "src/train/trainer.h"

struct arguments {
    const char *config, **overrides;
    size_t override_count, max_steps;
    const char *out, *init, *device;
    bool resume;
};
#define INTO(member) .field = offsetof(struct arguments, member)

static bool take_override(void *into, const struct command_option *option, const char *text, struct error *error)
{
    struct arguments *arguments = into;
    (void)option, (void)error;
    arguments->overrides[arguments->override_count++] = text;
    return true;
}

static bool take_config(void *into, const char *text, struct error *error)
{
    struct arguments *arguments = into;
    if (arguments->config)
        return error_input(error, "'%s': one configuration is expected, and %s is given already", text,
                           arguments->config);
    arguments->config = text;
    return true;
}

static bool has_config(void *arguments, struct error *error)
{
    return ((struct arguments *)arguments)->config ||
           error_input(error, "which configuration? quest-train CONFIG.yaml [options]");
}

static const struct command_option options[] = {
    {"set", "KEY.PATH=VALUE", "Override a key of the configuration; may be repeated", take_override, .field = 0},
    {"out", "RUN_DIR", "Directory for logs and checkpoints [runs/<name of the configuration>]", command_line_text,
     INTO(out)},
    {"init", "W.h5", "Start from the parameters of this file", command_line_text, INTO(init)},
    {"resume", NULL, "Continue RUN_DIR from its newest valid checkpoint", command_line_flag, INTO(resume)},
    {"device", "auto|cpu|cuda", "Where to compute [auto: a GPU where there is one]", command_line_text, INTO(device)},
    {"max-steps", "N", "Stop, with a checkpoint, when step N of the schedule is done", command_line_count,
     INTO(max_steps)},
    {0},
};

static const struct command_line command_line = {
    options, "CONFIG.yaml",
    "Trains a Vision Transformer. Under mpirun each rank takes its share of every batch.\v"
    "Ctrl-C finishes the step, writes a checkpoint and says how to resume; a second one ends at once.",
    take_config, has_config};

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
    struct arguments arguments = {.overrides = overrides, .device = "auto"};

    if (!overrides)
        error_runtime(&error, "out of memory");
    /* Signals from here on: a stop while MPI starts is not lost. */
    bool parsed =
        overrides && command_line_parse(&command_line, argc, argv, &arguments, &error) && stop_signal_install(&error);
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
