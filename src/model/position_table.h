/* A table of position embeddings for another number of patches: bicubic (a = -0.5) with antialiasing, as timm's
 * resample_abs_pos_embed does, so that weights trained at one resolution start a run at another. */
#ifndef QUEST_MODEL_POSITION_TABLE_H
#define QUEST_MODEL_POSITION_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/error.h"

struct position_grid {
    size_t height, width; /* patches */
};

/* out [prefix + to.height * to.width, dim] from table [prefix + from.height * from.width, dim]. The first `prefix` rows
 * (CLS) are copied, the rest is a picture of dim channels, resampled in float64. ERROR_RUNTIME: out of memory. */
bool position_table_resample(double *out, struct position_grid to, const float *table, struct position_grid from,
                             size_t prefix, size_t dim, struct error *error);
/* The side of the square grid that a table of `rows` has, behind *prefix rows: one for CLS, or none, as DeiT III's;
 * that one more than a square number is no square tells them apart. 0: it has no such grid. */
size_t position_table_side(size_t rows, size_t *prefix);

#endif
