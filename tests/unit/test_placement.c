/* Where images lie in files that other programs wrote: every layout is read right, or refused with a way to convert. */
#include "data_test.h"

#include <hdf5.h>
#include <string.h>

enum { IMAGES = 5, SIDE = 16, IMAGE_BYTES = SIDE * SIDE * 3 };

static uint8_t pixels[2 * IMAGES * IMAGE_BYTES]; /* small pictures can take more bytes as JPEG streams */

/* How the dataset is to be stored; chunk[0] = 0: in one piece. */
struct stored {
    hsize_t chunk[4];
    bool compressed;
    hid_t type;
    int rank;
    hsize_t extents[4];
    size_t written; /* images whose pixels are written; chunks of the others never are */
};

static struct stored usual(hsize_t images_a_chunk)
{
    return (struct stored){.chunk = {images_a_chunk, SIDE, SIDE, 3},
                           .type = H5T_STD_U8LE,
                           .rank = 4,
                           .extents = {IMAGES, SIDE, SIDE, 3},
                           .written = IMAGES};
}

/* A dataset of five images whose `name` is replaced by one that is stored so. */
static void write_stored(const char *path, const char *name, enum encoding encoding, const struct stored *stored)
{
    write_shapes(path, encoding, IMAGES, SIDE, SIZE_MAX);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), creation = H5Pcreate(H5P_DATASET_CREATE);
    hid_t space = H5Screate_simple(stored->rank, stored->extents, NULL);
    assert_true(H5Ldelete(file, name, H5P_DEFAULT) >= 0);
    if (stored->chunk[0] > 0)
        assert_true(H5Pset_chunk(creation, stored->rank, stored->chunk) >= 0);
    if (stored->compressed)
        assert_true(H5Pset_deflate(creation, 1) >= 0);
    hid_t images = H5Dcreate2(file, name, stored->type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    hsize_t start[4] = {0}, count[4];
    memcpy(count, stored->extents, sizeof count);
    count[0] = stored->written;
    if (stored->written > 0) {
        hid_t memory = H5Screate_simple(stored->rank, count, NULL);
        assert_true(H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL) >= 0);
        assert_true(H5Dwrite(images, H5T_NATIVE_UINT8, memory, space, H5P_DEFAULT, pixels) >= 0);
        H5Sclose(memory);
    }
    H5Dclose(images);
    H5Sclose(space);
    H5Pclose(creation);
    H5Fclose(file);
}

/* One piece, or chunks of whole images: the last of them may be cut. */
static void images_of_every_layout_are_whole(void **state)
{
    (void)state;
    const char *path = scratch_path("layout.h5");
    uint8_t read[IMAGE_BYTES];
    for (size_t a_chunk = 0; a_chunk <= IMAGES; a_chunk++) {
        struct stored stored = usual(a_chunk);
        struct dataset dataset;
        write_stored(path, "images", ENCODING_RAW, &stored);
        assert_ok(dataset_open(&dataset, path, error));
        assert_true(dataset.images == IMAGES && dataset.height == SIDE && dataset.width == SIDE);
        for (size_t i = IMAGES; i-- > 0;) {
            assert_ok(dataset_read(&dataset, i, read, error));
            assert_memory_equal(read, pixels + i * IMAGE_BYTES, IMAGE_BYTES);
        }
        dataset_close(&dataset);
    }
}

/* In one piece, whose size is the number of images times theirs, not a row's. */
static void many_images_in_one_piece_are_whole(void **state)
{
    (void)state;
    enum { MANY = 3 * SIDE };
    const char *path = scratch_path("many.h5");
    const hsize_t extents[4] = {MANY, SIDE, SIDE, 3};
    uint8_t *many = malloc(MANY * IMAGE_BYTES), read[IMAGE_BYTES];
    for (size_t i = 0; i < MANY * IMAGE_BYTES; i++)
        many[i] = (uint8_t)(i / IMAGE_BYTES + i % 7);
    write_shapes(path, ENCODING_RAW, MANY, SIDE, SIZE_MAX);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), space = H5Screate_simple(4, extents, NULL);
    assert_true(H5Ldelete(file, "images", H5P_DEFAULT) >= 0);
    hid_t images = H5Dcreate2(file, "images", H5T_STD_U8LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Dwrite(images, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, many) >= 0);
    H5Dclose(images);
    H5Sclose(space);
    H5Fclose(file);
    struct dataset dataset;
    assert_ok(dataset_open(&dataset, path, error));
    for (size_t i = MANY; i-- > 0;) {
        assert_ok(dataset_read(&dataset, i, read, error));
        assert_memory_equal(read, many + i * IMAGE_BYTES, IMAGE_BYTES);
    }
    dataset_close(&dataset);
    free(many);
}

