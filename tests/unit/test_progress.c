/* What a run says of each step where there is no terminal, and where there is one. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/log/progress.h"

/* ---- what is printed ---- */

static char shown[1 << 14];
static int before[3] = {-1, -1, -1}, reader = -1;

/* From here on standard output and error go to a pipe, or to a terminal of our own. */
static void listen_to_output(bool terminal)
{
    int ends[2];
    if (terminal) {
        ends[0] = posix_openpt(O_RDWR | O_NOCTTY);
        assert_true(ends[0] >= 0 && grantpt(ends[0]) == 0 && unlockpt(ends[0]) == 0);
        ends[1] = open(ptsname(ends[0]), O_RDWR | O_NOCTTY);
    } else {
        assert_int_equal(pipe(ends), 0);
    }
    assert_true(ends[1] >= 0);
    fflush(NULL);
    for (int file = STDOUT_FILENO; file <= STDERR_FILENO; file++) {
        before[file] = dup(file);
        dup2(ends[1], file);
    }
    close(ends[1]);
    reader = ends[0];
}

/* What came since. Carriage returns that the terminal adds before newlines are left out. */
static const char *heard(void)
{
    fflush(NULL);
    size_t length = 0;
    ssize_t got = 0;
    assert_int_equal(write(STDOUT_FILENO, "\\", 1), 1); /* so that there is an end to read to */
    while ((length == 0 || shown[length - 1] != '\\') &&
           (got = read(reader, shown + length, sizeof shown - 1 - length)) > 0)
        length += (size_t)got;
    for (int file = STDOUT_FILENO; file <= STDERR_FILENO; file++) {
        dup2(before[file], file);
        close(before[file]);
    }
    close(reader);
    shown[length > 0 ? length - 1 : 0] = '\0';
    for (char *at = shown; (at = strstr(at, "\r\n"));)
        memmove(at, at + 1, strlen(at));
    return shown;
}

static struct progress open_progress(bool silent)
{
    struct progress progress;
    unsetenv("OMPI_COMM_WORLD_RANK");
    progress_open(&progress, silent, 200, 2);
    return progress;
}

static const struct metrics_record step = {.step = 150,
                                           .epoch = 1.5,
                                           .loss = 2.34567,
                                           .top1 = 0.126,
                                           .lr = 1e-3,
                                           .images_per_s = 1234.4,
                                           .step_time_s = 2,
                                           .data_wait_s = 0.1,
                                           .comm_wait_s = 0.5,
                                           .mfu = NAN};
#define STEP                                                                                                    \
    "epoch 1.50/2  step 150/200  loss 2.3457  top-1 12.6 %  lr 1.00e-03  1234 images/s  wait data 5 % comm 25 " \
    "%  1m40s left"

/* ---- tests ---- */

static void a_step_is_a_line(void **state)
{
    (void)state;
    listen_to_output(false);
    struct progress progress = open_progress(false);
    progress_step(&progress, &step);
    progress_say(&progress, "%d words", 2);
    progress_warn(&progress, "%s", "beware");
    progress_close(&progress);
    assert_string_equal(heard(), STEP "\n2 words\nwarning: beware\n");
}

/* On a terminal each step takes the place of the one before; other lines stand under it. */
static void a_terminal_has_one_live_line(void **state)
{
    (void)state;
    listen_to_output(true);
    struct progress progress = open_progress(false);
    progress_step(&progress, &step);
    progress_step(&progress, &step);
    progress_say(&progress, "a word");
    progress_step(&progress, &step);
    progress_warn(&progress, "beware");
    progress_say(&progress, "the end");
    progress_step(&progress, &step);
    progress_close(&progress);
    progress_close(&progress);
    assert_string_equal(heard(), "\r\033[K" STEP "\r\033[K" STEP "\na word\n\r\033[K" STEP
                                 "\nwarning: beware\nthe end\n\r\033[K" STEP "\n");
}

static void other_ranks_are_silent(void **state)
{
    (void)state;
    listen_to_output(false);
    struct progress progress = open_progress(true);
    progress_step(&progress, &step);
    progress_say(&progress, "a word");
    progress_warn(&progress, "beware");
    progress_close(&progress);
    assert_string_equal(heard(), "");
}

static void the_use_of_the_device_is_said_where_it_is_known(void **state)
{
    (void)state;
    const double mfu[] = {NAN, 0, 0.354};
    for (size_t i = 0; i < 3; i++) {
        struct metrics_record metrics = step;
        metrics.mfu = mfu[i];
        listen_to_output(false);
        struct progress progress = open_progress(false);
        progress_step(&progress, &metrics);
        const char *text = heard();
        assert_int_equal(strstr(text, "mfu") != NULL, i == 2);
        assert_true(i < 2 || strstr(text, "1234 images/s  mfu 35.4 %  wait"));
    }
}

static void the_time_that_is_left_has_two_units(void **state)
{
    (void)state;
    const struct {
        double seconds; /* of each of the 50 steps that are left */
        const char *text;
    } cases[] = {{0, "  0m00s left\n"},          {0.1, "  0m05s left\n"},     {71.98, "  59m59s left\n"},
                 {72, "  1h00m left\n"},         {1726.8, "  23h59m left\n"}, {1728, "  1d00h left\n"},
                 {10 * 1728, "  10d00h left\n"}, {1.995, "  1m40s left\n"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct metrics_record metrics = step;
        metrics.step_time_s = cases[i].seconds;
        listen_to_output(false);
        struct progress progress = open_progress(false);
        progress_step(&progress, &metrics);
        const char *text = heard();
        if (!strstr(text, cases[i].text))
            fail_msg("not '%s': %s", cases[i].text, text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_is_a_line),
        cmocka_unit_test(a_terminal_has_one_live_line),
        cmocka_unit_test(other_ranks_are_silent),
        cmocka_unit_test(the_use_of_the_device_is_said_where_it_is_known),
        cmocka_unit_test(the_time_that_is_left_has_two_units),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
