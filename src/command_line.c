#include "src/command_line.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *argp_program_version = "QUEST-Train " QUEST_VERSION;

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-?") == 0 || strcmp(argv[i], "--usage") == 0 ||
            strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-V") == 0)
            return true;
    return false;
}

/* The option that `text` ("--name" or "--name=value") stands for, whole or as a unique beginning; NULL if none. */
static const struct argp_option *find_option(const struct argp_option *options, const char *text)
{
    const struct argp_option *match = NULL;
    size_t length = strcspn(text + 2, "=");
    for (const struct argp_option *option = options; option->name; option++)
        if (strncmp(option->name, text + 2, length) == 0) {
            if (strlen(option->name) == length)
                return option;
            if (match)
                return NULL;
            match = option;
        }
    return match;
}

/* argp knows that something is wrong, but under ARGP_SILENT not what. */
static bool name_mistake(const struct argp *argp, int argc, char **argv, struct error *error)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (argv[i][0] != '-' || argv[i][1] == '\0')
            continue;
        const struct argp_option *option = argv[i][1] == '-' ? find_option(argp->options, argv[i]) : NULL;
        if (!option)
            return error_input(error, "%s is not an option of this program; --help lists them", argv[i]);
        if (!option->arg && strchr(argv[i], '='))
            return error_input(error, "--%s takes no value", option->name);
        if (option->arg && !strchr(argv[i], '=') && ++i == argc)
            return error_input(error, "--%s needs a value: %s", option->name, option->arg);
    }
    return error_input(error, "the command line is not understood; --help explains it");
}

bool command_line_parse(const struct argp *argp, int argc, char **argv, void *input, struct error *error)
{
    if (asks_for_help(argc, argv))
        argp_parse(argp, argc, argv, 0, NULL, input);
    error->message[0] = '\0';
    error->status = ERROR_NONE;
    if (argp_parse(argp, argc, argv, ARGP_SILENT, NULL, input) == 0)
        return true;
    return error->status == ERROR_NONE ? name_mistake(argp, argc, argv, error) : false;
}

bool command_line_count(size_t *count, const char *option, const char *text, struct error *error)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || end == text || *end || value < 1)
        return error_input(error, "%s: '%s' is not a positive whole number", option, text);
    *count = (size_t)value;
    return true;
}

bool command_line_count_or_none(size_t *count, const char *option, const char *text, struct error *error)
{
    if (strcmp(text, "0") != 0)
        return command_line_count(count, option, text, error);
    *count = 0;
    return true;
}
