/* The loader among damaged images and files: what is skipped is counted and named the same, whatever the threads do. */
#include "tests/unit/brief.h"
#include "tests/unit/jpeg_test.h"

#include <unistd.h>

#include "data_loaders/load/loader.h"
#include "data_loaders/load/sample.h"

enum { SIDE = 16, PATCH = 4, IMAGE_BYTES = SIDE * SIDE * 3 };

static struct loader_options options_for(const struct dataset *dataset, size_t batch, size_t workers)
{
    return (struct loader_options){.dataset = dataset,
                                   .image_size = SIDE,
                                   .patch_size = PATCH,
                                   .world_size = 1,
                                   .batch = batch,
                                   .accumulate = 1,
                                   .workers = workers,
                                   .prefetch = 2};
}

/* `count` small pictures, but those of slow_from .. slow_end - 1, which take a thousand times as long; image i is cut
 * in half where damaged[i] is 'x'. */
static void open_damaged(struct dataset *dataset, const char *damaged, size_t slow_from, size_t slow_end)
{
    const size_t count = strlen(damaged), side = test_is_brief() ? 150 : 700;
    const struct picture_size small = {SIDE, SIDE}, large = {side, side};
    const char *path = scratch_path("damaged.h5");
    uint8_t *pixels = draw_picture(side, side, 1);
    unsigned long small_bytes = 0, large_bytes = 0, *bytes = calloc(count, sizeof *bytes);
    unsigned char *small_stream = encode_picture(pixels, small, 0, &small_bytes);
    unsigned char *large_stream = encode_picture(pixels, large, 0, &large_bytes);
    unsigned char **streams = calloc(count, sizeof *streams);
    for (size_t i = 0; i < count; i++) {
        bool slow = i >= slow_from && i < slow_end;
        streams[i] = slow ? large_stream : small_stream;
        bytes[i] = (slow ? large_bytes : small_bytes) / (damaged[i] == 'x' ? 2 : 1);
    }
    write_streams(path, streams, bytes, count, 3);
    assert_ok(dataset_open(dataset, path, error));
    tjFree(small_stream);
    tjFree(large_stream);
    free(streams);
    free(bytes);
    free(pixels);
}

/* Three workers take four images each; those that take the first or the last four end long after the others. */
static void the_first_damaged_image_is_named_whoever_is_faster(void **state)
{
    (void)state;
    for (size_t slow = 0; slow <= 8; slow += 4) {
        struct dataset dataset;
        struct loader *loader;
        struct batch *batch;
        open_damaged(&dataset, "...x.x...x..", slow, slow + 4);
        struct loader_options options = options_for(&dataset, 12, 3);
        assert_ok(loader_open(&loader, &options, error));
        for (size_t i = 0; i < 2; i++) {
            assert_ok(loader_next(loader, &batch, NULL, error));
            assert_int_equal(batch->skipped, 3);
            assert_int_equal(batch->skipped_image, 3);
            loader_release(loader, batch);
        }
        loader_close(loader);
        options.strict = true;
        assert_ok(loader_open(&loader, &options, error));
        for (size_t i = 0; i < 2; i++) /* it goes on saying so */
            assert_refused(loader_next(loader, &batch, NULL, error), ERROR_INPUT, "image 3 is a damaged JPEG stream");
        assert_null(batch);
        loader_close(loader);
        dataset_close(&dataset);
    }
}

/* Many small batches in few buffers: counts begin at 0 in each, and no thread's is lost. Without damage there is none.
 */
