/* cross_entropy on the CPU against float64: smoothing, mixed labels, ties, huge logits and ones that are not finite. */
#include "tests/unit/op_test.h"

struct reference {
    size_t batch, classes;
    const double *logits, *weights; /* weights NULL: no partner */
    const int32_t *labels, *partners;
    double smoothing;
};

static double target_of(const struct reference *call, size_t image, size_t c)
{
    double weight = call->weights ? call->weights[image] : 1;
    double one_hot = weight * ((size_t)call->labels[image] == c);
    if (call->weights)
        one_hot += (1 - weight) * ((size_t)call->partners[image] == c);
    return call->smoothing / (double)call->classes + (1 - call->smoothing) * one_hot;
}

static double log_sum_exp(const struct reference *call, size_t image)
{
    const double *logits = call->logits + image * call->classes;
    double largest = logits[0], sum = 0;
    for (size_t c = 1; c < call->classes; c++)
        largest = fmax(largest, logits[c]);
    for (size_t c = 0; c < call->classes; c++)
        sum += exp(logits[c] - largest);
    return largest + log(sum);
}

static double reference_loss(const struct reference *call, size_t image)
{
    double loss = 0, normaliser = log_sum_exp(call, image);
    for (size_t c = 0; c < call->classes; c++)
        loss += target_of(call, image, c) * (normaliser - call->logits[image * call->classes + c]);
    return loss;
}

static int32_t reference_rank(const struct reference *call, size_t image)
{
    const double *logits = call->logits + image * call->classes;
    size_t label = (size_t)call->labels[image];
    int32_t rank = 0;
    for (size_t c = 0; c < call->classes; c++)
        rank += logits[c] > logits[label] || (logits[c] == logits[label] && c < label);
    return rank;
}

struct fixture {
    struct tensor *logits, *weights;
    int32_t *labels, *partners;
    struct reference call;
};

static struct fixture draw(struct op_test *test, size_t batch, size_t classes)
{
    struct fixture f = {
        .logits = tensor_random(test, batch * classes, test->dtype, 5),
        .weights = tensor_random(test, batch, DTYPE_FLOAT32, 1),
        .labels = malloc(batch * sizeof(int32_t)),
        .partners = malloc(batch * sizeof(int32_t)),
    };
    for (size_t i = 0; i < batch; i++) {
        f.labels[i] = (int32_t)random_between(test, 0, classes - 1);
        f.partners[i] = (int32_t)random_between(test, 0, classes - 1);
        if (random_between(test, 0, 2) == 0) /* a tie */
            tensor_set(f.logits, i * classes, f.logits->exact[i * classes + (size_t)f.labels[i]]);
    }
    bool mixed = random_between(test, 0, 1);
    f.call = (struct reference){
        .batch = batch,
        .classes = classes,
        .logits = f.logits->exact,
        .weights = mixed ? f.weights->exact : NULL,
        .labels = f.labels,
        .partners = f.partners,
        .smoothing = random_between(test, 0, 1) ? 0.125 : 0,
    };
    return f;
}

static void release(struct fixture *f)
{
    free(f->labels);
    free(f->partners);
}

static void run(struct op_test *test, const struct fixture *f, struct tensor *loss, int32_t *ranks, void *gradient,
                float scale)
{
    struct error error;
    bool mixed = f->call.weights != NULL;
    struct cross_entropy call = {.loss = loss->data,
                                 .label_rank = ranks,
                                 .gradient = gradient,
                                 .logits = f->logits->data,
                                 .labels = f->labels,
                                 .partner_labels = mixed ? f->partners : NULL,
                                 .weights = mixed ? f->weights->data : NULL,
                                 .smoothing = (float)f->call.smoothing,
                                 .gradient_scale = scale,
                                 .batch = f->call.batch,
                                 .classes = f->call.classes};
    assert_ok(test->k->cross_entropy(test->ctx, &call, &error), &error);
}

static void trial(struct op_test *test)
{
    struct fixture f = draw(test, random_between(test, 1, 20), random_between(test, 1, 1000));
    struct tensor *loss = tensor_zeros(test, f.call.batch, DTYPE_FLOAT32), *again = tensor_copy(test, loss);
    struct tensor *gradient = tensor_zeros(test, f.logits->count, test->dtype);
    int32_t ranks[20];
    run(test, &f, loss, ranks, gradient->data, 0.25f);
    for (size_t image = 0; image < f.call.batch; image++) {
        double normaliser = log_sum_exp(&f.call, image);
        loss->exact[image] = reference_loss(&f.call, image);
        assert_int_equal(ranks[image], reference_rank(&f.call, image));
        for (size_t c = 0; c < f.call.classes; c++) {
            size_t i = image * f.call.classes + c;
            gradient->exact[i] = 0.25 * (exp(f.logits->exact[i] - normaliser) - target_of(&f.call, image, c));
        }
    }
    if (f.call.classes > 1) { /* one class: loss and gradient are 0 */
        assert_close("loss", loss, loss->exact, 2e-6);
        assert_close("gradient", gradient, gradient->exact, tolerance(test->dtype));
    }
    run(test, &f, again, ranks, NULL, 0.25f);
    assert_same_bits("loss without gradient", loss, again);
    release(&f);
}

