/* Samples that are composed as torchvision and timm do: the same numbers as the transforms give one after the other on
 * the whole picture. */
#include "tests/unit/brief.h"
#include "tests/unit/jpeg_test.h"

#include "data_loaders/format/image_read.h"
#include "data_loaders/image/resize.h"
#include "data_loaders/load/loader.h"
#include "data_loaders/load/sample.h"
#include "data_loaders/load/three_augment.h"
#include "src/base/random.h"

enum { SIZE = 32, PATCH = 4, BYTES = SIZE * SIZE * 3, POSITIONS = 24, SEED = 5 };
static const struct picture_size sizes[] = {{60, 80}, {57, 40}, {33, 90}, {32, 32}, {301, 219}};
enum { PICTURES = sizeof sizes / sizeof *sizes, LARGE = PICTURES - 1 };
static struct dataset pictures;

struct expected {
    uint8_t pixels[BYTES + PIXELS_SLACK_BYTES], other[BYTES + PIXELS_SLACK_BYTES];
};

/* `window` of `source` as Pillow resizes it. */
static void shrink(uint8_t *out, const struct pixels *source, const struct resize_window *window,
                   enum interpolation interpolation)
{
    struct resizer *resizer = resizer_open();
    assert_true(resize(resizer, out, window, source,
                       interpolation == INTERPOLATION_BICUBIC ? RESIZE_BICUBIC : RESIZE_BILINEAR));
    resizer_close(resizer);
}

static void expect_crop(struct expected *expected, const struct augment *augment, const struct pixels *whole,
                        uint64_t position)
{
    struct box box = crop_drawn(augment, SEED, position, whole->height, whole->width);
    struct pixels part = {whole->bytes + box.top * whole->stride + 3 * box.left, box.height, box.width, 3,
                          whole->stride};
    struct resize_window window = resize_window_whole(SIZE, SIZE);
    shrink(expected->pixels, &part, &window, augment->interpolation);
}

/* The whole resized picture, padded by four reflected pixels, and a square of it. */
static void expect_simple_crop(struct expected *expected, const struct augment *augment, const struct pixels *whole,
                               uint64_t position)
{
    struct resize_window window = resize_window_centred(whole->height, whole->width, SIZE, 1);
    const long height = (long)window.height, width = (long)window.width;
    window = resize_window_whole(window.height, window.width);
    uint8_t *resized = malloc((size_t)(height * width) * 3 + PIXELS_SLACK_BYTES);
    shrink(resized, whole, &window, augment->interpolation);
    struct random_words words = random_draw(SEED, RANDOM_AUGMENT, position, 0);
    long top = (long)random_below(words.word[1], (uint32_t)(height + 8 - SIZE + 1));
    long left = (long)random_below(words.word[2], (uint32_t)(width + 8 - SIZE + 1));
    for (long i = 0; i < BYTES; i++) {
        long y = labs(top + i / 3 / SIZE - 4), x = labs(left + i / 3 % SIZE - 4);
        y = y >= height ? 2 * height - 2 - y : y;
        x = x >= width ? 2 * width - 2 - x : x;
        expected->pixels[i] = resized[(y * width + x) * 3 + i % 3];
    }
    free(resized);
}

static void expect_colours(struct expected *expected, const struct augment *augment, uint64_t position)
{
    struct view view = view_augmented(augment, SEED, position, SIZE, SIZE);
    for (size_t i = 0; view.flip && i < BYTES; i++)
        expected->other[i] = expected->pixels[(i / 3 / SIZE * SIZE + SIZE - 1 - i / 3 % SIZE) * 3 + i % 3];
    if (view.flip)
        memcpy(expected->pixels, expected->other, BYTES);
    uint8_t fill[3];
    for (int c = 0; c < 3; c++)
        fill[c] = (uint8_t)rint(255.0 * (double)pictures.mean[c]);
    struct picture picture = {expected->pixels, expected->other, SIZE, SIZE};
    if (augment->three_augment)
        three_augment_apply(&picture, SEED, position);
    if (augment->colour_jitter > 0 && augment->rand_augment.ops == 0)
        colour_jitter_apply(&picture, augment->colour_jitter, SEED, position, false);
    rand_augment_apply(&augment->rand_augment, &picture, fill, SEED, position);
    if (picture.pixels != expected->pixels)
        memcpy(expected->pixels, expected->other, BYTES);
}

static void assert_patches(const uint8_t *patches, const uint8_t *pixels, size_t image, uint64_t position)
{
    for (size_t i = 0; i < BYTES; i++) {
        size_t y = i / 3 / SIZE, x = i / 3 % SIZE, patch = y / PATCH * (SIZE / PATCH) + x / PATCH;
        uint8_t ours = patches[((patch * PATCH + y % PATCH) * PATCH + x % PATCH) * 3 + i % 3];
        if (ours != pixels[i])
            fail_msg("image %zu at %zu: pixel %zu, %zu is %d, not %d", image, (size_t)position, y, x, ours, pixels[i]);
    }
}

