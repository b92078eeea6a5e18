/* GELU, embedding, CLS rows and patches on CUDA beside the CPU. */
#include "tests/cuda/twins.h"

#include <stdlib.h>

static size_t random_dim(struct twins *t)
{
    return random_between(t, 0, 3) ? 8 * random_between(t, 1, 60) : random_between(t, 1, 70);
}

static void gelu_trial(struct twins *t)
{
    size_t rows = random_between(t, 1, 500), dim = random_dim(t);
    struct twin *in = twin_random(t, rows * dim, t->dtype, 4), *bias = twin_random(t, dim, t->dtype, 1),
                *out = twin_random(t, rows * dim, t->dtype, 1);
    TWINS_RUN(t, gelu_forward, SIDE(out), SIDE(in), SIDE(bias), rows, dim);
    assert_twins_agree(t, "out", out, twins_bound(t));
    struct twin *out_gradient = twin_random(t, rows * dim, t->dtype, 1),
                *bias_gradient = twin_random(t, dim, DTYPE_FLOAT32, 3);
    struct twin *in_gradient = random_between(t, 0, 1) ? out_gradient : twin_random(t, rows * dim, t->dtype, 1);
    TWINS_RUN_OP(t, gelu_backward, .in_gradient = SIDE(in_gradient), .bias_gradient = SIDE(bias_gradient),
                 .out_gradient = SIDE(out_gradient), .in = SIDE(in), .bias = SIDE(bias), .rows = rows, .dim = dim);
    assert_twins_agree(t, "in_gradient", in_gradient, twins_bound(t));
    assert_twins_agree(t, "bias_gradient", bias_gradient, 1e-5);
}

/* The backward pass makes the forward pass's result again, in place or not. */
static void gelu_again_trial(struct twins *t)
{
    size_t rows = random_between(t, 1, 500), dim = random_dim(t);
    struct twin *in = twin_random(t, rows * dim, t->dtype, 4), *bias = twin_random(t, dim, t->dtype, 1),
                *out = twin_random(t, rows * dim, t->dtype, 1),
                *again = random_between(t, 0, 1) ? in : twin_random(t, rows * dim, t->dtype, 1),
                *gradient = twin_random(t, rows * dim, t->dtype, 1),
                *bias_gradient = twin_random(t, dim, DTYPE_FLOAT32, 3);
    TWINS_RUN(t, gelu_forward, SIDE(out), SIDE(in), SIDE(bias), rows, dim);
    TWINS_RUN_OP(t, gelu_backward, .in_gradient = SIDE(gradient), .out = SIDE(again),
                 .bias_gradient = SIDE(bias_gradient), .out_gradient = SIDE(gradient), .in = SIDE(in),
                 .bias = SIDE(bias), .rows = rows, .dim = dim);
    assert_twins_same_bits(t, "out", out, again);
    assert_twins_agree(t, "in_gradient", gradient, twins_bound(t));
    assert_twins_agree(t, "bias_gradient", bias_gradient, 1e-5);
}

static void embed_of(struct twins *t, size_t batch, size_t patches, size_t dim)
{
    size_t tokens = patches + 1;
    struct twin *projected = twin_random(t, batch * patches * dim, t->dtype, 1),
                *cls = twin_random(t, dim, DTYPE_FLOAT32, 1),
                *position = twin_random(t, tokens * dim, DTYPE_FLOAT32, 1),
                *out = twin_random(t, batch * tokens * dim, t->dtype, 1);
    TWINS_RUN_OP(t, embed_forward, .out = SIDE(out), .projected = SIDE(projected), .cls = SIDE(cls),
                 .position = SIDE(position), .batch = batch, .patches = patches, .dim = dim);
    assert_twins_agree(t, "out", out, twins_bound(t));
    struct twin *out_gradient = twin_random(t, batch * tokens * dim, t->dtype, 1);
    TWINS_RUN_OP(t, embed_backward, .projected_gradient = SIDE(projected), .cls_gradient = SIDE(cls),
                 .position_gradient = SIDE(position), .out_gradient = SIDE(out_gradient), .batch = batch,
                 .patches = patches, .dim = dim);
    assert_twins_agree(t, "projected_gradient", projected, 0);
    assert_twins_agree(t, "cls_gradient", cls, 1e-5);
    assert_twins_agree(t, "position_gradient", position, 1e-5);
}

static void embed_trial(struct twins *t)
{
    embed_of(t, random_between(t, 1, 9), random_between(t, 1, 80), random_dim(t));
}

/* The backward pass cuts such batches into parts. */
static void large_batch_trial(struct twins *t)
{
    embed_of(t, random_between(t, 65, 700), random_between(t, 1, 5), random_dim(t));
}