static void assert_stored_refused(const struct stored *stored, const char *message)
{
    struct dataset dataset;
    const char *path = scratch_path("refused.h5");
    write_stored(path, "images", ENCODING_RAW, stored);
    assert_refused(dataset_open(&dataset, path, error), ERROR_INPUT, message);
}

static void other_layouts_say_how_to_convert(void **state)
{
    (void)state;
    for (int axis = 1; axis < 4; axis++) {
        struct stored cut = usual(1);
        cut.chunk[axis] = 1;
        assert_stored_refused(&cut, "h5repack -l images:CONTI");
    }
    struct stored stored = usual(1);
    stored.compressed = true;
    assert_stored_refused(&stored, "h5repack -f NONE -l images:CONTI");
}

static void numbers_that_are_no_bytes_are_refused(void **state)
{
    (void)state;
    const hid_t types[] = {H5T_STD_I8LE, H5T_STD_U16LE, H5T_IEEE_F32LE};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct stored stored = usual(0);
        stored.type = types[i];
        assert_stored_refused(&stored, "/images is not of type uint8");
    }
}

static void shapes_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct stored stored = usual(0);
    stored.extents[3] = 1;
    assert_stored_refused(&stored, "/images has shape [5, 16, 16, 1], but mean has 3 channels");
    stored.extents[3] = 4;
    stored.written = 0;
    stored.chunk[0] = 1, stored.chunk[3] = 4;
    assert_stored_refused(&stored, "/images");
    stored = usual(0);
    stored.extents[0] = 4; /* one fewer than labels */
    stored.written = 4;
    assert_stored_refused(&stored, "there are 4 images, but 5 labels");
    stored = usual(0);
    stored.extents[0] = 0;
    stored.written = 0;
    assert_stored_refused(&stored, "/images is empty");
    stored = usual(0);
    stored.rank = 3;
    assert_stored_refused(&stored, "/images");
}

/* A chunk that nobody wrote has no place in the file. */
static void images_never_written_are_named(void **state)
{
    (void)state;
    struct stored stored = usual(1);
    stored.written = 3;
    assert_stored_refused(&stored, "/images[3] was never written");
    stored = usual(2);
    stored.written = 2;
    assert_stored_refused(&stored, "/images[2] was never written");
    stored = usual(0);
    stored.written = 0;
    assert_stored_refused(&stored, "/images[0] was never written");
}

/* /jpeg/bytes in one piece or in small chunks, whose last is cut. */
static void streams_of_every_layout_are_whole(void **state)
{
    (void)state;
    const char *path = scratch_path("streams.h5");
    uint8_t read[IMAGES * IMAGE_BYTES];
    for (hsize_t chunk = 0; chunk <= 3 * IMAGE_BYTES; chunk += chunk ? 700 : 301) {
        struct stored stored = {.chunk = {chunk}, .type = H5T_STD_U8LE, .rank = 1};
        struct dataset dataset;
        write_shapes(path, ENCODING_JPEG, IMAGES, SIDE, SIZE_MAX);
        assert_ok(dataset_open(&dataset, path, error));
        stored.extents[0] = stored.written = dataset.offsets[IMAGES];
        assert_true(dataset.offsets[IMAGES] <= sizeof pixels);
        dataset_close(&dataset);
        write_stored(path, "jpeg/bytes", ENCODING_JPEG, &stored);
        assert_ok(dataset_open(&dataset, path, error));
        for (size_t i = 0; i < IMAGES; i++) {
            assert_ok(dataset_read(&dataset, i, read, error));
            assert_memory_equal(read, pixels + dataset.offsets[i], dataset_stored_bytes(&dataset, i));
        }
        dataset_close(&dataset);
    }
}

/* Cut by a byte of the last image, or by none of it. */
static void a_missing_byte_is_noticed(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s", scratch_path("cut.h5"));
    struct dataset dataset;
    struct stored stored = usual(0);
    write_stored(path, "images", ENCODING_RAW, &stored);
    assert_ok(dataset_open(&dataset, path, error));
    off_t end = (off_t)dataset.offsets[IMAGES - 1] + IMAGE_BYTES;
    dataset_close(&dataset);
    assert_int_equal(truncate(path, end - 1), 0);
    assert_refused(dataset_open(&dataset, path, error), ERROR_INPUT, "truncated");
}

static int draw_pixels(void **state)
{
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i * 7 + i / 256 * 13);
    return make_scratch(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_of_every_layout_are_whole),   cmocka_unit_test(many_images_in_one_piece_are_whole),
        cmocka_unit_test(other_layouts_say_how_to_convert),   cmocka_unit_test(numbers_that_are_no_bytes_are_refused),
        cmocka_unit_test(shapes_that_do_not_fit_are_refused), cmocka_unit_test(images_never_written_are_named),
        cmocka_unit_test(streams_of_every_layout_are_whole),  cmocka_unit_test(a_missing_byte_is_noticed),
    };
    return cmocka_run_group_tests_name("placement", tests, draw_pixels, remove_scratch);
}
