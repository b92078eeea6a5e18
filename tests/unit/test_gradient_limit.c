/* Above which gradient norm a step is skipped. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/diagnosis/gradient_limit.h"

/* Norms of steps first .. last: level * exp(-2, -1, 0, 1, 2 times spread), over and over; MAD of the logarithms:
 * spread. */
static void push(struct gradient_limit *limit, uint64_t first, uint64_t last, double level, double spread)
{
    for (uint64_t step = first; step <= last; step++)
        gradient_limit_push(limit, step, level * exp(spread * ((double)(step % 5) - 2)));
}

static void nothing_is_skipped_before_32_steps_are_known(void **state)
{
    (void)state;
    struct gradient_limit limit = {.count = 0};
    push(&limit, 1, 31, 2, 0.3);
    assert_true(gradient_limit_at(&limit, 33, 6) == 0);
    push(&limit, 32, 32, 2, 0.3);
    assert_true(gradient_limit_at(&limit, 33, 6) == 0); /* step 32 may not be read yet on a GPU */
    assert_true(gradient_limit_at(&limit, 34, 6) > 0);
    assert_true(gradient_limit_at(&limit, 34, 0) == 0);
}

static void the_limit_is_z_deviations_over_the_median(void **state)
{
    (void)state;
    struct gradient_limit limit = {.count = 0}, still = {.count = 0};
    push(&limit, 1, 200, 2, 0.3);
    assert_true(fabs(log(gradient_limit_at(&limit, 202, 6) / 2) - 6 * 1.4826 * 0.3) < 1e-9);
    push(&still, 1, 200, 2, 0); /* the floor: 0.1 */
    assert_true(fabs(log(gradient_limit_at(&still, 202, 6) / 2) - 0.6) < 1e-9);
}

/* A step's limit is the same whether the step before it has been read or not. */
static void the_step_before_does_not_count(void **state)
{
    (void)state;
    struct gradient_limit behind = {.count = 0}, ahead;
    push(&behind, 1, 300, 2, 0.3);
    ahead = behind;
    gradient_limit_push(&ahead, 301, 1e6);
    assert_true(gradient_limit_at(&behind, 302, 6) == gradient_limit_at(&ahead, 302, 6));
    push(&behind, 301, 301, 1e6, 0);
    assert_true(gradient_limit_at(&behind, 303, 6) == gradient_limit_at(&ahead, 303, 6));
}

static void outliers_do_not_move_it_but_a_new_level_does(void **state)
{
    (void)state;
    struct gradient_limit limit = {.count = 0};
    push(&limit, 1, 200, 2, 0.3);
    double before = gradient_limit_at(&limit, 202, 6);
    push(&limit, 201, 210, 1000, 0);
    assert_true(gradient_limit_at(&limit, 212, 6) < 1.1 * before);
    push(&limit, 211, 300, 1000, 0.3);
    assert_true(gradient_limit_at(&limit, 302, 6) > 1000);
}

/* What a checkpoint holds is all there is to it; a step out of order begins anew. */
static void a_copy_goes_on_alike_and_a_gap_begins_anew(void **state)
{
    (void)state;
    struct gradient_limit whole = {.count = 0}, resumed = {.count = 0};
    push(&whole, 1, 400, 2, 0.3);
    resumed.count = whole.count;
    resumed.newest_step = 400;
    for (size_t i = 0; i < whole.count; i++)
        resumed.norms[i] = whole.norms[i];
    assert_int_equal(whole.count, GRADIENT_LIMIT_NORMS);
    for (uint64_t step = 401; step < 420; step++) {
        assert_true(gradient_limit_at(&whole, step, 3) == gradient_limit_at(&resumed, step, 3));
        push(&whole, step, step, 2 + 0.1 * (double)step, 0.3);
        push(&resumed, step, step, 2 + 0.1 * (double)step, 0.3);
    }
    push(&whole, 500, 500, 2, 0);
    assert_int_equal(whole.count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_skipped_before_32_steps_are_known),
        cmocka_unit_test(the_limit_is_z_deviations_over_the_median),
        cmocka_unit_test(the_step_before_does_not_count),
        cmocka_unit_test(outliers_do_not_move_it_but_a_new_level_does),
        cmocka_unit_test(a_copy_goes_on_alike_and_a_gap_begins_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
