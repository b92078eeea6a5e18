/* The commands of quest-norms: each prints to stdout or writes its file and returns the exit status. */
#ifndef QUEST_NORMS_H
#define QUEST_NORMS_H

#include <stdbool.h>
#include <stddef.h>

#include "src/error.h"

enum { NORMS_RUNS_MAX = 8 };

struct norms_arguments {
    const char *runs[NORMS_RUNS_MAX];
    size_t run_count;
    const char *out, *csv, *prometheus, *tensorboard, *statistic;
    const char *layer, *head; /* as given; NULL: all */
    bool json, logarithmic, plain;
    double interval_s;
    struct error *error; /* what is wrong with the command line */
};

int norms_diagnose(const struct norms_arguments *arguments);
int norms_report(const struct norms_arguments *arguments);
int norms_watch(const struct norms_arguments *arguments);
int norms_plot(const struct norms_arguments *arguments);
int norms_export(const struct norms_arguments *arguments);

/* "error: ..." on stderr; returns the exit status. */
int norms_fail(const struct error *error);

#endif
