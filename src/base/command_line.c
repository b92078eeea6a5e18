/* Tables of options become argp's, which parses and prints --help; what argp leaves unsaid about a mistake is said
 * here. */
#include "src/base/command_line.h"

#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *argp_program_version = "QUEST-Train " QUEST_VERSION;

enum { FIRST_KEY = 256 }; /* above all letters: an option with no short form */

struct parsing {
    const struct command_line *line;
    void *arguments;
    struct error *error;
};

static size_t count_options(const struct command_line *line)
{
    size_t count = 0;
    while (line->options && line->options[count].name)
        count++;
    return count;
}

static int key_of(const struct command_line *line, size_t index)
{
    return line->options[index].letter ? line->options[index].letter : FIRST_KEY + (int)index;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    const struct parsing *parsing = state->input;
    const struct command_line *line = parsing->line;
    if (key == ARGP_KEY_ARG && line->take_operand)
        return line->take_operand(parsing->arguments, text, parsing->error) ? 0 : EINVAL;
    if (key == ARGP_KEY_END && line->finish)
        return line->finish(parsing->arguments, parsing->error) ? 0 : EINVAL;
    for (size_t i = 0, count = count_options(line); i < count; i++)
        if (key == key_of(line, i)) {
            const struct command_option *option = &line->options[i];
            return option->take((char *)parsing->arguments + option->field, option, text, parsing->error) ? 0 : EINVAL;
        }
    return ARGP_ERR_UNKNOWN;
}

/* ---- what is wrong ---- */

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-?") == 0 || strcmp(argv[i], "--usage") == 0 ||
            strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-V") == 0)
            return true;
    return false;
}

/* The option that `text` ("--name" or "--name=value") stands for, whole or as a unique beginning; NULL if none. */
static const struct command_option *find_option(const struct command_line *line, const char *text)
{
    const struct command_option *match = NULL;
    size_t length = strcspn(text + 2, "=");
    for (size_t i = 0, count = count_options(line); i < count; i++) {
        const struct command_option *option = &line->options[i];
        if (strncmp(option->name, text + 2, length) != 0)
            continue;
        if (strlen(option->name) == length)
            return option;
        if (match)
            return NULL;
        match = option;
    }
    return match;
}

/* argp knows that something is wrong, but under ARGP_SILENT not what. */
static bool name_mistake(const struct command_line *line, int argc, char **argv, struct error *error)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (argv[i][0] != '-' || argv[i][1] == '\0')
            continue;
        const struct command_option *option = argv[i][1] == '-' ? find_option(line, argv[i]) : NULL;
        if (!option)
            return error_input(error, "%s is not an option of this program; --help lists them", argv[i]);
        if (!option->value && strchr(argv[i], '='))
            return error_input(error, "--%s takes no value", option->name);
        if (option->value && !strchr(argv[i], '=') && ++i == argc)
            return error_input(error, "--%s needs a value: %s", option->name, option->value);
    }
    return error_input(error, "the command line is not understood; --help explains it");
}

bool command_line_parse(const struct command_line *line, int argc, char **argv, void *arguments, struct error *error)
{
    size_t count = count_options(line);
    struct argp_option *options = calloc(count + 1, sizeof *options);
    if (!options)
        return error_runtime(error, "out of memory for the command line");
    for (size_t i = 0; i < count; i++)
        options[i] = (struct argp_option){.name = line->options[i].name,
                                          .key = key_of(line, i),
                                          .arg = line->options[i].value,
                                          .flags = line->options[i].meaning ? 0 : OPTION_HIDDEN,
                                          .doc = line->options[i].meaning};
    const struct argp argp = {options, parse, line->operands, line->meaning, NULL, NULL, NULL};
    struct parsing parsing = {line, arguments, error};
    if (asks_for_help(argc, argv))
        argp_parse(&argp, argc, argv, 0, NULL, &parsing);
    error->message[0] = '\0';
    error->status = ERROR_NONE;
    bool ok = argp_parse(&argp, argc, argv, ARGP_SILENT, NULL, &parsing) == 0;
    free(options);
    return ok || (error->status == ERROR_NONE && name_mistake(line, argc, argv, error));
}

/* ---- ways to take a value ---- */

bool command_line_text(void *field, const struct command_option *option, const char *text, struct error *error)
{
    (void)option, (void)error;
    *(const char **)field = text;
    return true;
}

bool command_line_flag(void *field, const struct command_option *option, const char *text, struct error *error)
{
    (void)option, (void)text, (void)error;
    return *(bool *)field = true;
}

bool command_line_count(void *field, const struct command_option *option, const char *text, struct error *error)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || end == text || *end || value < 1)
        return error_input(error, "--%s: '%s' is not a positive whole number", option->name, text);
    *(size_t *)field = (size_t)value;
    return true;
}

bool command_line_count_or_none(void *field, const struct command_option *option, const char *text, struct error *error)
{
    if (strcmp(text, "0") != 0)
        return command_line_count(field, option, text, error);
    *(size_t *)field = 0;
    return true;
}

bool command_line_number(void *field, const struct command_option *option, const char *text, struct error *error)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || value > option->most)
        return error_input(error, "--%s: '%s' is not a whole number from 0 to %zu", option->name, text, option->most);
    *(size_t *)field = value;
    return true;
}

bool command_line_choice(void *field, const struct command_option *option, const char *text, struct error *error)
{
    const char *first = option->value, *bar = strchr(first, '|'), *second = bar + 1;
    size_t length = (size_t)(bar - first);
    bool is_second = strcmp(text, second) == 0;
    if (!is_second && (strlen(text) != length || strncmp(text, first, length) != 0))
        return error_input(error, "--%s: '%s' is neither %.*s nor %s", option->name, text, (int)length, first, second);
    *(bool *)field = is_second;
    return true;
}

/* ---- programs of several commands ---- */

int command_line_fail(const struct error *error)
{
    fprintf(stderr, "error: %s\n", error->message);
    return (int)error->status;
}

static void list_commands(const struct command_program *program)
{
    printf("Usage: %s COMMAND ... (%s COMMAND --help says more)\n", program->name, program->name);
    for (size_t i = 0; i < program->count; i++) {
        const struct command *command = &program->commands[i];
        printf("  %-*s %-*s %s\n", program->name_width, command->name, program->operands_width, command->line.operands,
               command->line.meaning);
    }
}

static int run_command(const struct command_program *program, const struct command *command, int argc, char **argv)
{
    char name[64];
    snprintf(name, sizeof name, "%s %s", program->name, command->name);
    argv[0] = name;
    return program->run(command, argc, argv);
}

int command_line_main(const struct command_program *program, int argc, char **argv)
{
    struct error error;
    const char *name = argc >= 2 ? argv[1] : "(none given)";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-?") == 0) {
        list_commands(program);
        return 0;
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        puts(argp_program_version);
        return 0;
    }
    for (size_t i = 0; i < program->count; i++)
        if (strcmp(name, program->commands[i].name) == 0)
            return run_command(program, &program->commands[i], argc - 1, argv + 1);
    error_input(&error, "%s: there is no command '%s'; %s --help lists them", program->name, name, program->name);
    return command_line_fail(&error);
}
