/* `quest-bench gemm --plans`: which algorithm each matrix product of a training step is computed by, and how fast. */
#ifndef QUEST_BENCH_PLANS_H
#define QUEST_BENCH_PLANS_H

#include "kernels/products.h"
#include "src/comm/comm.h"

struct bench_plans {
    const char *preset; /* vit_tiny, ..., or "all": tiny to large */
    size_t batch;
    enum dtype dtype;
    enum products_mode mode;
    const char *device;
    bool json; /* a JSON object a product, not a table */
};

/* One rank. ERROR_INPUT: a preset that there is not, a device whose products are not chosen (the CPU). */
bool bench_plans(struct comm *comm, const struct bench_plans *options, struct error *error);

#endif
