/* The loader: the same samples on any number of ranks and workers, every image once in an evaluation. */
#include "data_test.h"

#include "data_loaders/loader.h"

enum { IMAGES = 29, SIDE = 16, PATCH = 4, IMAGE_BYTES = SIDE * SIDE * 3 };

static struct dataset dataset;

static struct loader_options training(size_t rank, size_t world_size, size_t batch, size_t workers)
{
    return (struct loader_options){.dataset = &dataset,
                                   .image_size = SIDE,
                                   .patch_size = PATCH,
                                   .rank = rank,
                                   .world_size = world_size,
                                   .batch = batch,
                                   .accumulate = 1,
                                   .shuffle = true,
                                   .seed = 3,
                                   .augment = {.flip = true, .crop_padding = 2},
                                   .workers = workers,
                                   .prefetch = 2};
}

/* Images, labels and patches of the positions that one loader gives, into arrays indexed by position. */
static void collect(const struct loader_options *options, size_t positions, uint64_t *images, uint8_t *patches)
{
    struct loader *loader;
    struct batch *batch;
    assert_ok(loader_open(&loader, options, error));
    for (;;) {
        assert_ok(loader_next(loader, &batch, NULL, error));
        if (!batch)
            break;
        for (size_t i = 0; i < batch->count; i++) {
            uint64_t position = batch->positions[i];
            assert_true(position < positions);
            assert_int_equal(images[position], UINT64_MAX); /* given once */
            images[position] = batch->images[i];
            assert_int_equal(batch->labels[i], dataset.labels[batch->images[i]]);
            memcpy(patches + position * IMAGE_BYTES, batch->patches + i * IMAGE_BYTES, IMAGE_BYTES);
        }
        loader_release(loader, batch);
    }
    loader_close(loader);
}

static void ranks_and_workers_do_not_change_the_samples(void **state)
{
    (void)state;
    enum { POSITIONS = 8 * 10 }; /* 10 steps of 8: over two epochs, batches straddle them */
    const size_t splits[][4] = {
        {1, 8, 1, 1}, {2, 4, 3, 1}, {4, 2, 2, 1}, {2, 2, 2, 2}}; /* ranks, batch, workers, accumulate */
    uint64_t first[POSITIONS], images[POSITIONS];
    uint8_t *first_patches = malloc(POSITIONS * IMAGE_BYTES), *patches = malloc(POSITIONS * IMAGE_BYTES);
    for (size_t s = 0; s < 4; s++) {
        uint64_t *into = s ? images : first;
        memset(into, 0xff, sizeof images);
        for (size_t rank = 0; rank < splits[s][0]; rank++) {
            struct loader_options options = training(rank, splits[s][0], splits[s][1], splits[s][2]);
            options.accumulate = splits[s][3];
            options.steps = 10;
            collect(&options, POSITIONS, into, s ? patches : first_patches);
        }
        if (s == 0)
            continue;
        assert_memory_equal(images, first, sizeof first);
        assert_memory_equal(patches, first_patches, POSITIONS * IMAGE_BYTES);
    }
    free(first_patches);
    free(patches);
}

static void a_resumed_loader_goes_on_where_it_stopped(void **state)
{
    (void)state;
    enum { POSITIONS = 80 };
    uint64_t whole[POSITIONS], parts[POSITIONS];
    uint8_t *whole_patches = malloc(POSITIONS * IMAGE_BYTES), *part_patches = malloc(POSITIONS * IMAGE_BYTES);
    memset(whole, 0xff, sizeof whole);
    memset(parts, 0xff, sizeof parts);
    struct loader_options options = training(0, 1, 8, 2);
    options.steps = 10;
    collect(&options, POSITIONS, whole, whole_patches);
    options.steps = 3;
    collect(&options, POSITIONS, parts, part_patches);
    options.first_step = 3;
    options.steps = 7;
    collect(&options, POSITIONS, parts, part_patches);
    assert_memory_equal(whole, parts, sizeof whole);
    assert_memory_equal(whole_patches, part_patches, POSITIONS * IMAGE_BYTES);
    free(whole_patches);
    free(part_patches);
}

