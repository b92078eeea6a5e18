/* The table of attention kinds; formulas and sources are in docs/mathematics.md. */
#include "kernels/attention_kinds.h"

#include <math.h>
#include <string.h>

const char *const attention_kind_names[] = {
    [ATTENTION_STANDARD] = "standard", [ATTENTION_QUEST] = "quest",         [ATTENTION_QNORM] = "qnorm",
    [ATTENTION_QKNORM] = "qknorm",     [ATTENTION_QKNORM_HS] = "qknorm_hs", [ATTENTION_QKNORM_DS] = "qknorm_ds",
    [ATTENTION_KINDS] = NULL};

const struct attention_kind_row attention_kinds[ATTENTION_KINDS] = {
    [ATTENTION_STANDARD] = {.scaled = true},
    [ATTENTION_QUEST] = {.key = NORM_UNIT},
    [ATTENTION_QNORM] = {.query = NORM_UNIT},
    [ATTENTION_QKNORM] = {.scaled = true,
                          .query = NORM_LAYER,
                          .key = NORM_LAYER,
                          .extra = {[EXTRA_Q_WEIGHT] = {"q_norm.weight", .start = 1},
                                    [EXTRA_Q_BIAS] = {"q_norm.bias", .start = 0},
                                    [EXTRA_K_WEIGHT] = {"k_norm.weight", .start = 1},
                                    [EXTRA_K_BIAS] = {"k_norm.bias", .start = 0}}},
    [ATTENTION_QKNORM_HS] = {.query = NORM_UNIT,
                             .key = NORM_UNIT,
                             .extra = {[EXTRA_SCALE] = {"scale", .start = 1, .power = 0.5}}},
    [ATTENTION_QKNORM_DS] = {.query = NORM_UNIT,
                             .key = NORM_UNIT,
                             .extra = {[EXTRA_Q_WEIGHT] = {"q_scale", .start = 1, .power = 0.25},
                                       [EXTRA_K_WEIGHT] = {"k_scale", .start = 1, .power = 0.25}}},
};

const char *attention_kind_name(enum attention_kind kind)
{
    return kind < ATTENTION_KINDS ? attention_kind_names[kind] : "unknown";
}

bool attention_kind_from_name(enum attention_kind *kind, const char *name)
{
    for (unsigned i = 0; attention_kind_names[i]; i++)
        if (strcmp(name, attention_kind_names[i]) == 0) {
            *kind = (enum attention_kind)i;
            return true;
        }
    return false;
}

double attention_extra_start(enum attention_kind kind, enum attention_extra extra, size_t head_dim)
{
    const struct attention_learned *learned = &attention_kinds[kind].extra[extra];
    return learned->start * pow((double)head_dim, learned->power);
}
