/* Samples: the pixels of the right part of the right image, however much of it was decoded and at which scale. */
#include "tests/unit/brief.h"
#include "tests/unit/jpeg_test.h"

#include <malloc.h>

#include "data_loaders/format/image_read.h"
#include "data_loaders/load/sample.h"
#include "tests/unit/resample_reference.h"

enum { PATCH = 4, LARGEST = 64 };
static const struct picture_size sizes[] = {{300, 400}, {257, 400}, {400, 257}, {64, 90}, {100, 70}, {32, 32}};
enum { PICTURES = sizeof sizes / sizeof *sizes };
static struct dataset pictures;

/* Whatever a sample does not decode is white in it: fresh memory is full of 0xfe. */
static void make_sample(const struct sample_options *options, uint8_t *patches, size_t image, uint64_t position)
{
    struct sample_maker *maker;
    mallopt(M_PERTURB, 0x01);
    assert_ok(sample_maker_open(&maker, options, error));
    assert_ok(sample_make(maker, patches, image, position, error));
    sample_maker_close(maker);
    mallopt(M_PERTURB, 0);
}

/* Pixel (y, x), channel c of a picture that was cut into patches. */
static uint8_t patch_pixel(const uint8_t *patches, size_t size, size_t y, size_t x, size_t c)
{
    size_t patch = y / PATCH * (size / PATCH) + x / PATCH;
    return patches[((patch * PATCH + y % PATCH) * PATCH + x % PATCH) * 3 + c];
}

/* Pixels that `length` become when decoded at 1/denominator. */
static double scaled(double length, double denominator)
{
    return ceil(length / denominator);
}

/* The part that a sample shows of a picture decoded smaller: where the picture's sides are no multiples of the scale
 * its last pixels stand for less, and the part is measured as if all stood for the same. */
static struct rectangle shown_part(const struct pixels *whole, const struct rectangle *part, size_t size)
{
    double height = (double)whole->height, width = (double)whole->width, denominator = 8;
    while (denominator > 1 && (scaled(height, denominator) * part->height / height < (double)size ||
                               scaled(width, denominator) * part->width / width < (double)size))
        denominator /= 2;
    double stretch_y = scaled(height, denominator) * denominator / height;
    double stretch_x = scaled(width, denominator) * denominator / width;
    return (struct rectangle){part->top * stretch_y, part->left * stretch_x, part->height * stretch_y,
                              part->width * stretch_x};
}

/* The sample against a whole decode and a resize in float64. Scaling in the decoder and the triangle after it blur a
 * little differently. */
static void compare(const struct sample_options *options, const struct pixels *whole, const struct view *view,
                    const uint8_t *patches)
{
    const size_t size = options->image_size;
    const bool streams = options->dataset->encoding == ENCODING_JPEG;
    struct rectangle part = streams ? shown_part(whole, &view->part, size) : view->part;
    double sum = 0, most = 0;
    for (size_t i = 0; i < size * size * 3; i++) {
        size_t y = i / 3 / size, x = i / 3 % size, c = i % 3;
        ptrdiff_t from_y = (ptrdiff_t)y + view->shift_y;
        ptrdiff_t from_x = (ptrdiff_t)(view->flip ? size - 1 - x : x) + view->shift_x;
        bool inside = from_y >= 0 && from_x >= 0 && from_y < (ptrdiff_t)size && from_x < (ptrdiff_t)size;
        double expected = inside ? resample_reference(whole, &part, size, (size_t)from_y, (size_t)from_x, c) : 0;
        double off = fabs(patch_pixel(patches, size, y, x, c) - expected);
        sum += off;
        most = fmax(most, off);
    }
    if (!(sum / (double)(size * size * 3) < (streams ? 1 : 0.3) && most < (streams ? 4 : 0.6)))
        fail_msg("%zu x %zu to %zu, part %g %g %g %g: off by %.2f on average, by %.1f at most", whole->height,
                 whole->width, size, view->part.top, view->part.left, view->part.height, view->part.width,
                 sum / (double)(size * size * 3), most);
}

