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

struct memory_plan {
    struct {
        const char *name;
        size_t bytes;
        bool per_image; /* grows with the batch */
    } groups[MEMORY_PLAN_GROUPS];
    size_t count;
};

void memory_plan_add(struct memory_plan *plan, const char *name, size_t bytes, bool per_image);
size_t memory_plan_total(const struct memory_plan *plan);
/* ERROR_INPUT where more than `available` bytes are planned: says how much is missing and which batch would fit, of the
 * `batch` images a rank and micro-step that the plan was made for. */
bool memory_plan_check(const struct memory_plan *plan, size_t available, size_t batch, const char *where,
                       struct error *error);
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
