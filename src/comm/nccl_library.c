/* Loads NCCL and finds its functions by name. */
#include "src/comm/nccl_library.h"

#include "src/base/shared_library.h"

#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)
#define NAME       "libnccl.so." TEXT(NCCL_MAJOR)
#define VERSION    "NCCL " TEXT(NCCL_MAJOR) "." TEXT(NCCL_MINOR)

bool nccl_library_open(struct nccl_library *library, struct error *error)
{
    if (!shared_library_open(NAME, "several ranks on GPUs need NCCL",
                             "install NCCL (libnccl2 in NVIDIA's repository), or put the folder of its library into "
                             "LD_LIBRARY_PATH; one rank needs none",
                             error))
        return false;
#define FIND(function) shared_library_find(&library->function, #function, NAME, VERSION, error) &&
    return NCCL_LIBRARY_FUNCTIONS(FIND) true;
#undef FIND
}
