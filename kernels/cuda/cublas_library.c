/* Loads cuBLAS and cuBLASLt and finds their functions by name. */
#include "kernels/cuda/cublas_library.h"

#include <dlfcn.h>
#include <string.h>

#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)

/* Global, and searched for by RTLD_DEFAULT, so that a library of LD_PRELOAD goes first, as if they were linked. */
static bool load(const char *name, struct error *error)
{
    return dlopen(name, RTLD_LAZY | RTLD_GLOBAL) || error_runtime(error, "a GPU needs cuBLAS: %s", dlerror());
}

/* ISO C has no conversion from an object pointer to a function's; POSIX has this one. */
static bool find(void *function, const char *name, struct error *error)
{
    void *found = dlsym(RTLD_DEFAULT, name);
    memcpy(function, &found, sizeof found);
    return found || error_runtime(error, "cuBLAS has no %s: %s", name, dlerror());
}

bool cublas_library_open(struct cublas_library *library, struct error *error)
{
    if (!load("libcublasLt.so." TEXT(CUBLAS_VER_MAJOR), error) || !load("libcublas.so." TEXT(CUBLAS_VER_MAJOR), error))
        return false;
#define FIND(function) find(&library->function, #function, error) &&
    return CUBLAS_LIBRARY_FUNCTIONS(FIND) true;
#undef FIND
}
