/* What a run will need, counted before anything is allocated: each group is one allocation with named views. */
#ifndef QUEST_MODEL_MEMORY_PLAN_H
#define QUEST_MODEL_MEMORY_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "kernels/kernels.h"
#include "src/base/error.h"

#define MEMORY_PLAN_GROUPS 16

/* What comes into a process on the CPU only once its first step runs, for any model: oneDNN's generated code and
 * primitives, pages of the libraries that were not touched before. Measured with oneDNN 2.6.3: 21 to 25 MiB. */
#define MEMORY_LIBRARIES_BYTES ((size_t)24 << 20)

/* Kept free on a GPU, as part of the plan: what libraries take there after it was made, at the first use of a kernel or
 * product, and what rounding each allocation up to 2 MiB costs. NCCL's channels and buffers take 0.3 to 1.5 GiB on
 * eight GPUs of a host. */
#define MEMORY_RESERVE_BYTES      ((size_t)512 << 20)
#define MEMORY_RESERVE_NCCL_BYTES ((size_t)2 << 30)

struct memory_plan {
    struct {
        const char *name;
        size_t bytes;
    } groups[MEMORY_PLAN_GROUPS];
    size_t count;
};

/* The reserve of a run on so many ranks. */
static inline size_t memory_reserve_bytes(int ranks)
{
    return ranks > 1 ? MEMORY_RESERVE_NCCL_BYTES : MEMORY_RESERVE_BYTES;
}
void memory_plan_add(struct memory_plan *plan, const char *name, size_t bytes);
size_t memory_plan_total(const struct memory_plan *plan);

/* A plan that should fit, and how it would look with another batch. */
struct memory_wish {
    const struct memory_plan *plan;
    size_t batch;       /* images a rank and micro-step that it was made for */
    size_t batch_share; /* a step has so many times that: ranks * accumulate */
    bool (*plan_for)(void *owner, size_t batch, struct memory_plan *plan, struct error *error);
    void *owner;
};
/* ERROR_INPUT where more than `available` bytes are planned: says how much is missing and the largest batch that fits.
 */
bool memory_plan_check(const struct memory_wish *wish, size_t available, const char *where, struct error *error);
/* One line a group, MiB. */
void memory_plan_print(const struct memory_plan *plan, FILE *out);
/* Resident memory of this process now and at its highest, in bytes (Linux). */
size_t memory_resident_bytes(void);
size_t memory_peak_resident_bytes(void);

/* Cuts named views from one allocation, each on a 256-byte boundary: what cudaMalloc gives, so that no
 * algorithm depends on which view a tensor is. With base NULL it only counts. */
struct memory_cutter {
    char *base;
    size_t used;
};
void *memory_cut(struct memory_cutter *cutter, size_t bytes);

#endif