static void evaluation_gives_every_image_once(void **state)
{
    (void)state;
    const size_t worlds[] = {1, 2, 3, 7, 29, 40};
    uint8_t *patches = malloc(IMAGES * IMAGE_BYTES);
    for (size_t w = 0; w < sizeof worlds / sizeof *worlds; w++) {
        uint64_t images[IMAGES];
        memset(images, 0xff, sizeof images);
        for (size_t rank = 0; rank < worlds[w]; rank++) {
            struct loader_options options = training(rank, worlds[w], 4, 2);
            options.evaluation = true;
            collect(&options, IMAGES, images, patches);
        }
        for (size_t i = 0; i < IMAGES; i++)
            assert_int_equal(images[i], i);
    }
    struct synth_options synth = {.images = IMAGES, .size = SIDE, .classes = SYNTH_CLASSES};
    uint8_t pixels[IMAGE_BYTES];
    synth_image(&synth, 11, pixels); /* no augmentation: the first patch's first row is the image's */
    assert_memory_equal(patches + 11 * IMAGE_BYTES, pixels, PATCH * 3);
    free(patches);
}

static void a_damaged_stream_is_skipped_or_named(void **state)
{
    (void)state;
    struct dataset cut;
    struct loader *loader;
    struct batch *batch;
    const char *path = scratch_path("cut.h5");
    write_shapes(path, ENCODING_JPEG, 12, SIDE, 7);
    assert_ok(dataset_open(&cut, path, error));
    struct loader_options options = training(0, 1, 12, 3);
    options.dataset = &cut;
    options.shuffle = false;
    assert_ok(loader_open(&loader, &options, error));
    assert_ok(loader_next(loader, &batch, NULL, error));
    assert_int_equal(batch->skipped, 1);
    assert_int_equal(batch->skipped_image, 7);
    assert_int_equal(batch->images[7], 8);
    assert_int_equal(batch->labels[7], 8);
    loader_release(loader, batch);
    loader_close(loader);
    options.evaluation = true;
    assert_ok(loader_open(&loader, &options, error));
    assert_ok(loader_next(loader, &batch, NULL, error));
    assert_int_equal(batch->skipped, 1);
    for (size_t i = 0; i < 12; i++) {
        assert_int_equal(batch->positions[i], i);
        assert_int_equal(batch->images[i], i == 7 ? BATCH_LEFT_OUT : i);
    }
    loader_release(loader, batch);
    loader_close(loader);
    options.strict = true;
    options.batch = 5;
    assert_ok(loader_open(&loader, &options, error));
    assert_ok(loader_next(loader, &batch, NULL, error));
    loader_release(loader, batch);
    assert_refused(loader_next(loader, &batch, NULL, error), ERROR_INPUT, "image 7 is a damaged JPEG stream");
    loader_close(loader);
    dataset_close(&cut);
}

static void images_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct loader *loader;
    struct loader_options options = training(0, 1, 4, 1);
    options.image_size = 32;
    assert_refused(loader_open(&loader, &options, error), ERROR_INPUT, "the patch grid covers 32 x 32");
    options.image_size = 15;
    assert_refused(loader_open(&loader, &options, error), ERROR_INPUT, "not a multiple of patch_size");
    options = training(1, 1, 4, 1);
    assert_refused(loader_open(&loader, &options, error), ERROR_INPUT, "rank 1 of 1");
}

static int open_shapes(void **state)
{
    if (make_scratch(state) != 0)
        return -1;
    struct error error;
    char path[128];
    snprintf(path, sizeof path, "%s", scratch_path("shapes.h5"));
    write_shapes(path, ENCODING_RAW, IMAGES, SIDE, SIZE_MAX);
    return dataset_open(&dataset, path, &error) ? 0 : -1;
}

static int close_shapes(void **state)
{
    dataset_close(&dataset);
    return remove_scratch(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_and_workers_do_not_change_the_samples),
        cmocka_unit_test(a_resumed_loader_goes_on_where_it_stopped),
        cmocka_unit_test(evaluation_gives_every_image_once),
        cmocka_unit_test(a_damaged_stream_is_skipped_or_named),
        cmocka_unit_test(images_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests_name("loader", tests, open_shapes, close_shapes);
}