/* Image `image` at `positions` positions. */
static void check_samples(const struct sample_options *options, size_t image, uint64_t positions)
{
    struct image_reader *reader;
    struct pixels whole;
    size_t height, width;
    uint8_t patches[LARGEST * LARGEST * 3];
    if (test_is_brief() && positions > 1)
        positions = 1;
    assert_ok(image_reader_open(&reader, options->dataset, error));
    assert_ok(image_load(reader, image, &height, &width, error));
    assert_ok(image_decode(reader, NULL, 0, &whole, error));
    for (uint64_t position = 0; position < positions; position++) {
        struct view view = options->evaluation
                               ? view_centred(height, width)
                               : view_augmented(&options->augment, options->seed, position, height, width);
        make_sample(options, patches, image, position);
        compare(options, &whole, &view, patches);
    }
    image_reader_close(reader);
}

static void centred_samples_match_a_whole_decode(void **state)
{
    (void)state;
    for (size_t size = 16; size <= (test_is_brief() ? 16 : LARGEST); size += 16)
        for (size_t image = 0; image < PICTURES; image++) {
            struct sample_options options = {
                .dataset = &pictures, .image_size = size, .patch_size = PATCH, .evaluation = true};
            check_samples(&options, image, 1);
        }
}

/* The positions' crops lie at every edge and at none, and are decoded at every scale. */
static void crops_match_a_whole_decode(void **state)
{
    (void)state;
    const struct augment augment = {
        .flip = true, .random_resized_crop = true, .crop_scale_min = 0.08, .crop_scale_max = 1};
    for (size_t size = 16; size <= (test_is_brief() ? 16 : LARGEST); size *= 2)
        for (size_t image = 0; image < PICTURES; image++) {
            struct sample_options options = {
                .dataset = &pictures, .image_size = size, .patch_size = PATCH, .seed = 7, .augment = augment};
            check_samples(&options, image, 12);
        }
}

static void an_evaluation_knows_no_augmentation(void **state)
{
    (void)state;
    const struct augment augment = {
        .flip = true, .crop_padding = 4, .random_resized_crop = true, .crop_scale_min = 0.08, .crop_scale_max = 0.5};
    struct sample_options options = {
        .dataset = &pictures, .image_size = 32, .patch_size = PATCH, .evaluation = true, .augment = augment};
    check_samples(&options, 0, 4);
}

/* Resized, then shifted: zeros come in at two sides. */
static void shifts_are_of_the_resized_picture(void **state)
{
    (void)state;
    const struct augment augment = {.flip = true, .crop_padding = 5};
    for (size_t image = 0; image < PICTURES; image++) {
        struct sample_options options = {
            .dataset = &pictures, .image_size = 32, .patch_size = PATCH, .seed = 7, .augment = augment};
        check_samples(&options, image, 8);
    }
}

