/* How much memory is left: the kernel's word, and the control groups above this process. Their files are made up. */
#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cpu/host_memory.h"

/* ---- a system of few files ---- */

struct made_up {
    const char *path, *text;
};
static const struct made_up *files; /* ends with a path of NULL; NULL: the system's own */

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name) */
FILE *fopen(const char *path, const char *mode)
{
    FILE *(*real)(const char *, const char *);
    *(void **)&real = dlsym(RTLD_NEXT, "fopen");
    if (!files || (strncmp(path, "/proc/", 6) != 0 && strncmp(path, "/sys/", 5) != 0))
        return real(path, mode);
    for (const struct made_up *file = files; file->path; file++)
        if (strcmp(path, file->path) == 0)
            return fmemopen((void *)(uintptr_t)file->text, strlen(file->text), "r");
    errno = ENOENT;
    return NULL;
}

static size_t available(const struct made_up *made_up)
{
    size_t bytes = 0;
    struct error error;
    files = made_up;
    bool ok = host_memory_available(&bytes, &error);
    files = NULL;
    if (!ok)
        fail_msg("%s", error.message);
    return bytes;
}

#define MEMINFO                                                                                        \
    {                                                                                                  \
        "/proc/meminfo", "MemTotal: 8000 kB\nMemFree: 5 kB\nMemAvailable:    4000 kB\nBuffers: 1 kB\n" \
    }
#define END        \
    {              \
        NULL, NULL \
    }
enum { KIB = 1024, ALL = 4000 * KIB };

/* ---- tests ---- */

static void without_groups_it_is_what_the_kernel_says(void **state)
{
    (void)state;
    const struct made_up bare[] = {MEMINFO, END};
    const struct made_up unlimited[] = {MEMINFO,
                                        {"/proc/self/cgroup", "0::/job\n"},
                                        {"/sys/fs/cgroup/job/memory.max", "max\n"},
                                        {"/sys/fs/cgroup/job/memory.current", "1000\n"},
                                        END};
    const struct made_up wide[] = {MEMINFO,
                                   {"/proc/self/cgroup", "0::/job\n"},
                                   {"/sys/fs/cgroup/job/memory.max", "99999999999\n"},
                                   {"/sys/fs/cgroup/job/memory.current", "1000\n"},
                                   END};
    assert_int_equal(available(bare), ALL);
    assert_int_equal(available(unlimited), ALL);
    assert_int_equal(available(wide), ALL);
}

/* The group's own limit, its parent's, or that of all; the least counts. */
static void each_group_upwards_has_its_limit(void **state)
{
    (void)state;
    const char *const groups[] = {"/sys/fs/cgroup/slurm/job7/step", "/sys/fs/cgroup/slurm/job7", "/sys/fs/cgroup/slurm",
                                  "/sys/fs/cgroup"};
    for (size_t i = 0; i < 4; i++) {
        char limit[128], used[128];
        snprintf(limit, sizeof limit, "%s/memory.max", groups[i]);
        snprintf(used, sizeof used, "%s/memory.current", groups[i]);
        const struct made_up limited[] = {
            MEMINFO, {"/proc/self/cgroup", "0::/slurm/job7/step\n"}, {limit, "1000000\n"}, {used, "400000\n"}, END};
        assert_int_equal(available(limited), 600000);
    }
    const struct made_up two[] = {MEMINFO,
                                  {"/proc/self/cgroup", "0::/slurm/job7\n"},
                                  {"/sys/fs/cgroup/slurm/job7/memory.max", "900000\n"},
                                  {"/sys/fs/cgroup/slurm/job7/memory.current", "100000\n"},
                                  {"/sys/fs/cgroup/slurm/memory.max", "1000000\n"},
                                  {"/sys/fs/cgroup/slurm/memory.current", "500000\n"},
                                  END};
    assert_int_equal(available(two), 500000);
    const struct made_up over[] = {MEMINFO,
                                   {"/proc/self/cgroup", "0::/job\n"},
                                   {"/sys/fs/cgroup/job/memory.max", "1000\n"},
                                   {"/sys/fs/cgroup/job/memory.current", "1001\n"},
                                   END};
    assert_int_equal(available(over), 0);
}

/* Among other controllers' lines, which limit nothing; version 2's line may stand beside them. */
static void version_1_has_a_folder_of_its_own(void **state)
{
    (void)state;
    const struct made_up limited[] = {
        MEMINFO,
        {"/proc/self/cgroup", "11:cpuset:/a\nrubbish\n5:memory:/job\n1:name=systemd:/b\n0::/\n"},
        {"/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1000000\n"},
        {"/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "300000\n"},
        {"/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1\n"},
        {"/sys/fs/cgroup/memory/a/memory.usage_in_bytes", "0\n"},
        END};
    assert_int_equal(available(limited), 700000);
}

static void what_the_kernel_does_not_say_is_an_error(void **state)
{
    (void)state;
    const struct made_up none[] = {END}, old[] = {{"/proc/meminfo", "MemTotal: 8000 kB\n"}, END};
    size_t bytes;
    struct error error;
    files = none;
    assert_false(host_memory_available(&bytes, &error));
    assert_non_null(strstr(error.message, "/proc/meminfo: No such file or directory"));
    files = old;
    assert_false(host_memory_available(&bytes, &error));
    assert_non_null(strstr(error.message, "no line MemAvailable"));
    files = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_groups_it_is_what_the_kernel_says),
        cmocka_unit_test(each_group_upwards_has_its_limit),
        cmocka_unit_test(version_1_has_a_folder_of_its_own),
        cmocka_unit_test(what_the_kernel_does_not_say_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
