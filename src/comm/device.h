/* Which backend a program runs on. */
#ifndef QUEST_COMM_DEVICE_H
#define QUEST_COMM_DEVICE_H

#include "kernels/kernels.h"
#include "src/comm/comm.h"

/* `name` is what --device says: "auto" takes a GPU where this build and this host have one, else the CPU. *device is
 * the GPU of this rank: its rank on the host. ERROR_INPUT: no such device, or fewer GPUs than ranks on this host. */
bool device_choose(const struct kernels **kernels, int *device, const char *name, const struct comm *comm,
                   struct error *error);

#endif
