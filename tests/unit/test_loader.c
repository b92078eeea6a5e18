/* The loader (damaged files: test_loader_damage.c): the same samples on any number of ranks and workers, every image
 * once in an evaluation. */
#include "brief.h"
#include "data_test.h"

#include <dirent.h>
#include <signal.h>

#include "data_loaders/load/loader.h"
#include "data_loaders/load/sampler.h"

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

/* Step s, micro-step a, rank r: the positions from s * G + (a * world_size + r) * batch on. */
static void positions_are_as_the_header_says(void **state)
{
    (void)state;
    struct loader_options options = training(2, 3, 4, 2);
    struct sampler sampler = {IMAGES, 3, true, 1, 0};
    struct loader *loader;
    struct batch *batch;
    options.accumulate = 2;
    options.first_step = 5;
    options.steps = 4;
    assert_ok(loader_open(&loader, &options, error));
    for (uint64_t number = 0; number < 4 * 2; number++) {
        assert_ok(loader_next(loader, &batch, NULL, error));
        assert_int_equal(batch->count, 4);
        for (size_t i = 0; i < 4; i++) {
            uint64_t position = (5 + number / 2) * 24 + (number % 2 * 3 + 2) * 4 + i;
            assert_int_equal(batch->positions[i], position);
            assert_int_equal(batch->images[i], sampler_image(&sampler, position));
        }
        loader_release(loader, batch);
    }
    for (int i = 0; i < 2; i++) {
        assert_ok(loader_next(loader, &batch, NULL, error));
        assert_null(batch);
    }
    loader_close(loader);
}

/* Rank r of n has the images from r * IMAGES / n on, in order, in whole batches but for the last. */
static void spans_of_an_evaluation_are_in_order(void **state)
{
    (void)state;
    const size_t begins[4] = {0, 9, 19, 29};
    for (size_t rank = 0; rank < 3; rank++) {
        struct loader_options options = training(rank, 3, 4, 2);
        struct loader *loader;
        struct batch *batch;
        uint64_t next = begins[rank];
        options.evaluation = true;
        options.accumulate = 0; /* there are no steps */
        assert_ok(loader_open(&loader, &options, error));
        for (;;) {
            assert_ok(loader_next(loader, &batch, NULL, error));
            if (!batch)
                break;
            assert_int_equal(batch->count, begins[rank + 1] - next < 4 ? begins[rank + 1] - next : 4);
            for (size_t i = 0; i < batch->count; i++) {
                assert_int_equal(batch->positions[i], next);
                assert_int_equal(batch->images[i], next++);
            }
            loader_release(loader, batch);
        }
        assert_int_equal(next, begins[rank + 1]);
        loader_close(loader);
    }
}

struct buffers {
    size_t given, taken_back, bytes;
};

static bool give(void *owner, void **memory, size_t bytes, struct error *error)
{
    struct buffers *buffers = owner;
    *memory = malloc(bytes);
    buffers->given++;
    buffers->bytes = bytes;
    return *memory || error_runtime(error, "no memory");
}

static void take_back(void *owner, void *memory)
{
    ((struct buffers *)owner)->taken_back++;
    free(memory);
}

/* prefetch ready ones and two that are held; all of them the caller's, and all given back. */
static void buffers_are_the_caller_s(void **state)
{
    (void)state;
    for (size_t prefetch = 0; prefetch < 4; prefetch++) {
        struct loader_options options = training(0, 1, 8, 2), larger;
        struct buffers buffers = {0};
        struct loader *loader;
        options.prefetch = prefetch;
        options.allocate = give;
        options.release = take_back;
        options.owner = &buffers;
        assert_ok(loader_open(&loader, &options, error));
        assert_int_equal(buffers.given, (prefetch ? prefetch : 1) + 2);
        assert_int_equal(buffers.bytes, 8 * IMAGE_BYTES);
        assert_int_equal(buffers.taken_back, 0);
        loader_close(loader);
        assert_int_equal(buffers.taken_back, buffers.given);
        larger = options;
        larger.prefetch++;
        size_t more = loader_memory_bytes(&larger) - loader_memory_bytes(&options);
        if (prefetch > 0) /* one batch and what is known of it */
            assert_in_range(more, 8 * (IMAGE_BYTES + 20), 8 * (IMAGE_BYTES + 20) + 4096);
        larger = options;
        larger.workers++;
        more = loader_memory_bytes(&larger) - loader_memory_bytes(&options);
        assert_in_range(more, 2 * IMAGE_BYTES, 3 * IMAGE_BYTES); /* an image as stored, a picture, rows of patches */
    }
}

