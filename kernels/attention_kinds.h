/* The attention kinds as a table: what is known of a kind without running it. Both backends read from it how queries
 * and keys are transformed, the model which parameters a kind learns, the configuration its name, and the diagnosis
 * which norms reach the logits. */
#ifndef QUEST_KERNELS_ATTENTION_KINDS_H
#define QUEST_KERNELS_ATTENTION_KINDS_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What becomes of a query or key before its weight and bias: x, x / max(|x|, 1e-6), or (x - mean) / deviation. */
enum attention_norm { NORM_NONE, NORM_UNIT, NORM_LAYER };

/* One learned extra, initially start * head_dim^power. */
struct attention_learned {
    const char *name; /* of the tensor, behind "blocks.3.attn."; NULL: the kind has it not */
    double start, power;
};

/* The logits of a kind:  scale * (norm(q) * q_weight + q_bias) . (norm(k) * k_weight + k_bias), where what it does not
 * learn is 1 or 0, and scale is also 1 / sqrt(head_dim) where it is `scaled`. */
struct attention_kind_row {
    bool scaled;
    enum attention_norm query, key;
    struct attention_learned extra[ATTENTION_EXTRAS]; /* in the order of the parameters in a block */
};
extern const struct attention_kind_row attention_kinds[ATTENTION_KINDS];

/* As in the configuration's attention.kind; NULL at the end. */
extern const char *const attention_kind_names[];
const char *attention_kind_name(enum attention_kind kind);
bool attention_kind_from_name(enum attention_kind *kind, const char *name);

/* Numbers in an extra: one for each head, or for each channel of a head. */
static inline size_t attention_extra_count(enum attention_extra extra, size_t heads, size_t head_dim)
{
    return extra == EXTRA_SCALE ? heads : head_dim;
}
/* Its initial value; 0 where the kind has it not. */
double attention_extra_start(enum attention_kind kind, enum attention_extra extra, size_t head_dim);

static inline bool attention_learns(enum attention_kind kind, enum attention_extra extra)
{
    return attention_kinds[kind].extra[extra].name != NULL;
}

#ifdef __cplusplus
}
#endif
#endif
