/* Command lines from tables, through argp, with our kind of error. A program lists its options, one row each, and the
 * field of its arguments that each fills; --help, the parsing and the messages come from the rows. */
#ifndef QUEST_BASE_COMMAND_LINE_H
#define QUEST_BASE_COMMAND_LINE_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/error.h"

struct command_option;
/* Takes an option's value (NULL for a flag) into its field. ERROR_INPUT that names the option. */
typedef bool command_option_take(void *field, const struct command_option *option, const char *text,
                                 struct error *error);

struct command_option {
    const char *name, *value, *meaning; /* as --help shows them; value NULL: a flag; meaning NULL: hidden */
    command_option_take *take;
    char letter;  /* of its short form; 0 = none */
    size_t most;  /* of command_line_number */
    size_t field; /* offset in the program's arguments */
};

struct command_line {
    const struct command_option *options; /* the last one is {0}; NULL: none */
    const char *operands;                 /* what stands behind the options, as --help shows it; NULL: nothing may */
    const char *meaning;                  /* what --help says above the options, and behind \v below them */
    bool (*take_operand)(void *arguments, const char *text, struct error *error);
    bool (*finish)(void *arguments, struct error *error); /* the rest has been taken: is anything missing? or NULL */
};

/* Fills `arguments`, which holds the defaults. --help, --usage and --version print and exit at once (status 0), also
 * under mpirun: call it before MPI starts. Any mistake is ERROR_INPUT and names the argument. */
bool command_line_parse(const struct command_line *line, int argc, char **argv, void *arguments, struct error *error);

/* ---- ways to take a value ---- */

bool command_line_text(void *field, const struct command_option *option, const char *text, struct error *error);
bool command_line_flag(void *field, const struct command_option *option, const char *text, struct error *error);
/* Into a size_t: a positive whole number; the same or 0; 0 to option->most, without a sign. */
bool command_line_count(void *field, const struct command_option *option, const char *text, struct error *error);
bool command_line_count_or_none(void *field, const struct command_option *option, const char *text,
                                struct error *error);
bool command_line_number(void *field, const struct command_option *option, const char *text, struct error *error);
/* Into a bool: which of the two words of option->value ("raw|jpeg") it is, false the first, true the second. */
bool command_line_choice(void *field, const struct command_option *option, const char *text, struct error *error);

/* ---- programs of several commands ---- */

struct command {
    const char *name;
    struct command_line line;
    int (*run)(const void *arguments); /* returns the exit status */
    size_t most_operands;              /* where `operands` are collected */
};

struct command_program {
    const char *name;
    const struct command *commands;
    size_t count;
    int name_width, operands_width; /* columns of the list of commands */
    /* Parses and runs; argv[0] is "PROGRAM COMMAND", so that messages and --help name the command. */
    int (*run)(const struct command *command, int argc, char **argv);
};

/* All of main(): --help, --version, or the command that argv[1] names. Returns the exit status. */
int command_line_main(const struct command_program *program, int argc, char **argv);
/* "error: ..." on stderr; returns the exit status. */
int command_line_fail(const struct error *error);

#endif