static void check(const struct augment *augment, bool evaluation)
{
    struct sample_options options = {.dataset = &pictures,
                                     .image_size = SIZE,
                                     .patch_size = PATCH,
                                     .evaluation = evaluation,
                                     .seed = SEED,
                                     .augment = *augment};
    struct sample_maker *maker;
    struct image_reader *reader;
    uint8_t patches[BYTES];
    struct expected expected;
    assert_ok(sample_maker_open(&maker, &options, error));
    assert_ok(image_reader_open(&reader, &pictures, error));
    for (uint64_t position = 0; position < (test_is_brief() ? 4 : POSITIONS); position++) {
        size_t image = position % PICTURES, height, width;
        struct pixels whole;
        assert_ok(image_load(reader, image, &height, &width, error));
        assert_ok(image_decode(reader, NULL, 0, &whole, error));
        if (evaluation) {
            struct resize_window window =
                resize_window_centred(height, width, SIZE, augment->crop_share > 0 ? augment->crop_share : 1);
            shrink(expected.pixels, &whole, &window, augment->interpolation);
        } else {
            (augment->random_resized_crop ? expect_crop : expect_simple_crop)(&expected, augment, &whole, position);
            expect_colours(&expected, augment, position);
        }
        assert_ok(sample_make(maker, patches, image, position, error));
        assert_patches(patches, expected.pixels, image, position);
    }
    image_reader_close(reader);
    sample_maker_close(maker);
}

static const struct augment crops = {.interpolation = INTERPOLATION_BICUBIC,
                                     .flip = true,
                                     .random_resized_crop = true,
                                     .crop_scale_min = 0.08,
                                     .crop_scale_max = 1};

static void deit_s_transforms(void **state)
{
    (void)state;
    struct augment augment = crops;
    augment.colour_jitter = 0.3; /* inert beside RandAugment */
    assert_ok(rand_augment_parse(&augment.rand_augment, "rand-m9-mstd0.5-inc1", error));
    check(&augment, false);
}

static void deit_iii_s_transforms(void **state)
{
    (void)state;
    struct augment augment = crops;
    augment.three_augment = true;
    augment.colour_jitter = 0.3;
    check(&augment, false);
    augment.random_resized_crop = false;
    augment.simple_crop = true;
    check(&augment, false);
    augment.interpolation = INTERPOLATION_BILINEAR;
    check(&augment, false);
}

static void evaluations(void **state)
{
    (void)state;
    static const double shares[] = {0, 0.875, 0.95, 1};
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        struct augment augment = {.interpolation = INTERPOLATION_BICUBIC, .crop_share = shares[i], .flip = true};
        check(&augment, true);
    }
}

/* The sample at `position` of `image`, its patches. */
static void make_one(uint8_t *patches, const struct augment *augment, size_t image, uint64_t position, bool evaluation)
{
    struct sample_options options = {.dataset = &pictures,
                                     .image_size = SIZE,
                                     .patch_size = PATCH,
                                     .evaluation = evaluation,
                                     .seed = SEED,
                                     .augment = *augment};
    struct sample_maker *maker;
    assert_ok(sample_maker_open(&maker, &options, error));
    assert_ok(sample_make(maker, patches, image, position, error));
    sample_maker_close(maker);
}

/* Where a crop has twice image_size on both sides the stream is decoded at a half or less: of smooth pictures nearly
 * the same pixels, not from elsewhere. Everywhere else they are the same. */
static void reduced_decoding_keeps_place_and_content(void **state)
{
    (void)state;
    struct augment whole = crops, reduced = crops;
    reduced.reduced_decode = true;
    size_t changed = 0;
    for (uint64_t position = 0; position < (test_is_brief() ? 10 : 60); position++) {
        size_t image = position % 5 < 3 ? LARGE : position % PICTURES;
        uint8_t expected[BYTES], patches[BYTES];
        whole.random_resized_crop = reduced.random_resized_crop = position % 4 != 0;
        whole.simple_crop = reduced.simple_crop = position % 8 != 0;
        make_one(expected, &whole, image, position, false);
        make_one(patches, &reduced, image, position, false);
        struct box box = {0, 0, sizes[image].height, sizes[image].width};
        if (whole.random_resized_crop)
            box = crop_drawn(&whole, SEED, position, box.height, box.width);
        if (box.height < 2 * SIZE || box.width < 2 * SIZE) {
            assert_memory_equal(patches, expected, BYTES);
            continue;
        }
        changed += memcmp(patches, expected, BYTES) != 0;
        for (size_t i = 0; i < BYTES; i++)
            if (abs(patches[i] - expected[i]) > 2)
                fail_msg("position %zu: number %zu is %d, not about %d", (size_t)position, i, patches[i], expected[i]);
        make_one(expected, &whole, image, position, true);
        make_one(patches, &reduced, image, position, true);
        assert_memory_equal(patches, expected, BYTES);
    }
    assert_true(changed >= 3);
}

