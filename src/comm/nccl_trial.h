/* NCCL tried out: every call that a run makes, also those that it makes only when something is wrong. With one rank it
 * can run on a machine with one GPU, where training needs no NCCL. */
#ifndef QUEST_COMM_NCCL_TRIAL_H
#define QUEST_COMM_NCCL_TRIAL_H

#include "src/comm/gradient.h"

enum { NCCL_TRIAL_RESULTS = 5 };

struct nccl_trial_result {
    const char *name;
    bool ok;
    double seconds;
    char detail[1024]; /* what was seen, or what went wrong */
};

/* Opens NCCL, sums options->gradient over the ranks, ends in good order; opens it again, queues a sum that does not end
 * in time, and looks whether it is noticed and whether ncclCommAbort lets the streams go on. One rank; some 3 s. Fills
 * results in this order; what was not reached says so. Where there is no network interface but the loopback, tells NCCL
 * to use that. */
void nccl_trial(struct nccl_trial_result results[NCCL_TRIAL_RESULTS], struct comm *comm,
                const struct comm_gradient_options *options);

#endif
