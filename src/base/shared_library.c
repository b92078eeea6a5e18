/* dlopen and dlsym, and the words for what is missing. */
#include "src/base/shared_library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The loader's own list: LD_LIBRARY_PATH, the folders that the program names, the system's. "" where it cannot be had.
 */
static void searched_folders(char *out, size_t bytes)
{
    Dl_serinfo size, *list = NULL;
    void *program = dlopen(NULL, RTLD_LAZY);
    *out = 0;
    if (program && dlinfo(program, RTLD_DI_SERINFOSIZE, &size) == 0 && (list = malloc(size.dls_size))) {
        *list = size; /* the loader wants both sizes here again */
        if (dlinfo(program, RTLD_DI_SERINFO, list) != 0)
            list->dls_cnt = 0;
        size_t used = 0;
        for (unsigned i = 0; i < list->dls_cnt && used < bytes; i++)
            used += (size_t)snprintf(out + used, bytes - used, "%s%s", i ? ":" : "", list->dls_serpath[i].dls_name);
    }
    free(list);
    if (program)
        dlclose(program);
}

bool shared_library_open(const char *name, const char *what, const char *remedy, struct error *error)
{
    if (dlopen(name, RTLD_LAZY | RTLD_GLOBAL))
        return true;
    const char *reason = dlerror();
    char folders[480];
    error_runtime(error, "%s: %.300s", what, reason ? reason : name);
    searched_folders(folders, sizeof folders);
    return error_append(error, "; looked for in %s and what ldconfig lists; %s", folders, remedy);
}

bool shared_library_find(void *function, const char *function_name, const char *name, const char *version,
                         struct error *error)
{
    /* ISO C has no conversion from an object pointer to a function's; POSIX has this one. */
    void *found = dlsym(RTLD_DEFAULT, function_name);
    memcpy(function, &found, sizeof found);
    return found || error_runtime(error, "%s has no %s; it must be %s or newer, with which this was built: %.300s",
                                  name, function_name, version, dlerror());
}