/* While others are filled and used around it. */
static void a_held_batch_stays_as_it_is(void **state)
{
    (void)state;
    struct loader_options options = training(0, 1, 8, 3);
    struct loader *loader;
    struct batch *held, *batch;
    uint8_t *copy = malloc(8 * IMAGE_BYTES);
    uint64_t images[8];
    assert_ok(loader_open(&loader, &options, error));
    for (int round = 0; round < 20; round++) {
        assert_ok(loader_next(loader, &held, NULL, error));
        memcpy(copy, held->patches, 8 * IMAGE_BYTES);
        memcpy(images, held->images, sizeof images);
        for (size_t others = 0; others < 3; others++) {
            assert_ok(loader_next(loader, &batch, NULL, error));
            assert_ptr_not_equal(batch, held);
            assert_int_equal(batch->positions[0], held->positions[0] + 8 * (others + 1));
            loader_release(loader, batch);
        }
        usleep(500);
        assert_memory_equal(copy, held->patches, 8 * IMAGE_BYTES);
        assert_memory_equal(images, held->images, sizeof images);
        loader_release(loader, held);
    }
    free(copy);
    loader_close(loader);
}

static void bounds_of_options_are_exact(void **state)
{
    (void)state;
    struct loader_options good = training(1, 2, 4, 1), options;
    struct dataset low = dataset, narrow = dataset;
    low.height = SIDE - 1;
    narrow.width = SIDE - 1;
    assert_ok(loader_check(&good, error));
    options = good, options.dataset = &low;
    assert_refused(loader_check(&options, error), ERROR_INPUT, "images have 16 x 15 pixels");
    options = good, options.dataset = &narrow;
    assert_refused(loader_check(&options, error), ERROR_INPUT, "images have 15 x 16 pixels");
    options = good, low.encoding = narrow.encoding = ENCODING_JPEG, options.dataset = &narrow;
    assert_ok(loader_check(&options, error)); /* each has its own size */
    options = good, options.rank = 2;
    assert_refused(loader_check(&options, error), ERROR_INPUT, "rank 2 of 2");
    options = good, options.batch = 0;
    assert_refused(loader_check(&options, error), ERROR_INPUT, "batch 0");
    options = good, options.accumulate = 0;
    assert_refused(loader_check(&options, error), ERROR_INPUT, "accumulate 0");
    options = good, options.rank = options.world_size = 0;
    assert_refused(loader_check(&options, error), ERROR_INPUT, "rank 0 of 0");
    options = good, options.patch_size = 0;
    assert_refused(loader_check(&options, error), ERROR_INPUT, "patch_size 0");
    options = good, options.image_size = 0;
    assert_refused(loader_check(&options, error), ERROR_INPUT, "image_size 0");
    options = good, options.augment.crop_padding = SIDE;
    assert_refused(loader_check(&options, error), ERROR_INPUT, "crop_padding 16 is not smaller than image_size 16");
    options.augment.crop_padding = SIDE - 1;
    assert_ok(loader_check(&options, error));
    const struct {
        double least, most;
        bool ok;
    } scales[] = {{0.1, 1, true},   {0.5, 0.5, true},  {0, 1, false},
                  {-0.1, 1, false}, {0.6, 0.5, false}, {0.1, 1.01, false}};
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        options = good;
        options.augment.crop_scale_min = scales[i].least;
        options.augment.crop_scale_max = scales[i].most;
        assert_ok(loader_check(&options, error)); /* nobody asks for these crops */
        options.augment.random_resized_crop = true;
        if (scales[i].ok)
            assert_ok(loader_check(&options, error));
        else
            assert_refused(loader_check(&options, error), ERROR_INPUT, "not an increasing range");
    }
}

/* Signals are the trainer's, whose own mask stays. */
static void workers_take_no_signals(void **state)
{
    (void)state;
    struct loader_options options = training(0, 1, 8, 3);
    struct loader *loader;
    size_t workers = 0, blocking = 0;
    sigset_t mask;
    assert_ok(loader_open(&loader, &options, error));
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
        char path[300], line[200];
        unsigned long long blocked = 0;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        FILE *status = atoi(entry->d_name) > 0 && atoi(entry->d_name) != getpid() ? fopen(path, "r") : NULL;
        while (status && fgets(line, sizeof line, status))
            sscanf(line, "SigBlk: %llx", &blocked);
        if (status)
            fclose(status);
        workers += status != NULL;
        blocking += (blocked >> (SIGINT - 1) & 1) && (blocked >> (SIGTERM - 1) & 1) && (blocked >> (SIGUSR1 - 1) & 1);
    }
    closedir(tasks);
    loader_close(loader);
    assert_true(workers >= 3 && blocking >= 3); /* a sanitizer may have a thread of its own */
    assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &mask), 0);
    assert_false(sigismember(&mask, SIGINT) || sigismember(&mask, SIGTERM));
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
        cmocka_unit_test(positions_are_as_the_header_says),
        cmocka_unit_test(spans_of_an_evaluation_are_in_order),
        cmocka_unit_test(buffers_are_the_caller_s),
        cmocka_unit_test(a_held_batch_stays_as_it_is),
        cmocka_unit_test(bounds_of_options_are_exact),
        cmocka_unit_test(workers_take_no_signals),
    };
    alarm(test_is_brief() ? 550 : 120); /* what goes wrong among threads mostly hangs */
    return cmocka_run_group_tests_name("loader", tests, open_shapes, close_shapes);
}
