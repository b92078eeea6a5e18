/* What a run says of itself: one struct a line of metrics.jsonl, norms.jsonl and events.jsonl (docs/logs.md). The
 * trainer fills them in, src/log/run_log.h writes them, read.h reads them back, and the diagnosis, TensorBoard,
 * Prometheus and quest-norms take them from either side. */
#ifndef QUEST_RECORD_RECORD_H
#define QUEST_RECORD_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A field that only some runs have: of a step one number, of a norm record one a head. */
struct log_field_of_run {
    const char *name;
    const double *values;
};

/* An evaluation of the parameters' running average, which follows that of the parameters. */
#define SPLIT_OF_AVERAGE "val_ema"

/* A logged step, or where `split` says so an evaluation. NaN: unknown. Which fields a step has, which an evaluation,
 * and their names: metric.h. */
struct metrics_record {
    uint64_t step;
    char split[16]; /* "": a step; what was evaluated: "val", or SPLIT_OF_AVERAGE */
    bool complete;  /* read back: loss and grad_norm are there, so that a NaN among them was a null */
    double epoch, loss, top1, top5, lr, grad_norm, images_per_s, step_time_s, data_wait_s, comm_wait_s;
    double mfu;                             /* model FLOP/s over the devices' peak, 0 to 1 */
    double skipped_images, skipped_updates; /* since the last logged step, or in the evaluation */
    double images, seconds;                 /* of an evaluation */
    double time;                            /* since 1970; the writer's clock */
    const struct log_field_of_run *more;    /* written last */
    size_t more_count;
};

/* One layer's record; arrays hold one number a head, NULL: unknown. */
struct norm_record {
    uint64_t step;
    size_t layer, heads;
    const double *q_norm_mean, *q_norm_std, *q_norm_min, *q_norm_max;
    const double *k_norm_mean, *k_norm_std, *k_norm_min, *k_norm_max;
    const double *logit_max, *entropy_mean, *entropy_min;
    double qkv_grad_norm;
};

enum severity { SEVERITY_HEALTHY, SEVERITY_INFO, SEVERITY_WARNING, SEVERITY_CRITICAL };
/* "healthy", "info", "warning", "critical". */
const char *severity_name(enum severity severity);
/* Info where the name is unknown. */
enum severity severity_from_name(const char *name);

enum event_kind {
    /* The rules of the diagnosis. */
    EVENT_LOGIT_EXPLOSION,
    EVENT_ENTROPY_COLLAPSE,
    EVENT_KEY_NORM_OUTLIER,
    EVENT_QUERY_KEY_RUNAWAY,
    EVENT_LOSS_SPIKE,
    EVENT_GRADIENT_SPIKE,
    EVENT_NONFINITE,
    EVENT_RANK_SKEW,
    EVENT_DEAD_HEAD,
    EVENT_RULES,
    /* What the trainer did or failed to do. */
    EVENT_UPDATE_SKIPPED = EVENT_RULES,
    EVENT_CHECKPOINT_FAILED,
    EVENT_REWIND,
    EVENT_OTHER, /* of another version */
    EVENT_KINDS
};
/* "logit_explosion", ... */
const char *event_kind_name(enum event_kind kind);
enum event_kind event_kind_from_name(const char *name);

struct event {
    uint64_t step, since; /* since: where it began, as far as is known; 0: not said */
    uint64_t predicted;   /* the step at which the critical limit will be crossed; 0: no prediction */
    enum event_kind kind;
    enum severity severity;
    long layer, head, rank; /* -1 where they do not apply */
    size_t affected;        /* heads of this layer in the same state */
    double value, threshold;
    char message[1024], advice[400]; /* one sentence or two each; advice "": none */
};

#endif
