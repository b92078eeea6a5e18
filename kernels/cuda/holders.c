/* Who else holds a GPU's memory: the driver's management library (NVML) knows the processes. It is loaded only to word
 * a message, and where it or an answer is missing, as in a container with process ids of its own, less is said. */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/cuda/cuda.h"

#define MIB 1048576.0

enum { MOST_PROCESSES = 64, MOST_NAMED = 3 };

/* Before a run's context the driver alone takes less: above it somebody else is there. */
#define OTHERS_BYTES ((size_t)1 << 30)

/* As nvml.h declares them, which not every toolkit brings. */
struct nvml_process {
    unsigned pid;
    unsigned long long bytes; /* all ones: not known */
    unsigned gpu_instance, compute_instance;
};
struct nvml {
    void *library;
    int (*init)(void);
    int (*shutdown)(void);
    int (*device_by_bus_id)(const char *bus_id, void **device);
    int (*processes)(void *device, unsigned *count, struct nvml_process *processes);
};

/* ISO C has no conversion from an object pointer to a function's; POSIX has this one. */
static bool find(void *function, void *library, const char *name)
{
    void *found = dlsym(library, name);
    memcpy(function, &found, sizeof found);
    return found != NULL;
}

static bool load(struct nvml *nvml)
{
    nvml->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    return nvml->library && find(&nvml->init, nvml->library, "nvmlInit_v2") &&
           find(&nvml->shutdown, nvml->library, "nvmlShutdown") &&
           find(&nvml->device_by_bus_id, nvml->library, "nvmlDeviceGetHandleByPciBusId_v2") &&
           (find(&nvml->processes, nvml->library, "nvmlDeviceGetComputeRunningProcesses_v3") ||
            find(&nvml->processes, nvml->library, "nvmlDeviceGetComputeRunningProcesses_v2"));
}

/* Returns how many processes are on the GPU; 0 also where that is not to be learnt. */
static unsigned list_processes(struct nvml_process processes[MOST_PROCESSES], int device)
{
    struct nvml nvml = {0};
    char bus_id[32];
    unsigned count = 0;
    if (load(&nvml) && nvml.init() == 0) {
        void *handle;
        unsigned found = MOST_PROCESSES;
        if (cudaDeviceGetPCIBusId(bus_id, sizeof bus_id, device) == cudaSuccess &&
            nvml.device_by_bus_id(bus_id, &handle) == 0 && nvml.processes(handle, &found, processes) == 0)
            count = found;
        nvml.shutdown();
    }
    (void)cudaGetLastError();
    if (nvml.library)
        dlclose(nvml.library);
    return count;
}

/* " (python3)", or nothing where the process is not ours to look at. */
static void process_name(char *text, size_t text_bytes, unsigned pid)
{
    char path[64], name[32];
    *text = '\0';
    snprintf(path, sizeof path, "/proc/%u/comm", pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return;
    if (fgets(name, sizeof name, file)) {
        name[strcspn(name, "\n")] = '\0';
        snprintf(text, text_bytes, " (%s)", name);
    }
    fclose(file);
}

__attribute__((format(printf, 4, 5))) static void add_words(char *text, size_t text_bytes, size_t *used,
                                                            const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text + *used, text_bytes - *used, format, arguments);
    va_end(arguments);
    if (length > 0)
        *used = minimum(*used + (size_t)length, text_bytes - 1);
}

/* "process 4711 (python3) holds 70000 MiB of it" */
static void add_process(char *text, size_t text_bytes, size_t *used, const struct nvml_process *process)
{
    char name[40], amount[48] = "memory";
    process_name(name, sizeof name, process->pid);
    if (process->bytes != ~0ULL)
        snprintf(amount, sizeof amount, "%.0f MiB", (double)process->bytes / MIB);
    add_words(text, text_bytes, used, "%sprocess %u%s holds %s of it", *used ? ", " : "", process->pid, name, amount);
}

/* Processes by name, or how much was in use when the context was opened; "" where that was little. */
static size_t name_holders(const struct context *ctx, char *text, size_t text_bytes)
{
    struct nvml_process processes[MOST_PROCESSES];
    unsigned count = list_processes(processes, ctx->device), others = 0;
    size_t used = 0, available, total;
    for (unsigned i = 0; i < count; i++)
        if (processes[i].pid != (unsigned)getpid() && others++ < MOST_NAMED)
            add_process(text, text_bytes, &used, &processes[i]);
    if (others > MOST_NAMED)
        add_words(text, text_bytes, &used, ", and %u more do", others - MOST_NAMED);
    if (others > 0)
        return used;
    if (cudaMemGetInfo(&available, &total) != cudaSuccess)
        (void)cudaGetLastError();
    else if (total - minimum(total, ctx->free_at_open) > OTHERS_BYTES)
        add_words(text, text_bytes, &used, "other processes held %.0f of its %.0f MiB when this run began",
                  (double)(total - ctx->free_at_open) / MIB, (double)total / MIB);
    return used;
}

void cuda_memory_holders(struct context *ctx, char *text, size_t text_bytes)
{
    *text = '\0';
    size_t used = name_holders(ctx, text, text_bytes);
    if (used)
        add_words(text, text_bytes, &used, " (CUDA_VISIBLE_DEVICES chooses another GPU)");
}
