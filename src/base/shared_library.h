/* Libraries that are loaded when they are needed, and their functions, found by name. */
#ifndef QUEST_BASE_SHARED_LIBRARY_H
#define QUEST_BASE_SHARED_LIBRARY_H

#include "src/base/error.h"

/* Loads `name`, which stays until the process ends. ERROR_RUNTIME: "<what>: <the loader's words>; looked for in
 * <folders>...; <remedy>". */
bool shared_library_open(const char *name, const char *what, const char *remedy, struct error *error);

/* *function = the function of that name, by the default search, so that a library of LD_PRELOAD goes first, as if the
 * loaded ones were linked. ERROR_RUNTIME: "<name> has no <function>; it must be <version> or newer..." */
bool shared_library_find(void *function, const char *function_name, const char *name, const char *version,
                         struct error *error);

#endif
