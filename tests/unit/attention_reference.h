/* Attention of every kind in float64, as plain loops that can be checked by eye against docs/mathematics.md: what the
 * tests of attention compare with. How queries and keys are normalised is said here a second time; what a kind learns
 * is the table's word, which unit/test_parameters checks. */
#ifndef QUEST_TESTS_ATTENTION_REFERENCE_H
#define QUEST_TESTS_ATTENTION_REFERENCE_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/attention_kinds.h"

enum { REFERENCE_HEAD_DIM = 256, REFERENCE_HEADS = 16 };

/* Learned extras, or their gradients; what the kind has not is not read. For qknorm_ds the weights are the scales. */
struct reference_extras {
    double q_weight[REFERENCE_HEAD_DIM], q_bias[REFERENCE_HEAD_DIM];
    double k_weight[REFERENCE_HEAD_DIM], k_bias[REFERENCE_HEAD_DIM];
    double scale[REFERENCE_HEADS];
    double scale_terms[REFERENCE_HEADS]; /* gradients only: the size of the terms of scale's, which nearly cancel */
};

/* One (image, head). Parts 0, 1, 2 are queries, keys, values; all [tokens][head_dim] unless said otherwise. */
struct reference_head {
    double *x[3], *gradient[3];
    double *y[2], *y_gradient[2]; /* queries and keys as they enter the product */
    double *out, *out_gradient;
    double *logits, *probabilities; /* [tokens][tokens] */
    double *logsumexp, *entropy;    /* [tokens] */
    double *memory;
};

static inline void reference_new(struct reference_head *head, size_t tokens, size_t d)
{
    double **rows[] = {&head->x[0],          &head->x[1],          &head->x[2], &head->gradient[0],
                       &head->gradient[1],   &head->gradient[2],   &head->y[0], &head->y[1],
                       &head->y_gradient[0], &head->y_gradient[1], &head->out,  &head->out_gradient};
    size_t count = sizeof rows / sizeof *rows;
    head->memory = calloc(count * tokens * d + 2 * tokens * tokens + 2 * tokens, sizeof(double));
    if (!head->memory)
        abort();
    for (size_t i = 0; i < count; i++)
        *rows[i] = head->memory + i * tokens * d;
    head->logits = head->memory + count * tokens * d;
    head->probabilities = head->logits + tokens * tokens;
    head->logsumexp = head->probabilities + tokens * tokens;
    head->entropy = head->logsumexp + tokens;
}

static inline bool reference_layer(enum attention_kind kind, int part)
{
    (void)part; /* queries and keys alike so far */
    return kind == ATTENTION_QKNORM;
}

static inline bool reference_unit(enum attention_kind kind, int part)
{
    return kind == ATTENTION_QKNORM_HS || kind == ATTENTION_QKNORM_DS ||
           kind == (part == 0 ? ATTENTION_QNORM : ATTENTION_QUEST);
}

static inline const double *reference_weight(enum attention_kind kind, const struct reference_extras *extras, int part)
{
    if (!attention_learns(kind, part == 0 ? EXTRA_Q_WEIGHT : EXTRA_K_WEIGHT))
        return NULL;
    return part == 0 ? extras->q_weight : extras->k_weight;
}

static inline const double *reference_bias(enum attention_kind kind, const struct reference_extras *extras, int part)
{
    if (!attention_learns(kind, part == 0 ? EXTRA_Q_BIAS : EXTRA_K_BIAS))
        return NULL;
    return part == 0 ? extras->q_bias : extras->k_bias;
}

static inline double reference_scale(const struct attention_shape *shape, const struct reference_extras *extras,
                                     size_t index)
{
    bool scaled = shape->kind == ATTENTION_STANDARD || shape->kind == ATTENTION_QKNORM;
    double learned = attention_learns(shape->kind, EXTRA_SCALE) ? extras->scale[index] : 1;
    return scaled ? learned / sqrt((double)shape->head_dim) : learned;
}

/* What x is divided by, after the mean (LayerNorm only, else 0) was taken off. */
static inline double reference_divisor(double *mean, const double *x, enum attention_kind kind, int part, size_t d)
{
    double squares = 0;
    *mean = 0;
    for (size_t i = 0; i < d && reference_layer(kind, part); i++)
        *mean += x[i] / (double)d;
    for (size_t i = 0; i < d; i++)
        squares += (x[i] - *mean) * (x[i] - *mean);
    if (reference_layer(kind, part))
        return sqrt(squares / (double)d + 1e-6);
    return reference_unit(kind, part) ? fmax(sqrt(squares), 1e-6) : 1;
}

static inline void reference_row(double *y, const double *x, const struct reference_extras *extras,
                                 enum attention_kind kind, int part, size_t d)
{
    const double *weight = reference_weight(kind, extras, part), *bias = reference_bias(kind, extras, part);
    double mean, divisor = reference_divisor(&mean, x, kind, part, d);
    for (size_t i = 0; i < d; i++)
        y[i] = (x[i] - mean) / divisor * (weight ? weight[i] : 1) + (bias ? bias[i] : 0);
}

