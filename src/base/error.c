/* One line of text and a status, filled in where something fails and printed once by main. */
#include "src/base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool fill(struct error *error, enum error_status status, const char *format, va_list arguments)
{
    error->status = status;
    error->shared = false;
    vsnprintf(error->message, sizeof error->message, format, arguments);
    return false;
}

bool error_input(struct error *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fill(error, ERROR_INPUT, format, arguments);
    va_end(arguments);
    return false;
}

bool error_runtime(struct error *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fill(error, ERROR_RUNTIME, format, arguments);
    va_end(arguments);
    return false;
}

bool error_shared(struct error *error)
{
    error->shared = true;
    return false;
}

bool error_append(struct error *error, const char *format, ...)
{
    size_t used = strlen(error->message);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->message + used, sizeof error->message - used, format, arguments);
    va_end(arguments);
    return false;
}

bool error_prefix(struct error *error, const char *format, ...)
{
    char tail[sizeof error->message];
    memcpy(tail, error->message, sizeof tail);
    va_list arguments;
    va_start(arguments, format);
    int used = vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    if (used >= 0 && (size_t)used < sizeof error->message)
        snprintf(error->message + used, sizeof error->message - (size_t)used, ": %.*s",
                 (int)(sizeof tail - (size_t)used - 3), tail);
    return false;
}
