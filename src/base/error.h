/* Errors as values. A function that can fail returns bool and, when it returns false, has filled in a
 * struct error with one line for the user: what is wrong, where (file, line, key, rank), what to do.
 * The program prints it once, as "error: <message>", and exits with error.status. */
#ifndef QUEST_BASE_ERROR_H
#define QUEST_BASE_ERROR_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum error_status {
    ERROR_NONE = 0,
    ERROR_RUNTIME = 1, /* the work failed: disk full, a rank lost, a number that is not finite */
    ERROR_INPUT = 2,   /* the user can mend it: bad option, configuration, file */
};

struct error {
    enum error_status status;
    bool shared; /* every rank is about to return this error; comm_agree sees to it, or error_shared says so */
    char message[1024];
};

/* Both format `message` and return false, so that a failing function can end in `return error_input(...)`. */
bool error_input(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool error_runtime(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* All ranks come to this error from the same numbers, so that none needs to tell the others; returns false. */
bool error_shared(struct error *error);

/* Adds to the end of a message that a lower layer wrote; returns false. */
bool error_append(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "<context>: " in front of a message that a lower layer wrote; returns false. */
bool error_prefix(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#ifdef __cplusplus
}
#endif
#endif
