/* What the losses share: targets of a row of logits, and the rank of its label. */
#ifndef QUEST_KERNELS_CPU_LOSS_ROW_H
#define QUEST_KERNELS_CPU_LOSS_ROW_H

#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vector_math.h"

struct target {
    size_t label, partner;
    float label_weight, partner_weight, smooth; /* smooth: what every class gets */
};

/* As kernels.h defines targets; partner_labels NULL: none. */
ALWAYS_INLINE struct target target_of(const int32_t *labels, const int32_t *partner_labels, const float *weights,
                                      float smoothing, size_t image, size_t classes)
{
    float weight = partner_labels ? weights[image] : 1.0f;
    return (struct target){
        .label = (size_t)labels[image],
        .partner = (size_t)(partner_labels ? partner_labels[image] : labels[image]),
        .label_weight = (1.0f - smoothing) * weight,
        .partner_weight = (1.0f - smoothing) * (1.0f - weight),
        .smooth = smoothing / (float)classes,
    };
}

ALWAYS_INLINE int32_t rank_of(const void *logits, size_t label, size_t classes, enum dtype dtype)
{
    float own = load(logits, label, dtype);
    size_t rank = 0, comparable = 0;
    for (size_t c = 0; c < classes; c++) {
        float logit = load(logits, c, dtype);
        rank += logit > own || (logit == own && c < label);
        comparable += logit == logit;
    }
    return (int32_t)(comparable == classes ? rank : classes);
}

/* A label that is none of the classes: NaN, which whoever reads a loss notices. gradient: of the row, or NULL. */
static inline void no_such_class(float *loss, int32_t *label_rank, void *gradient, size_t classes, enum dtype dtype)
{
    *loss = NAN;
    *label_rank = (int32_t)classes;
    for (size_t c = 0; gradient && c < classes; c++)
        store(gradient, c, NAN, dtype);
}

#endif
