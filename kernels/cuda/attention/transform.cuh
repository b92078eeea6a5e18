/* What a kind does to queries and keys element by element, as kernels take it: x-hat = normalised(x) * weight + bias;
 * prepare.cu has the table. */
#ifndef QUEST_KERNELS_CUDA_ATTENTION_TRANSFORM_CUH
#define QUEST_KERNELS_CUDA_ATTENTION_TRANSFORM_CUH

#include "kernels/attention_kinds.h"
#include "kernels/cuda/attention/attention.cuh"

constexpr float LAYERNORM_EPSILON = 1e-6f;

struct side_transform {
    enum attention_norm norm;
    const float *weight, *bias; /* NULL: 1 and 0 */
    bool weight_of_head;        /* weight is [heads], else [head_dim] */
};

struct transforms {
    side_transform side[2]; /* queries, keys */
};

/* The learned scale of a head multiplies its queries. */
static inline transforms transforms_of(enum attention_kind kind, const struct attention_parameters *parameters)
{
    const struct attention_kind_row *row = &attention_kinds[kind];
    const float *const *extra = parameters->extra;
    bool of_head = attention_learns(kind, EXTRA_SCALE);
    return {{{row->query, of_head ? extra[EXTRA_SCALE] : extra[EXTRA_Q_WEIGHT], extra[EXTRA_Q_BIAS], of_head},
             {row->key, extra[EXTRA_K_WEIGHT], extra[EXTRA_K_BIAS], false}}};
}

static __device__ __forceinline__ float weight_at(const side_transform &side, int head, int element)
{
    return side.weight ? side.weight[side.weight_of_head ? head : element] : 1;
}

#endif
