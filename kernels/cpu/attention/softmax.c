/* Softmax over the keys of a panel of queries, and its backward: the passes between the matrix products. Lanes are
 * queries, so that maxima and sums are vectors that stay in registers while the keys go by. */
#include <math.h>

#include "kernels/cpu/attention/attention.h"

/* scores hold raw products; a query's logit is that times its lane's scale and the key's factor. It is computed twice,
 * for the maximum and for the exponential: a product costs less than a store and a load. */
ALWAYS_INLINE vector logit_of(const float *scores, const float *key_factors, size_t key, int j, vector scale)
{
    return vector_load(scores + key * PANEL + j * VECTOR_FLOATS) * key_factors[key] * scale;
}

/* One key's exponentials; adds to the sums. */
ALWAYS_INLINE vector exponential_of(const float *scores, const float *key_factors, size_t key, int j, vector scale,
                                    vector maximum, vector *sum, vector *weighted, bool statistics)
{
    vector below = logit_of(scores, key_factors, key, j, scale) - maximum, exponential = vector_exponential(below);
    *sum += exponential;
    if (statistics)
        *weighted = vector_multiply_add(exponential, below, *weighted);
    return exponential;
}

/* All vectors of a panel side by side would need more registers than there are: one vector of lanes at a time. */
ALWAYS_INLINE void softmax_vector(float *weights, const float *scores, struct panel_sums *sums,
                                  const float *key_factors, const float *lane_scale, size_t keys, int j,
                                  bool statistics, enum dtype dtype)
{
    vector scale = vector_load(lane_scale + j * VECTOR_FLOATS), sum = {0}, weighted = {0};
    vector maximum = vector_broadcast(-INFINITY);
    for (size_t key = 0; key < keys; key++)
        maximum = vector_maximum(logit_of(scores, key_factors, key, j, scale), maximum);
    for (size_t key = 0; key < keys; key += dtype == DTYPE_FLOAT32 ? 1 : 2) {
        vector first = exponential_of(scores, key_factors, key, j, scale, maximum, &sum, &weighted, statistics);
        if (dtype == DTYPE_FLOAT32) {
            vector_store(weights + key * PANEL + j * VECTOR_FLOATS, first);
        } else {
            vector second = {0};
            if (key + 1 < keys)
                second = exponential_of(scores, key_factors, key + 1, j, scale, maximum, &sum, &weighted, statistics);
            vector_store(weights + key / 2 * PANEL + j * VECTOR_FLOATS, vector_round_pairs(first, second));
        }
    }
    vector_store(sums->maximum + j * VECTOR_FLOATS, maximum);
    vector_store(sums->sum + j * VECTOR_FLOATS, sum);
    vector_store(sums->weighted + j * VECTOR_FLOATS, weighted);
}

void attention_softmax(float *weights, const float *scores, struct panel_sums *sums, const float *key_factors,
                       const float *lane_scale, size_t keys, size_t lanes, bool statistics, enum dtype dtype)
{
    for (int j = 0; j * VECTOR_FLOATS < (int)lanes; j++) {
        if (dtype == DTYPE_FLOAT32 && statistics)
            softmax_vector(weights, scores, sums, key_factors, lane_scale, keys, j, true, DTYPE_FLOAT32);
        else if (dtype == DTYPE_FLOAT32)
            softmax_vector(weights, scores, sums, key_factors, lane_scale, keys, j, false, DTYPE_FLOAT32);
        else if (statistics)
            softmax_vector(weights, scores, sums, key_factors, lane_scale, keys, j, true, DTYPE_BFLOAT16);
        else
            softmax_vector(weights, scores, sums, key_factors, lane_scale, keys, j, false, DTYPE_BFLOAT16);
    }
}

/* One key's P, and H = P * (dP - delta) * key factor * query factor. */
ALWAYS_INLINE void backward_key(vector *probability, vector *gradient, const float *scores, const float *gradients,
                                const struct panel_lanes *of, const float *key_factors, size_t key, int j)
{
    vector logit = logit_of(scores, key_factors, key, j, vector_load(of->scale + j * VECTOR_FLOATS));
    *probability = vector_exponential(logit - vector_load(of->logsumexp + j * VECTOR_FLOATS));
    vector difference =
        vector_load(gradients + key * PANEL + j * VECTOR_FLOATS) - vector_load(of->delta + j * VECTOR_FLOATS);
    *gradient = *probability * difference * (key_factors[key] * vector_load(of->factor + j * VECTOR_FLOATS));
}

static void softmax_backward_float32(const struct panel_weights *out, const float *scores, const float *gradients,
                                     const struct panel_lanes *of, const float *key_factors, size_t keys, int vectors)
{
    for (size_t key = 0; key < keys; key++)
        for (int j = 0; j < vectors; j++) {
            vector probability, gradient;
            backward_key(&probability, &gradient, scores, gradients, of, key_factors, key, j);
            vector_store(out->probabilities + key * PANEL + j * VECTOR_FLOATS, probability);
            vector_store(out->gradients + key * PANEL + j * VECTOR_FLOATS, gradient);
        }
}

/* Pairs of keys at a time, for key_pairs; the lanes' pairs are the rounded rows as they are. */
static void softmax_backward_bfloat16(const struct panel_weights *out, const float *scores, const float *gradients,
                                      const struct panel_lanes *of, const float *key_factors, size_t keys, int vectors)
{
    for (size_t key = 0; key < keys; key += 2)
        for (int j = 0; j < vectors; j++) {
            vector probability, first, second = {0};
            size_t i = key * PANEL + (size_t)j * VECTOR_FLOATS;
            backward_key(&probability, &first, scores, gradients, of, key_factors, key, j);
            vector_store_as(out->probabilities, i, probability, DTYPE_BFLOAT16);
            vector_store_as(out->gradients, i, first, DTYPE_BFLOAT16);
            if (key + 1 < keys) {
                backward_key(&probability, &second, scores, gradients, of, key_factors, key + 1, j);
                vector_store_as(out->probabilities, i + PANEL, probability, DTYPE_BFLOAT16);
                vector_store_as(out->gradients, i + PANEL, second, DTYPE_BFLOAT16);
            }
            vector_store(out->key_pairs + key / 2 * PANEL + j * VECTOR_FLOATS, vector_round_pairs(first, second));
        }
}

void attention_softmax_backward(const struct panel_weights *out, const float *scores, const float *gradients,
                                const struct panel_lanes *of, const float *key_factors, size_t keys, size_t lanes,
                                enum dtype dtype)
{
    int vectors = (int)(lanes / VECTOR_FLOATS);
    if (dtype == DTYPE_FLOAT32)
        softmax_backward_float32(out, scores, gradients, of, key_factors, keys, vectors);
    else
        softmax_backward_bfloat16(out, scores, gradients, of, key_factors, keys, vectors);
}