static inline void reference_row_backward(double *dx, struct reference_extras *gradients, const double *dy,
                                          const double *x, const struct reference_extras *extras,
                                          enum attention_kind kind, int part, size_t d)
{
    const double *weight = reference_weight(kind, extras, part);
    double mean, divisor = reference_divisor(&mean, x, kind, part, d), sum = 0, along = 0;
    double g[REFERENCE_HEAD_DIM], z[REFERENCE_HEAD_DIM];
    for (size_t i = 0; i < d; i++) {
        z[i] = (x[i] - mean) / divisor;
        g[i] = dy[i] * (weight ? weight[i] : 1);
        sum += g[i];
        along += g[i] * z[i];
        (part == 0 ? gradients->q_weight : gradients->k_weight)[i] += dy[i] * z[i];
        (part == 0 ? gradients->q_bias : gradients->k_bias)[i] += dy[i];
    }
    bool clamped = divisor <= 1e-6;
    for (size_t i = 0; i < d; i++)
        if (reference_layer(kind, part))
            dx[i] = (g[i] - sum / (double)d - z[i] * along / (double)d) / divisor;
        else if (reference_unit(kind, part) && !clamped)
            dx[i] = (g[i] - z[i] * along) / divisor;
        else
            dx[i] = g[i] / divisor;
}

static inline void reference_forward(struct reference_head *head, const struct reference_extras *extras,
                                     const struct attention_shape *shape, size_t index)
{
    size_t n = shape->tokens, d = shape->head_dim;
    double scale = reference_scale(shape, extras, index);
    for (int part = 0; part < 2; part++)
        for (size_t t = 0; t < n; t++)
            reference_row(head->y[part] + t * d, head->x[part] + t * d, extras, shape->kind, part, d);
    for (size_t i = 0; i < n; i++) {
        double *logits = head->logits + i * n, *p = head->probabilities + i * n, most = -INFINITY, sum = 0;
        for (size_t j = 0; j < n; j++) {
            logits[j] = 0;
            for (size_t k = 0; k < d; k++)
                logits[j] += scale * head->y[0][i * d + k] * head->y[1][j * d + k];
            most = fmax(most, logits[j]);
        }
        for (size_t j = 0; j < n; j++)
            sum += exp(logits[j] - most);
        head->logsumexp[i] = most + log(sum);
        head->entropy[i] = 0;
        memset(head->out + i * d, 0, d * sizeof(double));
        for (size_t j = 0; j < n; j++) {
            p[j] = exp(logits[j] - head->logsumexp[i]);
            head->entropy[i] -= p[j] * (logits[j] - head->logsumexp[i]);
            for (size_t k = 0; k < d; k++)
                head->out[i * d + k] += p[j] * head->x[2][j * d + k];
        }
    }
}

/* After reference_forward, with out_gradient set; adds to the gradients of the extras. */
static inline void reference_backward(struct reference_head *head, struct reference_extras *gradients,
                                      const struct reference_extras *extras, const struct attention_shape *shape,
                                      size_t index)
{
    size_t n = shape->tokens, d = shape->head_dim;
    double scale = reference_scale(shape, extras, index);
    memset(head->gradient[2], 0, n * d * sizeof(double));
    memset(head->y_gradient[0], 0, n * d * sizeof(double));
    memset(head->y_gradient[1], 0, n * d * sizeof(double));
    for (size_t i = 0; i < n; i++) {
        const double *p = head->probabilities + i * n, *dout = head->out_gradient + i * d;
        double delta = 0;
        for (size_t k = 0; k < d; k++)
            delta += dout[k] * head->out[i * d + k];
        for (size_t j = 0; j < n; j++) {
            double dp = 0;
            for (size_t k = 0; k < d; k++) {
                dp += dout[k] * head->x[2][j * d + k];
                head->gradient[2][j * d + k] += p[j] * dout[k];
            }
            double ds = p[j] * (dp - delta), logit = 0; /* without the scale */
            for (size_t k = 0; k < d; k++) {
                head->y_gradient[0][i * d + k] += scale * ds * head->y[1][j * d + k];
                head->y_gradient[1][j * d + k] += scale * ds * head->y[0][i * d + k];
                logit += head->y[0][i * d + k] * head->y[1][j * d + k];
            }
            gradients->scale[index] += ds * logit;
            gradients->scale_terms[index] += fabs(ds * logit);
        }
    }
    for (int part = 0; part < 2; part++)
        for (size_t t = 0; t < n; t++)
            reference_row_backward(head->gradient[part] + t * d, gradients, head->y_gradient[part] + t * d,
                                   head->x[part] + t * d, extras, shape->kind, part, d);
}

#endif