/* All of the first `count` positions, by `ranks` loaders of `workers` threads. */
static void collect(uint8_t *patches, const struct augment *augment, size_t ranks, size_t workers, size_t count)
{
    for (size_t rank = 0; rank < ranks; rank++) {
        struct loader_options options = {.dataset = &pictures,
                                         .image_size = SIZE,
                                         .patch_size = PATCH,
                                         .rank = rank,
                                         .world_size = ranks,
                                         .batch = 4 / ranks,
                                         .accumulate = 1,
                                         .steps = count / 4,
                                         .shuffle = true,
                                         .seed = SEED,
                                         .augment = *augment,
                                         .workers = workers,
                                         .prefetch = 2};
        struct loader *loader;
        struct batch *batch;
        assert_ok(loader_open(&loader, &options, error));
        for (;;) {
            assert_ok(loader_next(loader, &batch, NULL, error));
            if (!batch)
                break;
            for (size_t i = 0; i < batch->count; i++)
                memcpy(patches + batch->positions[i] * BYTES, batch->patches + i * BYTES, BYTES);
            loader_release(loader, batch);
        }
        loader_close(loader);
    }
}

static void ranks_and_workers_do_not_change_the_samples(void **state)
{
    (void)state;
    enum { COUNT = 16 };
    static uint8_t alone[COUNT * BYTES], together[COUNT * BYTES];
    struct augment augment = crops;
    assert_ok(rand_augment_parse(&augment.rand_augment, "rand-m9-n4-p1-mstd0.5-inc1", error));
    collect(alone, &augment, 1, 1, COUNT);
    for (size_t ranks = 1; ranks <= 4; ranks *= 2) {
        memset(together, 0, sizeof together);
        collect(together, &augment, ranks, 3, COUNT);
        assert_memory_equal(alone, together, sizeof alone);
    }
}

static void policies_are_read_or_named(void **state)
{
    (void)state;
    struct rand_augment policy;
    assert_ok(rand_augment_parse(&policy, "rand-m7-n3-p0.25-mstd1.5-mmax8-inc1", error));
    assert_true(policy.magnitude == 7 && policy.ops == 3 && policy.probability == 0.25 && policy.deviation == 1.5 &&
                policy.most == 8 && policy.increasing);
    assert_ok(rand_augment_parse(&policy, "rand-m9-mstd0.5-inc1", error));
    assert_true(policy.ops == 2 && policy.probability == 0.5 && policy.most == 10);
    assert_ok(rand_augment_parse(&policy, "none", error));
    assert_int_equal(policy.ops, 0);
    assert_refused(rand_augment_parse(&policy, "rand-m9-zoom3", error), ERROR_INPUT, "'zoom3' is not known");
    assert_refused(rand_augment_parse(&policy, "rand-m11", error), ERROR_INPUT, "from 0 to 10");
    assert_refused(rand_augment_parse(&policy, "rand-m", error), ERROR_INPUT, "'m': m takes a number");
    assert_refused(rand_augment_parse(&policy, "rand-n99", error), ERROR_INPUT, "from 1 to 8");
    assert_refused(rand_augment_parse(&policy, "rand-mstd", error), ERROR_INPUT, "'mstd'");
    assert_refused(rand_augment_parse(&policy, "augmix-m3", error), ERROR_INPUT, "is no policy");
}

static int open_pictures(void **state)
{
    struct error error;
    if (make_scratch(state) != 0)
        return -1;
    char path[128];
    snprintf(path, sizeof path, "%s", scratch_path("pictures.h5"));
    write_pictures(path, sizes, PICTURES);
    return dataset_open(&pictures, path, &error) ? 0 : -1;
}

static int close_pictures(void **state)
{
    dataset_close(&pictures);
    return remove_scratch(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deit_s_transforms),
        cmocka_unit_test(deit_iii_s_transforms),
        cmocka_unit_test(evaluations),
        cmocka_unit_test(reduced_decoding_keeps_place_and_content),
        cmocka_unit_test(ranks_and_workers_do_not_change_the_samples),
        cmocka_unit_test(policies_are_read_or_named),
    };
    return cmocka_run_group_tests_name("compose", tests, open_pictures, close_pictures);
}