static double loss_sum(void *argument)
{
    const struct reference *call = argument;
    double sum = 0;
    for (size_t image = 0; image < call->batch; image++)
        sum += reference_loss(call, image);
    return sum;
}

static void derivative_trial(struct op_test *test)
{
    struct fixture f = draw(test, random_between(test, 1, 3), random_between(test, 2, 9));
    struct tensor *gradient = tensor_zeros(test, f.logits->count, test->dtype);
    for (size_t i = 0; i < f.logits->count; i++) {
        size_t image = i / f.call.classes;
        gradient->exact[i] =
            exp(f.logits->exact[i] - log_sum_exp(&f.call, image)) - target_of(&f.call, image, i % f.call.classes);
    }
    assert_derivative("logits", loss_sum, &f.call, f.logits->exact, f.logits->count, gradient->exact);
    release(&f);
}

static void matches_float64(void **state)
{
    (void)state;
    op_test_each(trial, 30);
}

static void reference_matches_central_differences(void **state)
{
    (void)state;
    op_test_each(derivative_trial, 5);
}

/* Huge logits must not overflow; infinite and NaN ones must show. */
static void extreme_trial(struct op_test *test)
{
    struct error error;
    const double bad[] = {NAN, INFINITY, -INFINITY};
    struct tensor *logits = tensor_zeros(test, 4, test->dtype);
    int32_t label = 1, rank;
    float loss;
    tensor_set(logits, 0, 1e30);
    tensor_set(logits, 1, -1e30);
    struct cross_entropy call = {.loss = &loss,
                                 .label_rank = &rank,
                                 .logits = logits->data,
                                 .labels = &label,
                                 .gradient_scale = 1,
                                 .batch = 1,
                                 .classes = 4};
    assert_ok(test->k->cross_entropy(test->ctx, &call, &error), &error);
    assert_true(fabsf(loss - 2e30f) < 1e28f);
    assert_int_equal(rank, 3);
    for (size_t i = 0; i < 3; i++) {
        tensor_set(logits, 0, 0);
        tensor_set(logits, 1, 1);
        tensor_set(logits, 2, bad[i]);
        assert_ok(test->k->cross_entropy(test->ctx, &call, &error), &error);
        assert_true(isnan(loss));
        assert_int_equal(rank, isnan(bad[i]) ? 4 : isinf(bad[i]) && bad[i] > 0 ? 1 : 0);
    }
}

static void logits_that_are_not_finite_show(void **state)
{
    (void)state;
    op_test_each(extreme_trial, 1);
}

static void bad_label_trial(struct op_test *test)
{
    enum { BATCH = 5, CLASSES = 4 };
    const int32_t labels[BATCH] = {0, -1, CLASSES, 3, INT32_MIN}, partners[BATCH] = {1, 2, 3, INT32_MAX, 0};
    struct tensor *logits = tensor_random(test, BATCH * CLASSES, test->dtype, 5),
                  *gradient = tensor_random(test, BATCH * CLASSES, test->dtype, 1),
                  *weights = tensor_random(test, BATCH, DTYPE_FLOAT32, 1);
    float loss[BATCH];
    int32_t rank[BATCH] = {0};
    struct error error;
    struct cross_entropy call = {.loss = loss,
                                 .label_rank = rank,
                                 .gradient = gradient->data,
                                 .logits = logits->data,
                                 .labels = labels,
                                 .partner_labels = partners,
                                 .weights = weights->data,
                                 .gradient_scale = 1,
                                 .batch = BATCH,
                                 .classes = CLASSES};
    assert_ok(test->k->cross_entropy(test->ctx, &call, &error), &error);
    for (size_t i = 0; i < BATCH; i++) {
        bool bad = i != 0;
        assert_int_equal(isnan(loss[i]), bad);
        assert_true(bad ? rank[i] == CLASSES : rank[i] < CLASSES);
        for (size_t c = 0; c < CLASSES; c++)
            assert_int_equal(isnan(tensor_get(gradient, i * CLASSES + c)), bad);
    }
}

static void labels_that_are_no_class_show(void **state)
{
    (void)state;
    op_test_each(bad_label_trial, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_float64),
        cmocka_unit_test(reference_matches_central_differences),
        cmocka_unit_test(logits_that_are_not_finite_show),
        cmocka_unit_test(labels_that_are_no_class_show),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
