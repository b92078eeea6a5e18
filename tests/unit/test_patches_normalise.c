/* patches_normalise on the CPU against float64: plain, erased, mixed up, cut and mixed. */
#include "tests/unit/op_test.h"

#include "kernels/noise.h"

enum { MOST_IMAGES = 6 };

struct fixture {
    size_t batch, rows, columns, patch, channels;
    uint8_t *pixels;
    int32_t partner[MOST_IMAGES];
    uint64_t sample[MOST_IMAGES];
    struct pixel_box erase[MOST_IMAGES], box[MOST_IMAGES];
    struct tensor *scale, *shift, *weight;
    bool erased, mixed;
};

/* Inside the image; of one in three there is none. */
static struct pixel_box draw_box(struct op_test *test, size_t height, size_t width)
{
    struct pixel_box box = {0};
    if (random_between(test, 0, 2) == 0)
        return box;
    box.top = (int32_t)random_between(test, 0, height - 1);
    box.left = (int32_t)random_between(test, 0, width - 1);
    box.height = (int32_t)random_between(test, 0, height - (size_t)box.top);
    box.width = (int32_t)random_between(test, 0, width - (size_t)box.left);
    return box;
}

static struct fixture draw(struct op_test *test)
{
    struct fixture f = {.batch = random_between(test, 1, MOST_IMAGES),
                        .rows = random_between(test, 1, 5),
                        .columns = random_between(test, 1, 5),
                        .patch = random_between(test, 1, 16),
                        .channels = random_between(test, 0, 3) ? 3 : 1,
                        .erased = random_between(test, 0, 1),
                        .mixed = random_between(test, 0, 1)};
    size_t count = f.batch * f.rows * f.columns * f.patch * f.patch * f.channels;
    f.pixels = malloc(count);
    for (size_t i = 0; i < count; i++)
        f.pixels[i] = (uint8_t)random_word(test);
    for (size_t b = 0; b < f.batch; b++) {
        f.partner[b] = (int32_t)random_between(test, 0, f.batch - 1);
        f.sample[b] = random_word(test);
        f.erase[b] = draw_box(test, f.rows * f.patch, f.columns * f.patch);
        f.box[b] = draw_box(test, f.rows * f.patch, f.columns * f.patch);
    }
    f.scale = tensor_random(test, f.channels, DTYPE_FLOAT32, 0.02);
    f.shift = tensor_random(test, f.channels, DTYPE_FLOAT32, 2);
    f.weight = tensor_random(test, f.batch, DTYPE_FLOAT32, 1);
    return f;
}

static bool inside(const struct pixel_box *box, size_t y, size_t x)
{
    return (int32_t)y >= box->top && (int32_t)y < box->top + box->height && (int32_t)x >= box->left &&
           (int32_t)x < box->left + box->width;
}

static double number(const struct fixture *f, size_t image, size_t y, size_t x, size_t c)
{
    size_t height = f->rows * f->patch, width = f->columns * f->patch;
    if (f->erased && inside(&f->erase[image], y, x))
        return (double)patches_noise(9, f->sample[image], (uint32_t)((c * height + y) * width + x));
    size_t patch = y / f->patch * f->columns + x / f->patch, at = y % f->patch * f->patch + x % f->patch;
    size_t pixel = (image * f->rows * f->columns + patch) * f->patch * f->patch + at;
    return f->pixels[pixel * f->channels + c] * f->scale->exact[c] + f->shift->exact[c];
}

static double expected(const struct fixture *f, size_t image, size_t y, size_t x, size_t c)
{
    const struct pixel_box *box = &f->box[image];
    double own = number(f, image, y, x, c), weight = f->weight->exact[image];
    if (!f->mixed)
        return own;
    double other = number(f, (size_t)f->partner[image], y, x, c);
    if (box->height > 0 && box->width > 0)
        return inside(box, y, x) ? other : own;
    return weight * own + (1 - weight) * other;
}

static void trial(struct op_test *test)
{
    struct error error;
    struct fixture f = draw(test);
    size_t height = f.rows * f.patch, width = f.columns * f.patch, area = f.patch * f.patch;
    struct tensor *out = tensor_zeros(test, f.batch * height * width * f.channels, test->dtype);
    struct patches_normalise normalise = {.out = out->data,
                                          .pixels = f.pixels,
                                          .scale = f.scale->data,
                                          .shift = f.shift->data,
                                          .erase = f.erased ? f.erase : NULL,
                                          .sample = f.erased ? f.sample : NULL,
                                          .seed = 9,
                                          .partner = f.mixed ? f.partner : NULL,
                                          .weight = f.mixed ? f.weight->data : NULL,
                                          .box = f.mixed ? f.box : NULL,
                                          .batch = f.batch,
                                          .patches = f.rows * f.columns,
                                          .columns = f.columns,
                                          .patch = f.patch,
                                          .channels = f.channels};
    assert_ok(test->k->patches_normalise(test->ctx, &normalise, &error), &error);
    for (size_t b = 0; b < f.batch; b++)
        for (size_t c = 0; c < f.channels; c++)
            for (size_t y = 0; y < height; y++)
                for (size_t x = 0; x < width; x++) {
                    size_t patch = (b * f.rows + y / f.patch) * f.columns + x / f.patch;
                    out->exact[(patch * f.channels + c) * area + y % f.patch * f.patch + x % f.patch] =
                        expected(&f, b, y, x, c);
                }
    assert_close("out", out, out->exact, tolerance(test->dtype));
    free(f.pixels);
}

static void matches_float64(void **state)
{
    (void)state;
    op_test_each(trial, 60);
}

/* Mean 0, variance 1, no neighbour like another, another sample's and another seed's as well. */
static void noise_is_standard_normal(void **state)
{
    (void)state;
    enum { COUNT = 200000 };
    double sum = 0, squares = 0, fourths = 0, next = 0, samples = 0, seeds = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        double z = (double)patches_noise(1, 2, i);
        sum += z;
        squares += z * z;
        fourths += z * z * z * z;
        next += z * (double)patches_noise(1, 2, i + 1);
        samples += z * (double)patches_noise(1, 3, i);
        seeds += z * (double)patches_noise(2, 2, i);
    }
    const double bound = 4.5 / sqrt(COUNT);
    assert_true(fabs(sum / COUNT) < bound);
    assert_true(fabs(squares / COUNT - 1) < bound * sqrt(2));
    assert_true(fabs(fourths / COUNT - 3) < bound * sqrt(96));
    assert_true(fabs(next / COUNT) < bound && fabs(samples / COUNT) < bound && fabs(seeds / COUNT) < bound);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(matches_float64), cmocka_unit_test(noise_is_standard_normal)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
