/* What a backend says of its device's memory. */
#ifndef QUEST_KERNELS_DEVICE_MEMORY_H
#define QUEST_KERNELS_DEVICE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

struct context;
struct error;

/* Bytes, as the device itself says. */
struct device_memory {
    size_t total, free;
    /* What this process has taken since the context was opened, whichever of its libraries asked for it; on the CPU the
     * most that was ever resident of it. */
    size_t taken;
};
typedef bool memory_state_of(struct context *ctx, struct device_memory *memory, struct error *error);
/* Who else holds memory of the device, for a message: "process 4711 (python3) holds 70000 MiB of it"; "" where that is
 * nobody, or nothing to speak of. */
typedef void memory_holders_text(struct context *ctx, char *text, size_t text_bytes);

#endif