/* Raw images larger than the model's: the centre as it is where it fits, resized where it does not. */
static void raw_images_are_cut_and_resized(void **state)
{
    (void)state;
    enum { HEIGHT = 36, WIDTH = 52 };
    const struct dataset_layout layout = {
        .encoding = ENCODING_RAW, .height = HEIGHT, .width = WIDTH, .channels = 3, .classes = 2};
    const char *path = scratch_path("raw.h5");
    struct dataset raw;
    struct dataset_writer *writer;
    assert_ok(dataset_writer_open(&writer, path, &layout, true, error));
    for (size_t i = 0; i < 2; i++) {
        struct pixel_sums sums = {0};
        uint8_t *pixels = draw_picture(HEIGHT, WIDTH, i);
        pixel_sums_add(&sums, &(struct pixels){pixels, HEIGHT, WIDTH, 3, WIDTH * 3});
        assert_ok(dataset_writer_append(writer, pixels, HEIGHT * WIDTH * 3, 0, &sums, error));
        free(pixels);
    }
    assert_ok(dataset_writer_finish(writer, error));
    assert_ok(dataset_open(&raw, path, error));
    for (size_t size = 20; size <= HEIGHT; size += 8)
        for (int crop = 0; crop <= 1; crop++) {
            struct sample_options options = {.dataset = &raw, .image_size = size, .patch_size = PATCH, .seed = 3};
            options.augment =
                (struct augment){.flip = true, .random_resized_crop = crop, .crop_scale_min = 0.3, .crop_scale_max = 1};
            check_samples(&options, 1, 6);
        }
    /* Where nothing is resized not a number changes. */
    struct sample_options options = {.dataset = &raw, .image_size = HEIGHT, .patch_size = PATCH, .evaluation = true};
    uint8_t patches[HEIGHT * HEIGHT * 3], *pixels = draw_picture(HEIGHT, WIDTH, 1);
    make_sample(&options, patches, 1, 0);
    for (size_t i = 0; i < sizeof patches; i++) {
        size_t y = i / 3 / HEIGHT, x = i / 3 % HEIGHT;
        assert_int_equal(patch_pixel(patches, HEIGHT, y, x, i % 3), pixels[(y * WIDTH + x + 8) * 3 + i % 3]);
    }
    free(pixels);
    dataset_close(&raw);
}

/* A pixel a patch is the least, either way. */
static void images_under_the_patch_grid_are_named(void **state)
{
    (void)state;
    const struct picture_size thin[] = {{2, 100}, {100, 2}, {3, 100}, {100, 3}, {4, 100}, {100, 4}, {4, 4}};
    const char *path = scratch_path("thin.h5");
    struct dataset dataset;
    struct sample_maker *maker;
    uint8_t patches[16 * 16 * 3];
    write_pictures(path, thin, 7);
    assert_ok(dataset_open(&dataset, path, error));
    struct sample_options options = {.dataset = &dataset, .image_size = 16, .patch_size = 4, .evaluation = true};
    assert_ok(sample_maker_open(&maker, &options, error));
    assert_refused(sample_make(maker, patches, 0, 0, error), ERROR_INPUT, "image 0 has 100 x 2 pixels");
    assert_refused(sample_make(maker, patches, 1, 0, error), ERROR_INPUT, "image 1 has 2 x 100 pixels");
    assert_refused(sample_make(maker, patches, 2, 0, error), ERROR_INPUT, "but the patch grid is 4 x 4");
    assert_refused(sample_make(maker, patches, 3, 0, error), ERROR_INPUT, "but the patch grid is 4 x 4");
    for (size_t i = 4; i < 7; i++)
        assert_ok(sample_make(maker, patches, i, 0, error));
    sample_maker_close(maker);
    dataset_close(&dataset);
}

static size_t bytes_in_use(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

/* After the first time, from which libraries may keep some. */
static void a_maker_that_is_closed_keeps_no_memory(void **state)
{
    (void)state;
    enum { TIMES = 20 };
    struct sample_options options = {.dataset = &pictures, .image_size = 32, .patch_size = PATCH, .evaluation = true};
    uint8_t patches[32 * 32 * 3];
    make_sample(&options, patches, 0, 0);
    size_t before = bytes_in_use();
    for (int time = 0; time < TIMES; time++)
        make_sample(&options, patches, 0, 0);
    assert_true(bytes_in_use() < before + TIMES * 100);
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
        cmocka_unit_test(centred_samples_match_a_whole_decode),
        cmocka_unit_test(crops_match_a_whole_decode),
        cmocka_unit_test(an_evaluation_knows_no_augmentation),
        cmocka_unit_test(shifts_are_of_the_resized_picture),
        cmocka_unit_test(raw_images_are_cut_and_resized),
        cmocka_unit_test(images_under_the_patch_grid_are_named),
        cmocka_unit_test(a_maker_that_is_closed_keeps_no_memory),
    };
    return cmocka_run_group_tests_name("sample", tests, open_pictures, close_pictures);
}
