/* quest-retrieval: the paper's retrieval experiment (docs/experiments.md). launch/experiments/retrieval runs it all. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/command_line.h"
#include "src/retrieval_config.h"
#include "src/retrieval_pool.h"
#include "src/retrieval_table.h"
#include "src/stop_signal.h"

enum { ARGUMENTS_MAX = 64, SEEDS_MAX = 10000 };

enum option_key {
    OPTION_OUT = 'o',
    OPTION_JOBS = 'j',
    OPTION_SEEDS = 256,
    OPTION_SPECIFICATION,
    OPTION_KINDS,
    OPTION_SET,
};

struct arguments {
    const char *paths[ARGUMENTS_MAX], *overrides[ARGUMENTS_MAX];
    size_t path_count, jobs;
    const char *out;
    struct retrieval_choice choice;
    struct error *error;
};

static error_t add(struct arguments *arguments, const char **list, size_t *count, const char *text)
{
    if (*count == ARGUMENTS_MAX) {
        error_input(arguments->error, "'%s' is one too many: at most %d are possible", text, ARGUMENTS_MAX);
        return EINVAL;
    }
    list[(*count)++] = text;
    return 0;
}

static error_t set_seeds(struct arguments *arguments, const char *text)
{
    size_t *seeds = &arguments->choice.seeds;
    if (command_line_count(seeds, "--seeds", text, arguments->error) && *seeds <= SEEDS_MAX)
        return 0;
    if (*seeds > SEEDS_MAX)
        error_input(arguments->error, "--seeds: %zu are more than the %d that are possible", *seeds, SEEDS_MAX);
    return EINVAL;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct arguments *arguments = state->input;
    switch (key) {
    case OPTION_OUT:
        arguments->out = text;
        return 0;
    case OPTION_JOBS:
        return command_line_count(&arguments->jobs, "--jobs", text, arguments->error) ? 0 : EINVAL;
    case OPTION_SEEDS:
        return set_seeds(arguments, text);
    case OPTION_SPECIFICATION:
        arguments->choice.specification = text;
        return 0;
    case OPTION_KINDS:
        arguments->choice.kinds = text;
        return 0;
    case OPTION_SET:
        return add(arguments, arguments->overrides, &arguments->choice.override_count, text);
    case ARGP_KEY_ARG:
        return add(arguments, arguments->paths, &arguments->path_count, text);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option run_options[] = {
    {"out", OPTION_OUT, "DIR", 0, "Where the runs go, a directory each", 0},
    {"jobs", OPTION_JOBS, "N", 0, "Runs at a time [as many as there are cores]", 0},
    {"spec", OPTION_SPECIFICATION, "A|B", 0, "Only the file with this specification [all]", 0},
    {"kinds", OPTION_KINDS, "K,K", 0, "Only these of standard, quest, qnorm, qknorm_unit [the file's]", 0},
    {"seeds", OPTION_SEEDS, "N", 0, "Seeds 0 to N - 1 [the file's]", 0},
    {"set", OPTION_SET, "KEY=VALUE", 0, "Another value for a key of the files", 0},
    {0}};
static const struct argp_option no_options[] = {{0}};

/* ---- commands ---- */

static int fail(const struct error *error)
{
    fprintf(stderr, "error: %s\n", error->message);
    return (int)error->status;
}

static bool read_grid(struct retrieval_grid *grid, struct arguments *arguments, struct error *error)
{
    arguments->choice.overrides = arguments->overrides;
    for (size_t i = 0; i < arguments->path_count; i++)
        if (!retrieval_grid_read(grid, arguments->paths[i], &arguments->choice, error))
            return false;
    return grid->count > 0 ||
           error_input(error, "--spec %s: no file given has this specification", arguments->choice.specification);
}

static int run(struct arguments *arguments)
{
    struct error error;
    struct retrieval_grid grid = {0};
    bool ok = arguments->out || error_input(&error, "--out DIR is missing: where shall the runs go?");
    ok = ok && read_grid(&grid, arguments, &error) && stop_signal_install(&error) &&
         retrieval_pool_run(&grid, arguments->out, arguments->jobs, &error);
    retrieval_grid_close(&grid);
    return ok ? 0 : fail(&error);
}

static int table(struct arguments *arguments)
{
    struct error error;
    if (arguments->path_count > 1)
        error_input(&error, "quest-retrieval table: one DIR at a time");
    else if (retrieval_table_print(arguments->paths[0], &error))
        return 0;
    return fail(&error);
}

static const struct command {
    const char *name;
    struct argp argp;
    int (*run)(struct arguments *arguments);
} commands[] = {
    {"run",
     {run_options, parse, "CONFIG.yaml...",
      "Train every run of the grids, several at a time. Runs that are finished in --out are not repeated.", NULL, NULL,
      NULL},
     run},
    {"table",
     {no_options, parse, "DIR", "Count the successes of the runs in DIR (the --out).", NULL, NULL, NULL},
     table},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void usage(void)
{
    puts("Usage: quest-retrieval COMMAND ... (quest-retrieval COMMAND --help says more)");
    for (size_t i = 0; i < COMMANDS; i++)
        printf("  %-6s %-15s %s\n", commands[i].name, commands[i].argp.args_doc, commands[i].argp.doc);
}

static int run_command(const struct command *command, int argc, char **argv)
{
    struct error error;
    struct arguments arguments = {.error = &error};
    char name[64];
    snprintf(name, sizeof name, "quest-retrieval %s", command->name);
    argv[0] = name; /* so that messages and --help name the command */
    if (!command_line_parse(&command->argp, argc, argv, &arguments, &error))
        return fail(&error);
    if (arguments.path_count == 0) {
        error_input(&error, "%s: %s is missing; %s --help explains it", name, command->argp.args_doc, name);
        return fail(&error);
    }
    return command->run(&arguments);
}

int main(int argc, char **argv)
{
    struct error error;
    const char *name = argc >= 2 ? argv[1] : "(none given)";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-?") == 0) {
        usage();
        return 0;
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        puts("QUEST-Train " QUEST_VERSION);
        return 0;
    }
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0)
            return run_command(&commands[i], argc - 1, argv + 1);
    error_input(&error, "quest-retrieval: there is no command '%s'; quest-retrieval --help lists them", name);
    return fail(&error);
}
