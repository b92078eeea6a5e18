/* One training run: wires data, model, communication, optimiser, logs and checkpoints together. */
#ifndef QUEST_TRAIN_TRAINER_H
#define QUEST_TRAIN_TRAINER_H

#include "src/comm/comm.h"
#include "src/config/config.h"

struct trainer_options {
    struct config config;
    const char *run_directory;
    const char *init; /* file with /params to start from, or NULL */
    const char *device;
    bool resume;
    uint64_t max_steps; /* stop when this step is done, counted from the start of the run; 0 = at the end */
};

struct trainer;

/* Collective; errors are shared. What was opened is closed by trainer_close also after an error. */
bool trainer_open(struct trainer **trainer, struct comm *comm, const struct trainer_options *options,
                  struct error *error);
/* Runs to the end, --max-steps, or a stop signal. */
bool trainer_run(struct trainer *trainer, struct error *error);
void trainer_close(struct trainer *trainer);

#endif
