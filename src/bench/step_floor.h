/* The least time that a training step's ops can take, from their shapes: `quest-bench step --floor`. For each op the
 * longer of its bytes at a GPU's memory rate and its products at a GPU's bf16 rate; launches, and what ops could share,
 * are left out. Modelled, not measured: it says how far a measured step is from what its ops allow, and which ops are
 * worth changing. */
#ifndef QUEST_BENCH_STEP_FLOOR_H
#define QUEST_BENCH_STEP_FLOOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "src/base/error.h"
#include "src/config/config.h"

/* Measured on an H100: a copy within its memory, bytes read and written; a large product of random numbers. */
#define FLOOR_BYTES_PER_S 3.0e12
#define FLOOR_FLOP_PER_S  700e12

enum { FLOOR_ROWS_MAX = 64 };

enum floor_group {
    FLOOR_PRODUCTS,
    FLOOR_NORMS,
    FLOOR_GELU,
    FLOOR_ATTENTION,
    FLOOR_ENDS,
    FLOOR_OPTIMISER,
    FLOOR_GROUPS
};
extern const char *const floor_group_names[FLOOR_GROUPS];

/* One op: all its calls of a step together. */
struct floor_row {
    char name[48];
    enum floor_group group;
    size_t calls;
    double bytes, flop, seconds;
};

struct step_floor {
    struct floor_row rows[FLOOR_ROWS_MAX];
    size_t count;
    double bytes, flop, seconds, group_s[FLOOR_GROUPS];
};

/* Of a step of `batch` images in bfloat16, all activations kept, without LayerScale and stochastic depth. The
 * configuration is a checked one with its classes. */
bool step_floor(struct step_floor *out, const struct config *config, size_t batch, struct error *error);

/* A table of the ops, and the total. */
void step_floor_print(const struct step_floor *floor, const char *title, size_t batch, FILE *out);
/* One object on one line. */
void step_floor_print_json(const struct step_floor *floor, const char *preset, size_t batch, FILE *out);

#endif
