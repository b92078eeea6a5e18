/* A run directory as quest-norms reads it: finished, running, damaged or of another version. */
#ifndef QUEST_NORMS_RUN_H
#define QUEST_NORMS_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "src/error.h"
#include "src/log_reader.h"
#include "src/run_log.h"
#include "src/yaml_flat.h"

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

/* ---- lines ---- */

struct norms_metrics {
    uint64_t step;
    bool evaluation; /* only step, loss, top1, top5 hold */
    bool complete;   /* loss and grad_norm are there, so that a NaN among them was a null */
    double epoch, loss, lr, grad_norm, top1, top5, images_per_s, step_time_s, data_wait_s, comm_wait_s, time;
    double mfu, skipped_images;
};
/* false: no step in it. Missing numbers are NaN. */
bool norms_metrics_read(struct norms_metrics *metrics, const struct log_line *line);
/* The lists of one layer's record point into `line`; those that are missing or of another length are NULL. false: no
 * step, layer or list in it. */
bool norms_record_read(struct norm_record *record, const struct log_line *line);

struct norms_event {
    uint64_t step, since;
    char kind[32], severity[16];
    long layer, head;
    double value, threshold;
    char message[1024];
};
bool norms_event_read(struct norms_event *event, const struct log_line *line);

#endif
