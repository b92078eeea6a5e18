/* The ops of Muon (Jordan et al. 2024; timm's Muon) on one weight matrix (kernels.h, whose conventions hold). It moves
 * against the orthogonal factor of its gradient's running mean, which products between these ops find
 * (src/optimiser/muon.c). They work on the matrix as it lies: [n, most], n = min(rows, columns), so transposed where it
 * has more rows than columns. A step whose gradient's sum of squares is not finite or above the limit, or behind one
 * that was not finite, changes neither m nor master nor working: decided on the device, as adamw_update does. */
#ifndef QUEST_KERNELS_MUON_H
#define QUEST_KERNELS_MUON_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct context;

/* The last three as those of struct adamw. */
struct muon {
    float momentum, eps;
    bool nesterov;
    float clip_grad_norm;
    double sum_of_squares_limit;
    const double *earlier_sum_of_squares;
};

/*   g = clipped gradient;  m += (1 - momentum) * (g - m);  u = nesterov ? g + momentum * (m - g) : m
 *   out  T [n, most] = u / max(|u|, eps), |u| the Euclidean norm
 * m, gradient float32 [rows, columns]. Moves 12 bytes a number, and, since the norm must be known first, reads 4 once
 * more (Nesterov: 8), beside what it writes. */
struct muon_direction {
    float *m;
    void *out;
    const float *gradient;
    const double *gradient_sum_of_squares;
    size_t rows, columns;
    const struct muon *muon;
};
typedef bool muon_direction_op(struct context *ctx, const struct muon_direction *op, struct error *error);

/* out = identity * I + linear * x + square * x_squared, all T [n, n]; out may be x_squared. */
struct muon_polynomial {
    void *out;
    const void *x, *x_squared;
    size_t n;
    float identity, linear, square;
};
typedef bool muon_polynomial_op(struct context *ctx, const struct muon_polynomial *op, struct error *error);

/* master float32 [rows, columns] = keep * master - step * direction, direction T [n, most]; working T [rows, columns] =
 * rounded master (or NULL, or master where T is float32). Moves 8 bytes a number, the direction and the working copy.
 */
struct muon_apply {
    float *master;
    void *working;
    const void *direction;
    const double *gradient_sum_of_squares;
    size_t rows, columns;
    float keep, step;
    const struct muon *muon;
};
typedef bool muon_apply_op(struct context *ctx, const struct muon_apply *op, struct error *error);

/* Their part of FOR_EACH_OP. */
#define FOR_EACH_MUON_OP(OP) OP(muon_direction) OP(muon_polynomial) OP(muon_apply)

#ifdef __cplusplus
}
#endif
#endif
