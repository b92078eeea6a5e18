/* Loads cuBLAS and cuBLASLt and finds their functions by name. */
#include "kernels/cuda/cublas_library.h"

#include "src/base/shared_library.h"

#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)
#define VERSION    TEXT(CUBLAS_VER_MAJOR) "." TEXT(CUBLAS_VER_MINOR)

static bool load(const char *name, struct error *error)
{
    return shared_library_open(name, "a GPU needs cuBLAS",
                               "install cuBLAS (libcublas-" TEXT(CUBLAS_VER_MAJOR) "-" TEXT(
                                   CUBLAS_VER_MINOR) " in NVIDIA's repository), or put the folder of its libraries "
                                                     "into LD_LIBRARY_PATH; --device cpu needs none",
                               error);
}

bool cublas_library_open(struct cublas_library *library, struct error *error)
{
    if (!load("libcublasLt.so." TEXT(CUBLAS_VER_MAJOR), error) || !load("libcublas.so." TEXT(CUBLAS_VER_MAJOR), error))
        return false;
#define FIND(function) shared_library_find(&library->function, #function, "cuBLAS", VERSION, error) &&
    return CUBLAS_LIBRARY_FUNCTIONS(FIND) true;
#undef FIND
}
