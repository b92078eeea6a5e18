/* Scratch memory that grows to what the largest picture met so far needed. */
#ifndef QUEST_DATA_LOADERS_IMAGE_SCRATCH_H
#define QUEST_DATA_LOADERS_IMAGE_SCRATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

/* At least `bytes` in *memory, which free() releases; contents are kept. false: no memory, and nothing changed. */
static inline bool scratch_grow(void **memory, size_t *capacity, size_t bytes)
{
    if (bytes <= *capacity)
        return true;
    void *larger = realloc(*memory, bytes);
    if (!larger)
        return false;
    *memory = larger;
    *capacity = bytes;
    return true;
}

#endif
