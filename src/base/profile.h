/* Names phases of a step for Nsight Systems (NVTX ranges); nothing without a profiler, and nothing in a build without
 * CUDA. `nsys profile mpirun ... quest-train ...` shows forward, backward, reduction and update beside the kernels. */
#ifndef QUEST_BASE_PROFILE_H
#define QUEST_BASE_PROFILE_H

#include <stdbool.h>

#ifndef QUEST_NO_CUDA
#include <nvtx3/nvToolsExt.h>

static inline void profile_begin(const char *phase)
{
    nvtxRangePushA(phase);
}

static inline bool profile_end(bool ok)
{
    nvtxRangePop();
    return ok;
}
#else
static inline void profile_begin(const char *phase)
{
    (void)phase;
}

static inline bool profile_end(bool ok)
{
    return ok;
}
#endif

/* `call`, a function that returns bool, as a range named `phase`; its value. */
#define PROFILED(phase, call) (profile_begin(phase), profile_end(call))

#endif