static void every_batch_is_counted_anew(void **state)
{
    (void)state;
    enum { BATCH = 12 };
    const size_t steps = test_is_brief() ? 12 : 300;
    struct dataset dataset;
    struct loader *loader;
    struct batch *batch;
    open_damaged(&dataset, "..x.........x..xx.......xxxxxxxxxxx.", 0, 0);
    const size_t skipped[3] = {1, 3, 11}, first[3] = {2, 12, 24};
    for (size_t workers = 1; workers <= 8; workers += 7) {
        struct loader_options options = options_for(&dataset, BATCH, workers);
        options.steps = steps;
        assert_ok(loader_open(&loader, &options, error));
        for (size_t step = 0; step < steps; step++) {
            assert_ok(loader_next(loader, &batch, NULL, error));
            assert_int_equal(batch->skipped, skipped[step % 3]);
            assert_int_equal(batch->skipped_image, first[step % 3]);
            assert_int_equal(batch->count, BATCH);
            for (size_t i = 0; i < BATCH; i++)
                assert_int_equal(batch->positions[i], step * BATCH + i);
            loader_release(loader, batch);
        }
        assert_ok(loader_next(loader, &batch, NULL, error));
        assert_null(batch);
        loader_close(loader);
    }
    dataset_close(&dataset);
}

/* By the next whole image, over the end of the file to its start, with that one's label and at its own position. */
static void the_next_whole_image_replaces_a_damaged_one(void **state)
{
    (void)state;
    struct dataset dataset;
    struct loader *loader;
    struct batch *batch;
    open_damaged(&dataset, "x...xx...xx", 0, 0);
    const uint64_t images[11] = {1, 1, 2, 3, 6, 6, 6, 7, 8, 1, 1};
    struct loader_options options = options_for(&dataset, 11, 2);
    assert_ok(loader_open(&loader, &options, error));
    assert_ok(loader_next(loader, &batch, NULL, error));
    assert_int_equal(batch->skipped, 5);
    assert_int_equal(batch->skipped_image, 0);
    for (size_t i = 0; i < 11; i++) {
        assert_int_equal(batch->images[i], images[i]);
        assert_int_equal(batch->labels[i], images[i] % 2);
        assert_int_equal(batch->positions[i], i);
        assert_memory_equal(batch->patches + i * IMAGE_BYTES, batch->patches + IMAGE_BYTES, IMAGE_BYTES);
    }
    loader_release(loader, batch);
    loader_close(loader);
    dataset_close(&dataset);
}

/* Whole or a replacement, a sample is what its image gives at its position under the run's seed. */
static void samples_are_drawn_at_their_own_positions(void **state)
{
    (void)state;
    enum { COUNT = 24 };
    const struct augment augment = {.flip = true, .crop_padding = 3};
    struct dataset dataset;
    struct loader *loader;
    struct batch *batch;
    struct sample_maker *maker;
    uint8_t expected[IMAGE_BYTES];
    open_damaged(&dataset, "..xx..x.....", 0, 0);
    struct loader_options options = options_for(&dataset, COUNT, 2);
    options.augment = augment;
    options.seed = 11;
    const struct sample_options alone = {
        .dataset = &dataset, .image_size = SIDE, .patch_size = PATCH, .seed = 11, .augment = augment};
    assert_ok(sample_maker_open(&maker, &alone, error));
    assert_ok(loader_open(&loader, &options, error));
    assert_ok(loader_next(loader, &batch, NULL, error));
    for (size_t i = 0; i < COUNT; i++) {
        assert_ok(sample_make(maker, expected, batch->images[i], batch->positions[i], error));
        assert_memory_equal(batch->patches + i * IMAGE_BYTES, expected, IMAGE_BYTES);
    }
    loader_close(loader);
    sample_maker_close(maker);
    dataset_close(&dataset);
}

