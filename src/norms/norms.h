/* The commands of quest-norms: each prints to stdout or writes its file and returns the exit status. */
#ifndef QUEST_NORMS_NORMS_H
#define QUEST_NORMS_NORMS_H

#include <stdbool.h>
#include <stddef.h>

enum { NORMS_RUNS_MAX = 8 };

struct norms_arguments {
    const char *runs[NORMS_RUNS_MAX];
    size_t run_count;
    const char *out, *csv, *prometheus, *tensorboard, *statistic;
    const char *layer, *head; /* as given; NULL: all */
    bool json, logarithmic, plain;
    double interval_s;
};

/* Each takes a struct norms_arguments. */
int norms_diagnose(const void *from);
int norms_report(const void *from);
int norms_watch(const void *from);
int norms_plot(const void *from);
int norms_export(const void *from);

#endif
