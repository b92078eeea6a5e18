/* Chooses the CPU or the GPU of this rank from --device. */
#include "src/comm/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "" or the variable that hides GPUs, for a message that counts them. */
static void name_visible(char *text, size_t bytes)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    *text = 0;
    if (visible)
        snprintf(text, bytes, " (CUDA_VISIBLE_DEVICES='%.200s')", visible);
}

static bool too_few(const struct comm *comm, int gpus, struct error *error)
{
    char visible[256];
    name_visible(visible, sizeof visible);
    return error_input(
        error, "host %s has %d GPU%s%s for %d ranks: start at most %d rank%s on it (one rank owns one GPU)",
        comm_host(comm), gpus, gpus == 1 ? "" : "s", visible, comm_local_size(comm), gpus, gpus == 1 ? "" : "s");
}

bool device_choose(const struct kernels **kernels, int *device, const char *name, const struct comm *comm,
                   struct error *error)
{
    char reason[400];
    const struct kernels *cuda = kernels_cuda();
    int gpus = cuda ? cuda->device_count() : 0;
    *device = comm_local_rank(comm);
    *kernels = kernels_cpu();
    if (strcmp(name, "cpu") == 0)
        return true;
    if (strcmp(name, "auto") != 0 && strcmp(name, "cuda") != 0)
        return error_input(error, "--device %s: auto, cpu or cuda is expected", name);
    if (cuda && gpus == 0)
        cuda->no_device(reason, sizeof reason);
    if (strcmp(name, "auto") == 0 && gpus == 0) {
        if (cuda && comm_rank(comm) == 0)
            fprintf(stderr,
                    "note: host %s shows no usable GPU: %s; computing on the CPU (--device cpu says so at once)\n",
                    comm_host(comm), reason);
        return true;
    }
    if (!cuda)
        return error_input(error, "--device cuda: this build has no CUDA backend; build it where nvcc is installed");
    if (gpus == 0)
        return error_input(error, "--device cuda: host %s shows no usable GPU: %s; or take --device cpu",
                           comm_host(comm), reason);
    if (gpus < comm_local_size(comm))
        return too_few(comm, gpus, error);
    *kernels = cuda;
    return true;
}
