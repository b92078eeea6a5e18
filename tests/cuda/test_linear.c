/* linear on CUDA beside the CPU: sizes that cuBLASLt takes and sizes that only the fallback does. */
#include "tests/cuda/twins.h"

#include <math.h>

/* How far a float32 sum of k products may be from the CPU's, relative to its size and that of its neighbours.
 *
 * float32: 4 sqrt(k) 2^-24, for k roundings that do not know of each other (Higham and Mary, "A new approach to
 * probabilistic rounding error analysis", SIAM J. Sci. Comput. 41(5), 2019: lambda sqrt(k) u with lambda 4).
 * bfloat16: tensor cores add blocks of 8 (A100) or 16 (H100) exact products to the sum before, align all to the largest
 * and cut off what is below 2^-23 of it (Fasi, Higham, Mikaitis, Pranesh, "Numerical behavior of NVIDIA tensor cores",
 * PeerJ Computer Science 7:e330, 2021). Cutting always goes towards zero, so these errors add up: k / 8 of them, each
 * at most 2 * 2^-23 of a partial sum (alignment, and the normalisation of the result); on the mean over k a partial sum
 * of random numbers is no larger than what the bound is relative to.
 * Below k = 335 either is under the 1e-5 that stands for what else differs. A row that is left out or counted twice is
 * 1 / sqrt(k): above the bound up to k = 100,000. */
static double sum_bound(enum dtype in, size_t k)
{
    double each = in == DTYPE_FLOAT32 ? 4 * sqrt((double)k) * 0x1p-24 : (double)k / 8 * 2 * 0x1p-23;
    return fmax(1e-5, each);
}

static size_t random_dim(struct twins *t)
{
    return random_between(t, 0, 2) ? 8 * random_between(t, 1, 40) : random_between(t, 1, 70);
}

static void forward_trial(struct twins *t)
{
    size_t rows = random_between(t, 0, 4) ? random_between(t, 2, 200) : 1, in_dim = random_dim(t),
           out_dim = random_dim(t);
    struct twin *in = twin_random(t, rows * in_dim, t->dtype, 1);
    struct twin *weight = twin_random(t, out_dim * in_dim, t->dtype, 1);
    struct twin *bias = random_between(t, 0, 3) ? twin_random(t, out_dim, t->dtype, 1) : NULL;
    struct twin *out = twin_random(t, rows * out_dim, t->dtype, 1);
    TWINS_RUN_OP(t, linear_forward, .out = SIDE(out), .in = SIDE(in), .weight = SIDE(weight), .bias = SIDE(bias),
                 .rows = rows, .in_dim = in_dim, .out_dim = out_dim);
    assert_twins_agree(t, "out", out, twins_bound(t));
}

static void backward_of(struct twins *t, size_t rows, size_t in_dim, size_t out_dim)
{
    struct twin *in = twin_random(t, rows * in_dim, t->dtype, 1);
    struct twin *weight = twin_random(t, out_dim * in_dim, t->dtype, 1);
    struct twin *out_gradient = twin_random(t, rows * out_dim, t->dtype, 1);
    struct twin *in_gradient = random_between(t, 0, 3) ? twin_random(t, rows * in_dim, t->dtype, 1) : NULL;
    struct twin *bias_gradient = random_between(t, 0, 3) ? twin_random(t, out_dim, DTYPE_FLOAT32, 3) : NULL;
    bool overwrite = random_between(t, 0, 1);
    struct twin *weight_gradient = random_between(t, 0, 3) ? twin_random(t, out_dim * in_dim, DTYPE_FLOAT32, 3) : NULL;
    if (!weight_gradient)
        bias_gradient = NULL;
    TWINS_RUN_OP(t, linear_backward, .in_gradient = SIDE(in_gradient), .weight_gradient = SIDE(weight_gradient),
                 .bias_gradient = SIDE(bias_gradient), .out_gradient = SIDE(out_gradient), .in = SIDE(in),
                 .weight = SIDE(weight), .rows = rows, .in_dim = in_dim, .out_dim = out_dim, .overwrite = overwrite);
    if (in_gradient)
        assert_twins_agree(t, "in_gradient", in_gradient, twins_bound(t));
    if (bias_gradient)
        assert_twins_agree(t, "bias_gradient", bias_gradient, sum_bound(DTYPE_FLOAT32, rows));
    if (weight_gradient)
        assert_twins_agree(t, "weight_gradient", weight_gradient, sum_bound(t->dtype, rows));
}

static void backward_trial(struct twins *t)
{
    size_t rows = random_between(t, 0, 4) ? random_between(t, 2, 200) : 1, in_dim = random_dim(t);
    backward_of(t, rows, in_dim, random_dim(t));
}

/* As many rows as a batch of images has: k of the weight gradient. */
static void long_backward_trial(struct twins *t)
{
    backward_of(t, random_between(t, 20000, 50000), 8 * random_between(t, 1, 3), 8 * random_between(t, 1, 3));
}

static void forward_matches_cpu(void **state)
{
    (void)state;
    twins_each(forward_trial, 20);
}

static void backward_matches_cpu(void **state)
{
    (void)state;
    twins_each(backward_trial, 20);
}

static void long_sums_match_cpu(void **state)
{
    (void)state;
    twins_each(long_backward_trial, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_matches_cpu),
        cmocka_unit_test(backward_matches_cpu),
        cmocka_unit_test(long_sums_match_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
