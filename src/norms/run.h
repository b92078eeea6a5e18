/* A run directory as quest-norms reads it: finished, running, damaged or of another version. */
#ifndef QUEST_NORMS_RUN_H
#define QUEST_NORMS_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "src/base/error.h"
#include "src/config/yaml_flat.h"
#include "src/log/reader.h"

struct norms_run {
    char *directory;
    char name[128];          /* the directory's last part */
    struct yaml_flat config; /* config.yaml; empty where it cannot be read */
    bool has_config;
    enum attention_kind kind; /* standard where unknown */
    size_t tokens;            /* 0 = unknown */
    struct log_reader metrics, norms, events;
};

/* ERROR_INPUT where the directory holds no log at all. */
bool norms_run_open(struct norms_run *run, const char *directory, struct error *error);
void norms_run_close(struct norms_run *run);
/* A value of config.yaml, or NULL. */
const char *norms_run_setting(const struct norms_run *run, const char *path);
/* One line on stderr for each thing that could not be read: damaged lines and segments, an unreadable config.yaml. */
void norms_run_warn(const struct norms_run *run);

#endif