static void cls_trial(struct twins *t)
{
    size_t batch = random_between(t, 1, 9), tokens = random_between(t, 1, 80), dim = random_dim(t);
    struct twin *all = twin_random(t, batch * tokens * dim, t->dtype, 1),
                *rows = twin_random(t, batch * dim, t->dtype, 1);
    TWINS_RUN(t, cls_gather, SIDE(rows), SIDE(all), batch, tokens, dim);
    assert_twins_agree(t, "gathered", rows, 0);
    TWINS_RUN(t, cls_scatter, SIDE(all), SIDE(rows), batch, tokens, dim);
    assert_twins_agree(t, "scattered", all, 0);
    struct twin *sum = twin_random(t, batch * tokens * dim, t->dtype, 1);
    TWINS_RUN(t, cls_add, SIDE(sum), SIDE(rows), batch, tokens, dim);
    assert_twins_agree(t, "added", sum, twins_bound(t));
}

/* One inside the picture, or none. */
static struct pixel_box random_box(struct twins *t, size_t height, size_t width)
{
    struct pixel_box box = {(int32_t)random_between(t, 0, height - 1), (int32_t)random_between(t, 0, width - 1), 0, 0};
    if (random_between(t, 0, 2)) {
        box.height = (int32_t)random_between(t, 0, height - (size_t)box.top);
        box.width = (int32_t)random_between(t, 0, width - (size_t)box.left);
    }
    return box;
}

static void patches_trial(struct twins *t)
{
    enum { MOST_IMAGES = 5 };
    static const size_t sizes[] = {4, 5, 8, 14, 16};
    size_t batch = random_between(t, 1, MOST_IMAGES), rows = random_between(t, 1, 7), columns = random_between(t, 1, 7);
    size_t patch = sizes[random_between(t, 0, 4)], channels = random_between(t, 1, 4), patches = rows * columns;
    size_t count = batch * patches * patch * patch * channels;
    uint8_t *bytes = malloc(count);
    int32_t others[MOST_IMAGES];
    uint64_t samples[MOST_IMAGES];
    struct pixel_box boxes[MOST_IMAGES], erased_boxes[MOST_IMAGES];
    bool pairs = random_between(t, 0, 1); /* which one block writes; an odd batch has one that is its own partner */
    assert_non_null(bytes);
    for (size_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)random_word(t);
    for (size_t i = 0; i < batch; i++) {
        others[i] = (int32_t)(pairs ? batch - 1 - i : random_between(t, 0, batch - 1));
        samples[i] = random_word(t);
        boxes[i] = random_box(t, rows * patch, columns * patch);
        erased_boxes[i] = random_box(t, rows * patch, columns * patch);
    }
    bool mixed = random_between(t, 0, 1), erased = random_between(t, 0, 1);
    struct twin *pixels = twin_raw(t, bytes, count), *out = twin_random(t, count, t->dtype, 1),
                *scale = twin_random(t, channels, DTYPE_FLOAT32, 0.02),
                *shift = twin_random(t, channels, DTYPE_FLOAT32, 2),
                *partner = mixed ? twin_raw(t, others, batch * sizeof *others) : NULL,
                *box = mixed ? twin_raw(t, boxes, batch * sizeof *boxes) : NULL,
                *weight = mixed ? twin_random(t, batch, DTYPE_FLOAT32, 1) : NULL,
                *erase = erased ? twin_raw(t, erased_boxes, batch * sizeof *erased_boxes) : NULL,
                *sample = erased ? twin_raw(t, samples, batch * sizeof *samples) : NULL;
    TWINS_RUN_OP(t, patches_normalise, .out = SIDE(out), .pixels = SIDE(pixels), .scale = SIDE(scale),
                 .shift = SIDE(shift), .erase = SIDE(erase), .sample = SIDE(sample), .seed = 3,
                 .partner = SIDE(partner), .weight = SIDE(weight), .box = SIDE(box), .batch = batch, .patches = patches,
                 .columns = columns, .patch = patch, .channels = channels);
    assert_twins_agree(t, "out", out, twins_bound(t));
    free(bytes);
}

#define MATCHES_CPU(name, trials)                \
    static void name##_matches_cpu(void **state) \
    {                                            \
        (void)state;                             \
        twins_each(name##_trial, trials);        \
    }
MATCHES_CPU(gelu, 16)
MATCHES_CPU(gelu_again, 16)
MATCHES_CPU(embed, 16)
MATCHES_CPU(large_batch, 4)
MATCHES_CPU(cls, 8)
MATCHES_CPU(patches, 24)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gelu_matches_cpu),  cmocka_unit_test(gelu_again_matches_cpu),
        cmocka_unit_test(embed_matches_cpu), cmocka_unit_test(large_batch_matches_cpu),
        cmocka_unit_test(cls_matches_cpu),   cmocka_unit_test(patches_matches_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
