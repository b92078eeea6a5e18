/* Chooses the CPU or the GPU of this rank from --device. */
#include "src/comm/device.h"

#include <stdio.h>
#include <string.h>

bool device_choose(const struct kernels **kernels, int *device, const char *name, const struct comm *comm,
                   struct error *error)
{
    const struct kernels *cuda = kernels_cuda();
    int gpus = cuda ? cuda->device_count() : 0, local_size = comm_local_size(comm);
    *device = comm_local_rank(comm);
    *kernels = kernels_cpu();
    if (strcmp(name, "cpu") == 0)
        return true;
    if (strcmp(name, "auto") == 0 && gpus == 0) {
        if (cuda && comm_rank(comm) == 0)
            fprintf(stderr, "note: host %s shows no usable GPU; computing on the CPU (--device cpu says so at once)\n",
                    comm_host(comm));
        return true;
    }
    if (strcmp(name, "auto") != 0 && strcmp(name, "cuda") != 0)
        return error_input(error, "--device %s: auto, cpu or cuda is expected", name);
    if (!cuda)
        return error_input(error, "--device cuda: this build has no CUDA backend; build it where nvcc is installed");
    if (gpus == 0)
        return error_input(error,
                           "--device cuda: host %s shows no usable GPU (driver missing or CUDA_VISIBLE_DEVICES empty); "
                           "take --device cpu",
                           comm_host(comm));
    if (gpus < local_size)
        return error_input(error,
                           "host %s has %d GPU%s for %d ranks: start at most %d rank%s on it (one rank owns one GPU)",
                           comm_host(comm), gpus, gpus == 1 ? "" : "s", local_size, gpus, gpus == 1 ? "" : "s");
    *kernels = cuda;
    return true;
}
