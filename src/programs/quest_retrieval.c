/* quest-retrieval: the paper's retrieval experiment (docs/experiments.md). launch/experiments/retrieval runs it all. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/command_line.h"
#include "src/base/stop_signal.h"
#include "src/retrieval/config.h"
#include "src/retrieval/pool.h"
#include "src/retrieval/table.h"

enum { ARGUMENTS_MAX = 64, SEEDS_MAX = 10000 };

struct arguments {
    const char *paths[ARGUMENTS_MAX], *overrides[ARGUMENTS_MAX];
    size_t path_count, jobs;
    const char *out;
    struct retrieval_choice choice;
};
#define INTO(member) .field = offsetof(struct arguments, member)

static bool add(const char **list, size_t *count, const char *text, struct error *error)
{
    if (*count == ARGUMENTS_MAX)
        return error_input(error, "'%s' is one too many: at most %d are possible", text, ARGUMENTS_MAX);
    list[(*count)++] = text;
    return true;
}

static bool take_path(void *into, const char *text, struct error *error)
{
    struct arguments *arguments = into;
    return add(arguments->paths, &arguments->path_count, text, error);
}

static bool take_override(void *into, const struct command_option *option, const char *text, struct error *error)
{
    struct arguments *arguments = into;
    (void)option;
    return add(arguments->overrides, &arguments->choice.override_count, text, error);
}

static bool take_seeds(void *field, const struct command_option *option, const char *text, struct error *error)
{
    size_t *seeds = field;
    if (!command_line_count(seeds, option, text, error))
        return false;
    return *seeds <= SEEDS_MAX ||
           error_input(error, "--%s: %zu are more than the %d that are possible", option->name, *seeds, SEEDS_MAX);
}

static const struct command_option run_options[] = {
    {"out", "DIR", "Where the runs go, a directory each", command_line_text, .letter = 'o', INTO(out)},
    {"jobs", "N", "Runs at a time [as many as there are cores]", command_line_count, .letter = 'j', INTO(jobs)},
    {"spec", "A|B", "Only the file with this specification [all]", command_line_text, INTO(choice.specification)},
    {"kinds", "K,K", "Only these of standard, quest, qnorm, qknorm_unit [the file's]", command_line_text,
     INTO(choice.kinds)},
    {"seeds", "N", "Seeds 0 to N - 1 [the file's]", take_seeds, INTO(choice.seeds)},
    {"set", "KEY=VALUE", "Another value for a key of the files", take_override, .field = 0},
    {0}};

/* ---- commands ---- */

static bool read_grid(struct retrieval_grid *grid, const struct arguments *arguments, struct error *error)
{
    for (size_t i = 0; i < arguments->path_count; i++)
        if (!retrieval_grid_read(grid, arguments->paths[i], &arguments->choice, error))
            return false;
    return grid->count > 0 ||
           error_input(error, "--spec %s: no file given has this specification", arguments->choice.specification);
}

static int run(const void *from)
{
    const struct arguments *arguments = from;
    struct error error;
    struct retrieval_grid grid = {0};
    bool ok = arguments->out || error_input(&error, "--out DIR is missing: where shall the runs go?");
    ok = ok && read_grid(&grid, arguments, &error) && stop_signal_install(&error) &&
         retrieval_pool_run(&grid, arguments->out, arguments->jobs, &error);
    retrieval_grid_close(&grid);
    return ok ? 0 : command_line_fail(&error);
}

static int table(const void *from)
{
    const struct arguments *arguments = from;
    struct error error;
    return retrieval_table_print(arguments->paths[0], &error) ? 0 : command_line_fail(&error);
}

static const struct command commands[] = {
    {"run",
     {run_options, "CONFIG.yaml...",
      "Train every run of the grids, several at a time. Runs that are finished in --out are not repeated.", take_path,
      NULL},
     run,
     ARGUMENTS_MAX},
    {"table", {NULL, "DIR", "Count the successes of the runs in DIR (the --out).", take_path, NULL}, table, 1},
};

static int run_command(const struct command *command, int argc, char **argv)
{
    struct error error;
    struct arguments arguments = {.choice.overrides = arguments.overrides};
    const char *operands = command->line.operands;
    if (!command_line_parse(&command->line, argc, argv, &arguments, &error))
        return command_line_fail(&error);
    if (arguments.path_count > 0 && arguments.path_count <= command->most_operands)
        return command->run(&arguments);
    if (arguments.path_count == 0)
        error_input(&error, "%s: %s is missing; %s --help explains it", argv[0], operands, argv[0]);
    else
        error_input(&error, "%s: one %s at a time", argv[0], operands);
    return command_line_fail(&error);
}

int main(int argc, char **argv)
{
    static const struct command_program program = {.name = "quest-retrieval",
                                                   .commands = commands,
                                                   .count = sizeof commands / sizeof *commands,
                                                   .name_width = 6,
                                                   .operands_width = 15,
                                                   .run = run_command};
    return command_line_main(&program, argc, argv);
}
