/* quest-norms: looks at the statistics that a run logs (docs/quest-norms.md). */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/command_line.h"
#include "src/norms.h"

enum option_key {
    OPTION_OUT = 'o',
    OPTION_JSON = 'j',
    OPTION_STATISTIC = 's',
    OPTION_LAYER = 'l',
    OPTION_HEAD = 'd',
    OPTION_CSV = 256,
    OPTION_PROMETHEUS,
    OPTION_TENSORBOARD,
    OPTION_LOG,
    OPTION_PLAIN,
    OPTION_INTERVAL,
};

static error_t add_run(struct norms_arguments *arguments, const char *directory)
{
    if (arguments->run_count == NORMS_RUNS_MAX) {
        error_input(arguments->error, "'%s' is one run too many: at most %d are compared", directory, NORMS_RUNS_MAX);
        return EINVAL;
    }
    arguments->runs[arguments->run_count++] = directory;
    return 0;
}

static error_t set_interval(struct norms_arguments *arguments, const char *text)
{
    char *end;
    arguments->interval_s = strtod(text, &end);
    if (*end == '\0' && arguments->interval_s >= 0.05 && arguments->interval_s <= 3600)
        return 0;
    error_input(arguments->error, "--interval: '%s' is not a number of seconds from 0.05 to 3600", text);
    return EINVAL;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct norms_arguments *arguments = state->input;
    switch (key) {
    case OPTION_OUT:
        arguments->out = text;
        return 0;
    case OPTION_JSON:
        arguments->json = true;
        return 0;
    case OPTION_STATISTIC:
        arguments->statistic = text;
        return 0;
    case OPTION_LAYER:
        arguments->layer = text;
        return 0;
    case OPTION_HEAD:
        arguments->head = text;
        return 0;
    case OPTION_LOG:
        arguments->logarithmic = true;
        return 0;
    case OPTION_PLAIN:
        arguments->plain = true;
        return 0;
    case OPTION_INTERVAL:
        return set_interval(arguments, text);
    case OPTION_CSV:
        arguments->csv = text;
        return 0;
    case OPTION_PROMETHEUS:
        arguments->prometheus = text;
        return 0;
    case OPTION_TENSORBOARD:
        arguments->tensorboard = text;
        return 0;
    case ARGP_KEY_ARG:
        return add_run(arguments, text);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option diagnose_options[] = {
    {"json", OPTION_JSON, NULL, 0, "One JSON object instead of text", 0}, {0}};
static const struct argp_option watch_options[] = {
    {"plain", OPTION_PLAIN, NULL, 0, "Lines instead of a screen", 0},
    {"interval", OPTION_INTERVAL, "SECONDS", 0, "How often to look for what is new [1]", 0},
    {0}};
static const struct argp_option report_options[] = {{"out", OPTION_OUT, "F.html", 0, "The page to write", 0}, {0}};

static const struct argp_option plot_options[] = {
    {"stat", OPTION_STATISTIC, "NAME", 0,
     "loss, grad_norm, lr, images_per_s, q_norm_mean, q_norm_max, k_norm_mean, k_norm_max, logit_max, entropy_mean, "
     "entropy_min, qkv_grad_norm, or any other number that the logs hold [logit_max]",
     0},
    {"layer", OPTION_LAYER, "I", 0, "Only this layer [all]", 0},
    {"head", OPTION_HEAD, "H", 0, "Only this head [all]", 0},
    {"log", OPTION_LOG, NULL, 0, "A logarithmic axis", 0},
    {"out", OPTION_OUT, "F", 0, "The picture to write: F.png, F.svg or F.pdf", 0},
    {0}};
static const struct argp_option export_options[] = {
    {"csv", OPTION_CSV, "F", 0, "Every logged step, and every layer and head", 0},
    {"prometheus", OPTION_PROMETHEUS, "F", 0, "The newest numbers, for the node exporter's textfile collector", 0},
    {"tensorboard", OPTION_TENSORBOARD, "DIR", 0, "Every logged step, as TensorBoard's event file in DIR", 0},
    {0}};

static const struct command {
    const char *name;
    struct argp argp;
    size_t most_runs;
    int (*run)(const struct norms_arguments *arguments);
} commands[] = {
    {"diagnose",
     {diagnose_options, parse, "RUN",
      "Run the diagnosis over a finished or running log. Exit status 0: healthy, 3: warnings, 4: critical.", NULL, NULL,
      NULL},
     1,
     norms_diagnose},
    {"watch", {watch_options, parse, "RUN", "Follow a running job in the terminal.", NULL, NULL, NULL}, 1, norms_watch},
    {"report",
     {report_options, parse, "RUN...",
      "Write one HTML page, that opens offline, with the charts, the events and the differences of the runs.", NULL,
      NULL, NULL},
     NORMS_RUNS_MAX,
     norms_report},
    {"plot",
     {plot_options, parse, "RUN...", "Draw one statistic over the steps with gnuplot.", NULL, NULL, NULL},
     NORMS_RUNS_MAX,
     norms_plot},
    {"export",
     {export_options, parse, "RUN", "Write the log as other programs read it.", NULL, NULL, NULL},
     1,
     norms_export},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void usage(FILE *stream)
{
    fputs("Usage: quest-norms COMMAND ... (quest-norms COMMAND --help says more)\n", stream);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(stream, "  %-9s %-10s %s\n", commands[i].name, commands[i].argp.args_doc, commands[i].argp.doc);
}

static int run_command(const struct command *command, int argc, char **argv)
{
    struct error error;
    struct norms_arguments arguments = {.interval_s = 1, .error = &error};
    char name[64];
    snprintf(name, sizeof name, "quest-norms %s", command->name);
    argv[0] = name; /* so that messages and --help name the command */
    if (!command_line_parse(&command->argp, argc, argv, &arguments, &error))
        return norms_fail(&error);
    if (arguments.run_count == 0 || arguments.run_count > command->most_runs) {
        error_input(&error, "%s: %s; %s --help explains it", name,
                    arguments.run_count == 0 ? "RUN is missing" : "one RUN at a time", name);
        return norms_fail(&error);
    }
    return command->run(&arguments);
}

int main(int argc, char **argv)
{
    struct error error;
    if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0)) {
        usage(stdout);
        return 0;
    }
    if (argc >= 2 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)) {
        puts("QUEST-Train " QUEST_VERSION);
        return 0;
    }
    for (size_t i = 0; argc >= 2 && i < COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return run_command(&commands[i], argc - 1, argv + 1);
    error_input(&error, "quest-norms: there is no command '%s'; quest-norms --help lists them",
                argc >= 2 ? argv[1] : "(none given)");
    return norms_fail(&error);
}
