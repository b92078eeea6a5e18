/* patches_normalise on the CPU against float64. */
#include "tests/unit/op_test.h"

static void trial(struct op_test *test)
{
    struct error error;
    size_t batch = random_between(test, 1, 6), patches = random_between(test, 1, 20),
           patch = random_between(test, 1, 16);
    size_t channels = random_between(test, 0, 3) ? 3 : 1, area = patch * patch, patch_dim = area * channels;
    size_t count = batch * patches * patch_dim;
    uint8_t *pixels = malloc(count);
    int32_t *partner = malloc(batch * sizeof *partner);
    bool mixed = random_between(test, 0, 1);
    for (size_t i = 0; i < count; i++)
        pixels[i] = (uint8_t)random_bits(test);
    for (size_t b = 0; b < batch; b++)
        partner[b] = (int32_t)random_between(test, 0, batch - 1);
    struct tensor *scale = tensor_random(test, channels, DTYPE_FLOAT32, 0.02);
    struct tensor *shift = tensor_random(test, channels, DTYPE_FLOAT32, 2);
    struct tensor *weight = tensor_random(test, batch * patches, DTYPE_FLOAT32, 1);
    struct tensor *out = tensor_zeros(test, count, test->dtype);
    struct patches_normalise normalise = {.out = out->data,
                                          .pixels = pixels,
                                          .scale = scale->data,
                                          .shift = shift->data,
                                          .partner = mixed ? partner : NULL,
                                          .weight = mixed ? weight->data : NULL,
                                          .batch = batch,
                                          .patches = patches,
                                          .patch = patch,
                                          .channels = channels};
    assert_ok(test->k->patches_normalise(test->ctx, &normalise, &error), &error);
    for (size_t b = 0; b < batch; b++)
        for (size_t p = 0; p < patches; p++)
            for (size_t c = 0; c < channels; c++)
                for (size_t i = 0; i < area; i++) {
                    size_t inside = p * patch_dim + i * channels + c;
                    double value = pixels[b * patches * patch_dim + inside];
                    double w = weight->exact[b * patches + p];
                    if (mixed)
                        value = w * value + (1 - w) * pixels[(size_t)partner[b] * patches * patch_dim + inside];
                    out->exact[(b * patches + p) * patch_dim + c * area + i] =
                        value * scale->exact[c] + shift->exact[c];
                }
    assert_close("out", out, out->exact, tolerance(test->dtype));
    free(partner);
    free(pixels);
}

static void matches_float64(void **state)
{
    (void)state;
    op_test_each(trial, 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(matches_float64)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
