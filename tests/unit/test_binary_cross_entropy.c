/* binary_cross_entropy on the CPU against float64: thresholds, sum and mean, smoothing, mixed labels, ties, huge logits
 * and ones that are not finite, labels that are no class. */
#include "tests/unit/op_test.h"

enum { MOST_BATCH = 20 };

struct call {
    struct tensor *logits, *weights;
    int32_t labels[MOST_BATCH], partners[MOST_BATCH];
    size_t batch, classes;
    double smoothing, threshold;
    bool mixed, sum;
};

static double target_of(const struct call *call, size_t image, size_t c)
{
    double weight = call->mixed ? call->weights->exact[image] : 1;
    double one_hot = weight * ((size_t)call->labels[image] == c);
    if (call->mixed)
        one_hot += (1 - weight) * ((size_t)call->partners[image] == c);
    double target = call->smoothing / (double)call->classes + (1 - call->smoothing) * one_hot;
    return call->threshold < 0 ? target : target > call->threshold;
}

static double share_of(const struct call *call)
{
    return call->sum ? 1 : 1 / (double)call->classes;
}

static double reference_loss(const struct call *call, size_t image)
{
    double loss = 0;
    for (size_t c = 0; c < call->classes; c++) {
        double x = call->logits->exact[image * call->classes + c];
        loss += fmax(x, 0) + log1p(exp(-fabs(x))) - x * target_of(call, image, c);
    }
    return loss * share_of(call);
}

static double reference_gradient(const struct call *call, size_t image, size_t c)
{
    double x = call->logits->exact[image * call->classes + c];
    return (1 / (1 + exp(-x)) - target_of(call, image, c)) * share_of(call);
}

static int32_t reference_rank(const struct call *call, size_t image)
{
    const double *logits = call->logits->exact + image * call->classes;
    size_t label = (size_t)call->labels[image];
    int32_t rank = 0;
    for (size_t c = 0; c < call->classes; c++)
        rank += logits[c] > logits[label] || (logits[c] == logits[label] && c < label);
    return rank;
}

static struct call draw(struct op_test *test, size_t batch, size_t classes, double size)
{
    static const double thresholds[] = {-1, 0, 0.2};
    struct call call = {.logits = tensor_random(test, batch * classes, test->dtype, size),
                        .weights = tensor_random(test, batch, DTYPE_FLOAT32, 1),
                        .batch = batch,
                        .classes = classes,
                        .smoothing = random_between(test, 0, 1) ? 0.125 : 0,
                        .threshold = thresholds[random_between(test, 0, 2)],
                        .mixed = random_between(test, 0, 1),
                        .sum = random_between(test, 0, 1)};
    for (size_t i = 0; i < batch; i++) {
        call.labels[i] = (int32_t)random_between(test, 0, classes - 1);
        call.partners[i] = (int32_t)random_between(test, 0, classes - 1);
        tensor_set(call.weights, i, random_between(test, 0, 4) ? fabs(call.weights->exact[i]) : 1);
        if (random_between(test, 0, 2) == 0) /* a tie */
            tensor_set(call.logits, i * classes, call.logits->exact[i * classes + (size_t)call.labels[i]]);
    }
    return call;
}

static void run(struct op_test *test, const struct call *call, float *loss, int32_t *ranks, void *gradient)
{
    struct error error;
    struct binary_cross_entropy op = {.loss = loss,
                                      .label_rank = ranks,
                                      .gradient = gradient,
                                      .logits = call->logits->data,
                                      .labels = call->labels,
                                      .partner_labels = call->mixed ? call->partners : NULL,
                                      .weights = call->mixed ? call->weights->data : NULL,
                                      .smoothing = (float)call->smoothing,
                                      .gradient_scale = 0.25f,
                                      .threshold = (float)call->threshold,
                                      .sum = call->sum,
                                      .batch = call->batch,
                                      .classes = call->classes};
    assert_ok(test->k->binary_cross_entropy(test->ctx, &op, &error), &error);
}

static void compare(struct op_test *test, const struct call *call)
{
    struct tensor *loss = tensor_zeros(test, call->batch, DTYPE_FLOAT32), *again = tensor_copy(test, loss);
    struct tensor *gradient = tensor_zeros(test, call->logits->count, test->dtype);
    int32_t ranks[MOST_BATCH];
    run(test, call, loss->data, ranks, gradient->data);
    for (size_t image = 0; image < call->batch; image++) {
        loss->exact[image] = reference_loss(call, image);
        assert_int_equal(ranks[image], reference_rank(call, image));
        for (size_t c = 0; c < call->classes; c++)
            gradient->exact[image * call->classes + c] = 0.25 * reference_gradient(call, image, c);
    }
    assert_close("loss", loss, loss->exact, 2e-6);
    assert_close("gradient", gradient, gradient->exact, tolerance(test->dtype));
    run(test, call, again->data, ranks, NULL);
    assert_same_bits("loss without gradient", loss, again);
}

