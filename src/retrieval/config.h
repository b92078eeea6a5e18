/* The configuration of the retrieval experiment (configs/experiments/retrieval): one run, and the grid of runs around
 * it. Read by the same code as quest-train's, with the same rules and messages. */
#ifndef QUEST_RETRIEVAL_CONFIG_H
#define QUEST_RETRIEVAL_CONFIG_H

#include "src/base/error.h"
#include "src/retrieval/retrieval.h"

struct retrieval_config {
    char specification[16]; /* "A": names the runs */
    struct {
        enum retrieval_kind kind;
    } attention;
    struct {
        bool biases, tied_start;
    } model;
    struct retrieval_task data;
    struct {
        int64_t steps, batch_size, seed;
    } train;
    struct {
        double lr, weight_decay, beta1, beta2, eps;
    } optim;
    struct {
        int64_t every;
    } log;
    struct {
        int64_t samples; /* of each sort */
    } test;
    struct {
        char kinds[128], lr[256], weight_decay[256]; /* lists with commas */
        int64_t seeds;                               /* 0 .. seeds - 1 */
    } grid;
};

/* One configuration for each run of a grid. */
struct retrieval_grid {
    struct retrieval_config *runs;
    size_t count;
};

/* What the command line says about the grids of all files; NULL, 0: what the files say. */
struct retrieval_choice {
    const char *specification, *kinds;
    size_t seeds;
    const char *const *overrides; /* "key.path=value" */
    size_t override_count;
};

/* The runs of the file, at the end of the grid: all, or those that are chosen. ERROR_INPUT with file, line and key. */
bool retrieval_grid_read(struct retrieval_grid *grid, const char *path, const struct retrieval_choice *choice,
                         struct error *error);
void retrieval_grid_close(struct retrieval_grid *grid);

/* The whole configuration as YAML. Caller frees; NULL where memory is short. */
char *retrieval_config_format(const struct retrieval_config *config);
const char *retrieval_kind_name(enum retrieval_kind kind);

#endif
