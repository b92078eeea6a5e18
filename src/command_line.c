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

bool command_line_parse(const struct argp *argp, int argc, char **argv, void *input, struct error *error)
{
    int at = 0;
    if (asks_for_help(argc, argv))
        argp_parse(argp, argc, argv, 0, NULL, input);
    error->message[0] = '\0';
    error->status = ERROR_NONE;
    if (argp_parse(argp, argc, argv, ARGP_SILENT, &at, input) == 0)
        return true;
    if (error->status != ERROR_NONE)
        return false;
    if (at > 0 && at <= argc)
        return error_input(error, "'%s' is not an option of this program, or lacks its value; %s --help lists them",
                           argv[at < argc ? at : argc - 1], argv[0]);
    return error_input(error, "the command line is not complete; %s --help explains it", argv[0]);
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
