/* How much memory this process may still take. */
#ifndef QUEST_KERNELS_CPU_HOST_MEMORY_H
#define QUEST_KERNELS_CPU_HOST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/error.h"

/* The least of the kernel's MemAvailable and of what the limits of the process's control groups leave (a container's or
 * a Slurm job's limit), in bytes. */
bool host_memory_available(size_t *bytes, struct error *error);

#endif
