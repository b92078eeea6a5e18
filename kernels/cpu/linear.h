/* Matrix products of the CPU backend, linear.c, and the scratch that they need, linear_plan.c. */
#ifndef QUEST_KERNELS_CPU_LINEAR_H
#define QUEST_KERNELS_CPU_LINEAR_H

#include <oneapi/dnnl/dnnl.h>

#include "kernels/cpu/cpu.h"

enum product { FORWARD, FORWARD_BIAS, INPUT_GRADIENT, WEIGHT_GRADIENT, OVERWRITTEN_WEIGHT_GRADIENT, PRODUCTS };

/* Scratch of one product; 0 where the CPU cannot compute it, which open reports. */
size_t linear_product_bytes(dnnl_engine_t engine, enum product product, const struct context_options *options,
                            size_t rows, size_t in_dim, size_t out_dim);
/* Rows that a weight gradient takes at a time: equal chunks, in whole tiles, so that a row count needs no more than two
 * primitives. */
size_t linear_chunk_rows(size_t rows);

#endif
