/* cross_entropy and binary_cross_entropy on CUDA beside the CPU: any number of classes, smoothing, mixed labels, ties,
 * logits that are not finite, labels that are no class. */
#include "tests/cuda/twins.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* labels [2 * batch], the second half are the partners'. */
static void run_with(struct twins *t, struct twin *logits, const int32_t *labels, size_t batch, size_t classes,
                     bool mixed, bool evaluation)
{
    struct twin *loss = twin_random(t, batch, DTYPE_FLOAT32, 1), *rank = twin_raw(t, labels, batch * sizeof *labels),
                *gradient = evaluation ? NULL : twin_random(t, batch * classes, t->dtype, 1),
                *own = twin_raw(t, labels, batch * sizeof *labels),
                *partner = mixed ? twin_raw(t, labels + batch, batch * sizeof *labels) : NULL,
                *weights = mixed ? twin_random(t, batch, DTYPE_FLOAT32, 1) : NULL;
    static const float thresholds[] = {-1, 0, 0.2f};
    float smoothing = random_between(t, 0, 1) ? 0.1f : 0.0f;
    if (random_between(t, 0, 1)) {
        float threshold = thresholds[random_between(t, 0, 2)];
        bool sum = random_between(t, 0, 1);
        TWINS_RUN_OP(t, binary_cross_entropy, .loss = SIDE(loss), .label_rank = SIDE(rank), .gradient = SIDE(gradient),
                     .logits = SIDE(logits), .labels = SIDE(own), .partner_labels = SIDE(partner),
                     .weights = SIDE(weights), .smoothing = smoothing, .gradient_scale = 0.25f, .threshold = threshold,
                     .sum = sum, .batch = batch, .classes = classes);
    } else {
        TWINS_RUN_OP(t, cross_entropy, .loss = SIDE(loss), .label_rank = SIDE(rank), .gradient = SIDE(gradient),
                     .logits = SIDE(logits), .labels = SIDE(own), .partner_labels = SIDE(partner),
                     .weights = SIDE(weights), .smoothing = smoothing, .gradient_scale = 0.25f, .batch = batch,
                     .classes = classes);
    }
    assert_twins_agree(t, "loss", loss, 1e-5);
    assert_twins_agree(t, "label_rank", rank, 0);
    if (gradient)
        assert_twins_agree(t, "gradient", gradient, twins_bound(t));
}

static void run(struct twins *t, struct twin *logits, size_t batch, size_t classes, bool mixed, bool evaluation)
{
    int32_t *labels = malloc(2 * batch * sizeof *labels);
    assert_non_null(labels);
    for (size_t i = 0; i < 2 * batch; i++)
        labels[i] = (int32_t)random_between(t, 0, classes - 1);
    run_with(t, logits, labels, batch, classes, mixed, evaluation);
    free(labels);
}

/* Their rows are NaN and the others as ever; nothing is read through them (the simulator's checks look). */
static void bad_label_trial(struct twins *t)
{
    static const int32_t bad[] = {-1, INT32_MIN, INT32_MAX, 1 << 20};
    static const size_t sizes[] = {7, 1000, 20000};
    enum { BATCH = 4 };
    size_t classes = sizes[random_between(t, 0, 2)];
    bool mixed = random_between(t, 0, 1);
    int32_t labels[2 * BATCH];
    for (size_t i = 0; i < 2 * BATCH; i++)
        labels[i] = (int32_t)random_between(t, 0, classes - 1);
    labels[1] = bad[random_between(t, 0, 3)];
    labels[2] = (int32_t)classes;
    labels[BATCH + 3] = bad[random_between(t, 0, 3)];
    struct twin *logits = twin_random(t, BATCH * classes, t->dtype, 8);
    run_with(t, logits, labels, BATCH, classes, mixed, random_between(t, 0, 1));
}

static void finite_trial(struct twins *t)
{
    static const size_t sizes[] = {2, 7, 10, 100, 1000, 1001, 12289, 20000};
    size_t batch = random_between(t, 1, 9), classes = sizes[random_between(t, 0, 7)];
    /* Small logits have many ties in bfloat16. */
    struct twin *logits = twin_random(t, batch * classes, t->dtype, random_between(t, 0, 1) ? 8 : 0.01);
    run(t, logits, batch, classes, random_between(t, 0, 1), random_between(t, 0, 3) == 0);
}

static void nonfinite_trial(struct twins *t)
{
    const size_t classes = 24;
    float values[24];
    uint16_t halves[24];
    float bad = random_between(t, 0, 1) ? NAN : random_between(t, 0, 1) ? INFINITY : -INFINITY;
    struct twin *logits = twin_random(t, classes, t->dtype, 1);
    for (size_t i = 0; i < classes; i++) {
        uint32_t bits;
        values[i] = i == 5 ? bad : (float)i;
        memcpy(&bits, &values[i], sizeof bits);
        halves[i] = (uint16_t)(bits >> 16);
    }
    for (int side = 0; side < SIDES; side++) {
        struct error error;
        const struct side *s = &t->sides[side];
        bool half = side > 0 && t->dtype == DTYPE_BFLOAT16;
        assert_ok(s->k->upload(s->ctx, logits->data[side], half ? (void *)halves : (void *)values,
                               half ? sizeof halves : sizeof values, &error),
                  &error);
        assert_ok(s->k->synchronise(s->ctx, &error), &error);
    }
    run(t, logits, 1, classes, false, true);
}

static void finite_matches_cpu(void **state)
{
    (void)state;
    twins_each(finite_trial, 48);
}

static void nonfinite_matches_cpu(void **state)
{
    (void)state;
    twins_each(nonfinite_trial, 16);
}

static void bad_labels_match_cpu(void **state)
{
    (void)state;
    twins_each(bad_label_trial, 24);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finite_matches_cpu),
        cmocka_unit_test(nonfinite_matches_cpu),
        cmocka_unit_test(bad_labels_match_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
