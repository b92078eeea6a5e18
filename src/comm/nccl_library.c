/* Loads NCCL and finds its functions by name. */
#include "src/comm/nccl_library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)
#define NAME       "libnccl.so." TEXT(NCCL_MAJOR)

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

static bool missing(struct error *error)
{
    const char *reason = dlerror();
    char folders[480];
    error_runtime(error, "several ranks on GPUs need NCCL: %.300s", reason ? reason : NAME);
    searched_folders(folders, sizeof folders);
    return error_append(
        error,
        "; looked for in %s and what ldconfig lists; install NCCL (libnccl2 in NVIDIA's repository), or "
        "put the folder of its library into LD_LIBRARY_PATH; one rank needs none",
        folders);
}

/* ISO C has no conversion from an object pointer to a function's; POSIX has this one. */
static bool find(void *function, const char *name, struct error *error)
{
    /* The default search, so that a library of LD_PRELOAD goes first, as if NCCL were linked. */
    void *found = dlsym(RTLD_DEFAULT, name);
    memcpy(function, &found, sizeof found);
    return found || error_runtime(error,
                                  NAME " has no %s; it must be NCCL " TEXT(NCCL_MAJOR) "." TEXT(
                                      NCCL_MINOR) " or "
                                                  "newer, with which this was built: %.300s",
                                  name, dlerror());
}

bool nccl_library_open(struct nccl_library *library, struct error *error)
{
    if (!dlopen(NAME, RTLD_LAZY | RTLD_GLOBAL))
        return missing(error);
#define FIND(function) find(&library->function, #function, error) &&
    return NCCL_LIBRARY_FUNCTIONS(FIND) true;
#undef FIND
}
