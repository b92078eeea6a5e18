/* Skipping an update, as llm.c's outlier detector: above which gradient norm a step is an outlier, from the norms of
 * the steps before it. The limit of step t is known before the step begins, from steps up to t - 2: a GPU runs one step
 * behind the host, so that step t - 1 may not have been read. The CPU does the same, for the same bits. */
#ifndef QUEST_DIAGNOSIS_GRADIENT_LIMIT_H
#define QUEST_DIAGNOSIS_GRADIENT_LIMIT_H

#include <stddef.h>
#include <stdint.h>

/* 128 that a limit looks back on (as llm.c), and the newest, which it leaves out. */
enum { GRADIENT_LIMIT_NORMS = 129 };

/* Zero-initialised: no step is known. */
struct gradient_limit {
    double norms[GRADIENT_LIMIT_NORMS]; /* of steps newest_step - count + 1 .. newest_step */
    size_t count;
    uint64_t newest_step;
};

/* A finished step's norm, before clipping; finite. Outliers join too: a lasting change of level is taken for the new
 * level after half a window, and no run skips for ever. A step that does not follow the newest starts a new window. */
void gradient_limit_push(struct gradient_limit *limit, uint64_t step, double norm);
/* The largest norm that is no outlier of `step`: median and MAD of log(norm), z times 1.4826 MAD above the median, with
 * a floor of 0.1 under the latter. 0 = no limit: z is 0, or fewer than 32 norms are known. */
double gradient_limit_at(const struct gradient_limit *limit, uint64_t step, double z);

#endif