static void trial(struct op_test *test)
{
    struct call call = draw(test, random_between(test, 1, MOST_BATCH), random_between(test, 1, 1000), 5);
    compare(test, &call);
}

/* Of logits to 1000 the exponentials are 0 or would overflow. */
static void huge_trial(struct op_test *test)
{
    struct call call = draw(test, random_between(test, 1, MOST_BATCH), random_between(test, 2, 50), 1000);
    compare(test, &call);
}

static double loss_sum(void *argument)
{
    const struct call *call = argument;
    double sum = 0;
    for (size_t image = 0; image < call->batch; image++)
        sum += reference_loss(call, image);
    return sum;
}

static void derivative_trial(struct op_test *test)
{
    struct call call = draw(test, random_between(test, 1, 3), random_between(test, 2, 9), 5);
    struct tensor *gradient = tensor_zeros(test, call.logits->count, test->dtype);
    for (size_t i = 0; i < call.logits->count; i++)
        gradient->exact[i] = reference_gradient(&call, i / call.classes, i % call.classes);
    assert_derivative("logits", loss_sum, &call, call.logits->exact, call.logits->count, gradient->exact);
}

/* Of a surely right and of a surely wrong logit, to the last digits: nothing cancels. */
static void tail_trial(struct op_test *test)
{
    struct call call = {.logits = tensor_zeros(test, 2, test->dtype), .batch = 1, .classes = 2, .sum = true};
    float loss, gradient[2];
    int32_t rank;
    if (test->dtype != DTYPE_FLOAT32)
        return;
    tensor_set(call.logits, 0, 20);
    tensor_set(call.logits, 1, -20);
    run(test, &call, &loss, &rank, gradient);
    assert_true(fabs((double)loss / (2 * exp(-20)) - 1) < 1e-6);
    assert_true(fabs((double)gradient[0] / (-0.25 * exp(-20)) - 1) < 1e-6);
    assert_true(fabs((double)gradient[1] / (0.25 * exp(-20)) - 1) < 1e-6);
}

/* A row that is not finite, or whose label is no class, is NaN, and no other row. */
static void bad_row_trial(struct op_test *test)
{
    enum { BATCH = 6, CLASSES = 4 };
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    static const int32_t ranks_expected[] = {CLASSES, 1, 0};
    struct call call = draw(test, BATCH, CLASSES, 5);
    struct tensor *gradient = tensor_random(test, BATCH * CLASSES, test->dtype, 1);
    float loss[BATCH];
    int32_t ranks[BATCH];
    call.mixed = true;
    for (size_t i = 0; i < 3; i++) {
        for (size_t c = 0; c < CLASSES; c++)
            tensor_set(call.logits, i * CLASSES + c, -(double)c);
        call.labels[i] = 0;
        tensor_set(call.logits, i * CLASSES + 2, bad[i]);
    }
    call.labels[3] = CLASSES;
    call.partners[4] = INT32_MIN;
    run(test, &call, loss, ranks, gradient->data);
    for (size_t i = 0; i < BATCH; i++) {
        assert_int_equal(isnan(loss[i]), i < 5);
        assert_true(i < 3 ? ranks[i] == ranks_expected[i] : i < 5 ? ranks[i] == CLASSES : ranks[i] < CLASSES);
        for (size_t c = 0; c < CLASSES; c++)
            assert_int_equal(isnan(tensor_get(gradient, i * CLASSES + c)), i < 5);
    }
}

static void matches_float64(void **state)
{
    (void)state;
    op_test_each(trial, 30);
}

static void matches_float64_on_huge_logits(void **state)
{
    (void)state;
    op_test_each(huge_trial, 10);
}

static void reference_matches_central_differences(void **state)
{
    (void)state;
    op_test_each(derivative_trial, 5);
}

static void small_tails_are_exact(void **state)
{
    (void)state;
    op_test_each(tail_trial, 1);
}

static void bad_rows_show(void **state)
{
    (void)state;
    op_test_each(bad_row_trial, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_float64),
        cmocka_unit_test(matches_float64_on_huge_logits),
        cmocka_unit_test(reference_matches_central_differences),
        cmocka_unit_test(small_tails_are_exact),
        cmocka_unit_test(bad_rows_show),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
