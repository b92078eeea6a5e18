/* Verifying: every damaged image is counted, and mean and std are compared with the pixels. */
#include "data_test.h"

#include <fcntl.h>
#include <hdf5.h>
#include <poll.h>

#include "data_loaders/format/verify.h"

static void verify_names_the_damaged_stream(void **state)
{
    (void)state;
    struct dataset dataset;
    const char *path = scratch_path("cut.h5");
    write_shapes(path, ENCODING_JPEG, 12, 32, 7);
    assert_ok(dataset_open(&dataset, path, error));
    assert_refused(dataset_verify(&dataset, error), ERROR_INPUT, "1 of 12 images are damaged, the first is image 7");
    dataset_close(&dataset);
}

static void every_damaged_stream_is_counted(void **state)
{
    (void)state;
    struct dataset dataset;
    const char *path = scratch_path("several.h5");
    write_shapes(path, ENCODING_JPEG, 20, 32, 19); /* the last is cut; two more lose their start of image */
    assert_ok(dataset_open(&dataset, path, error));
    dataset.offsets[5]++;
    dataset.offsets[12]++;
    assert_refused(dataset_verify(&dataset, error), ERROR_INPUT, "3 of 20 images are damaged, the first is image 5");
    dataset_close(&dataset);
}

static void a_whole_file_passes(void **state)
{
    (void)state;
    struct dataset dataset;
    const char *path = scratch_path("whole.h5");
    for (int encoding = ENCODING_RAW; encoding <= ENCODING_JPEG; encoding++) {
        write_shapes(path, encoding, 40, 32, SIZE_MAX);
        assert_ok(dataset_open(&dataset, path, error));
        assert_ok(dataset_verify(&dataset, error));
        dataset_close(&dataset);
    }
}

/* Each moment of each channel, up or down: off by 0.0019 it passes, by 0.0021 not. */
static void mean_and_std_are_compared_with_the_pixels(void **state)
{
    (void)state;
    struct dataset dataset;
    const char *path = scratch_path("moments.h5");
    write_shapes(path, ENCODING_RAW, 15, 16, SIZE_MAX);
    assert_ok(dataset_open(&dataset, path, error));
    const float mean[] = {dataset.mean[0], dataset.mean[1], dataset.mean[2]};
    const float std[] = {dataset.std[0], dataset.std[1], dataset.std[2]};
    for (size_t c = 0; c < 3; c++)
        for (int which = 0; which < 4; which++) {
            char message[128];
            float *moment = which & 1 ? &dataset.std[c] : &dataset.mean[c], right = *moment;
            float sign = which & 2 ? -1.0f : 1.0f;
            *moment = right + sign * 0.0019f;
            assert_ok(dataset_verify(&dataset, error));
            *moment = right + sign * 0.0021f;
            snprintf(message, sizeof message,
                     "channel %zu has mean %.4f and std %.4f, but the file says %.4f and %.4f;", c, (double)mean[c],
                     (double)std[c], (double)dataset.mean[c], (double)dataset.std[c]);
            assert_refused(dataset_verify(&dataset, error), ERROR_INPUT, message);
            *moment = right;
        }
    dataset_close(&dataset);
}

static void a_file_that_has_become_shorter_is_no_damage(void **state)
{
    (void)state;
    struct dataset dataset;
    const char *path = scratch_path("shorter.h5");
    write_shapes(path, ENCODING_RAW, 20, 16, SIZE_MAX);
    assert_ok(dataset_open(&dataset, path, error));
    assert_int_equal(truncate(path, (off_t)dataset.offsets[11] + 5), 0);
    assert_refused(dataset_verify(&dataset, error), ERROR_RUNTIME, "image 11 cannot be read");
    dataset_close(&dataset);
}

/* What verifying writes to a terminal in place of stderr, in `shown`. */
static bool verify_on_terminal(const struct dataset *dataset, char *shown, size_t bytes)
{
    struct error ignored;
    int terminal = posix_openpt(O_RDWR | O_NOCTTY), stderr_of_before = dup(STDERR_FILENO);
    assert_true(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
    int side = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    assert_true(side >= 0);
    dup2(side, STDERR_FILENO);
    bool ok = dataset_verify(dataset, &ignored);
    fflush(stderr);
    dup2(stderr_of_before, STDERR_FILENO);
    /* A terminal hands on in its own time: what is written last says that all has come. */
    size_t length = 0;
    assert_int_equal(write(side, "\001", 1), 1);
    do {
        assert_int_equal(poll(&(struct pollfd){.fd = terminal, .events = POLLIN}, 1, 10000), 1);
        ssize_t got = read(terminal, shown + length, bytes - 1 - length);
        assert_true(got > 0);
        length += (size_t)got;
    } while (shown[length - 1] != '\001');
    shown[length - 1] = '\0';
    close(side);
    close(terminal);
    close(stderr_of_before);
    return ok;
}

/* The bar goes: for a line that says what was done, or for the error, which begins at the begin of a line. */
static void no_bar_is_left_on_the_terminal(void **state)
{
    (void)state;
    struct dataset dataset;
    const char *path = scratch_path("bar.h5");
    char shown[4096];
    write_shapes(path, ENCODING_RAW, 20, 16, SIZE_MAX);
    assert_ok(dataset_open(&dataset, path, error));
    assert_true(verify_on_terminal(&dataset, shown, sizeof shown));
    assert_non_null(strstr(shown, "\r\033[Kverifying: 20 images in 0."));
    assert_int_equal(truncate(path, (off_t)dataset.offsets[11] + 5), 0);
    assert_false(verify_on_terminal(&dataset, shown, sizeof shown));
    assert_true(strlen(shown) >= 4);
    assert_string_equal(shown + strlen(shown) - 4, "\r\033[K");
    dataset_close(&dataset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verify_names_the_damaged_stream),
        cmocka_unit_test(every_damaged_stream_is_counted),
        cmocka_unit_test(a_whole_file_passes),
        cmocka_unit_test(mean_and_std_are_compared_with_the_pixels),
        cmocka_unit_test(a_file_that_has_become_shorter_is_no_damage),
        cmocka_unit_test(no_bar_is_left_on_the_terminal),
    };
    return cmocka_run_group_tests_name("verify", tests, make_scratch, remove_scratch);
}