/* 64 images after a damaged one are tried. */
static void a_file_that_is_hardly_whole_is_given_up(void **state)
{
    (void)state;
    for (size_t damaged = 64; damaged <= 65; damaged++) {
        struct dataset dataset;
        struct loader *loader;
        struct batch *batch;
        char marks[70] = {0};
        memset(marks, 'x', damaged);
        strcat(marks, ".");
        open_damaged(&dataset, marks, 0, 0);
        struct loader_options options = options_for(&dataset, 1, 1);
        assert_ok(loader_open(&loader, &options, error));
        if (damaged == 64) {
            assert_ok(loader_next(loader, &batch, NULL, error));
            assert_int_equal(batch->images[0], 64);
        } else {
            assert_refused(loader_next(loader, &batch, NULL, error), ERROR_INPUT, "is a damaged JPEG stream");
        }
        loader_close(loader);
        dataset_close(&dataset);
    }
}

static void an_evaluation_leaves_damaged_images_out(void **state)
{
    (void)state;
    struct dataset dataset;
    struct loader *loader;
    struct batch *batch;
    static const uint8_t black[IMAGE_BYTES];
    const char *marks = "x..x..x...x";
    open_damaged(&dataset, marks, 0, 0);
    struct loader_options options = options_for(&dataset, 4, 2);
    options.evaluation = true;
    const size_t skipped[3] = {2, 1, 1}, first[3] = {0, 6, 10}, counts[3] = {4, 4, 3};
    assert_ok(loader_open(&loader, &options, error));
    for (size_t b = 0; b < 3; b++) {
        assert_ok(loader_next(loader, &batch, NULL, error));
        assert_int_equal(batch->count, counts[b]);
        assert_int_equal(batch->skipped, skipped[b]);
        assert_int_equal(batch->skipped_image, first[b]);
        for (size_t i = 0; i < counts[b]; i++) {
            size_t image = b * 4 + i;
            bool whole = marks[image] == '.';
            assert_int_equal(batch->images[i], whole ? image : BATCH_LEFT_OUT);
            assert_int_equal(batch->positions[i], image);
            assert_int_equal(batch->labels[i], image % 2);
            assert_int_equal(memcmp(batch->patches + i * IMAGE_BYTES, black, IMAGE_BYTES) == 0, !whole);
        }
        loader_release(loader, batch);
    }
    assert_ok(loader_next(loader, &batch, NULL, error));
    assert_null(batch);
    loader_close(loader);
    dataset_close(&dataset);
}

/* That is no damaged image, and is never skipped. */
static void a_file_that_cannot_be_read_any_more_ends_the_run(void **state)
{
    (void)state;
    for (int evaluation = 0; evaluation <= 1; evaluation++) {
        struct dataset dataset;
        struct loader *loader;
        struct batch *batch;
        char path[128];
        snprintf(path, sizeof path, "%s", scratch_path("shorter.h5"));
        write_shapes(path, ENCODING_RAW, 8, SIDE, SIZE_MAX);
        assert_ok(dataset_open(&dataset, path, error));
        assert_int_equal(truncate(path, (off_t)dataset.offsets[5] + 100), 0);
        struct loader_options options = options_for(&dataset, 4, 1);
        options.evaluation = evaluation;
        assert_ok(loader_open(&loader, &options, error));
        assert_ok(loader_next(loader, &batch, NULL, error));
        loader_release(loader, batch);
        assert_refused(loader_next(loader, &batch, NULL, error), ERROR_RUNTIME, "image 5 cannot be read");
        loader_close(loader);
        dataset_close(&dataset);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_damaged_image_is_named_whoever_is_faster),
        cmocka_unit_test(every_batch_is_counted_anew),
        cmocka_unit_test(the_next_whole_image_replaces_a_damaged_one),
        cmocka_unit_test(samples_are_drawn_at_their_own_positions),
        cmocka_unit_test(a_file_that_is_hardly_whole_is_given_up),
        cmocka_unit_test(an_evaluation_leaves_damaged_images_out),
        cmocka_unit_test(a_file_that_cannot_be_read_any_more_ends_the_run),
    };
    alarm(test_is_brief() ? 550 : 120); /* what goes wrong among threads mostly hangs */
    return cmocka_run_group_tests_name("loader_damage", tests, make_scratch, remove_scratch);
}
