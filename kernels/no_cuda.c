/* A build without the CUDA backend says so here. */
#include "kernels/kernels.h"

#ifdef QUEST_NO_CUDA
const struct kernels *kernels_cuda(void)
{
    return NULL;
}
#endif
