/* Command lines through argp, with our kind of error. */
#ifndef QUEST_COMMAND_LINE_H
#define QUEST_COMMAND_LINE_H

#include <argp.h>

#include "src/error.h"

/* --help, --usage and --version print and exit at once (status 0), also under mpirun: call it before MPI starts. Any
 * mistake is ERROR_INPUT and names the argument. The parser of `argp` may fill `error` (argp's input) itself. */
bool command_line_parse(const struct argp *argp, int argc, char **argv, void *input, struct error *error);
/* A positive whole number, or ERROR_INPUT that names the option. */
bool command_line_count(size_t *count, const char *option, const char *text, struct error *error);
/* The same, or 0. */
bool command_line_count_or_none(size_t *count, const char *option, const char *text, struct error *error);

#endif
