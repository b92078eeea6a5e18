/* MemAvailable and the control groups, v1 and v2, of this process. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/host_memory.h"

/* A file that holds one number. false where it is missing or says "max". */
static bool read_number(const char *directory, const char *name, size_t *number)
{
    char path[4352];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    unsigned long long value;
    bool ok = fscanf(file, "%llu", &value) == 1;
    fclose(file);
    if (ok)
        *number = (size_t)value;
    return ok;
}

static void apply_limit(size_t *bytes, const char *directory, const char *limit_name, const char *used_name)
{
    size_t limit, used;
    if (!read_number(directory, limit_name, &limit) || !read_number(directory, used_name, &used))
        return;
    size_t left = limit > used ? limit - used : 0;
    *bytes = left < *bytes ? left : *bytes;
}

/* The group and all above it, up to the mount point, each have their own limit. */
static void apply_limits_upwards(size_t *bytes, const char *mount, const char *group, const char *limit_name,
                                 const char *used_name)
{
    char directory[4096];
    int length = snprintf(directory, sizeof directory, "%s%s", mount, group);
    if (length < 0 || (size_t)length >= sizeof directory)
        return;
    size_t mount_length = strlen(mount);
    for (;;) {
        apply_limit(bytes, directory, limit_name, used_name);
        char *slash = strrchr(directory + mount_length, '/');
        if (!slash)
            return;
        *slash = '\0';
    }
}

/* Lines of /proc/self/cgroup: "0::/group" (version 2) and "N:memory:/group" (version 1). */
static void apply_control_groups(size_t *bytes)
{
    FILE *file = fopen("/proc/self/cgroup", "r");
    if (!file)
        return;
    char line[4096];
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        if (controllers[1] == '\0')
            apply_limits_upwards(bytes, "/sys/fs/cgroup", group, "memory.max", "memory.current");
        else if (strstr(controllers + 1, "memory"))
            apply_limits_upwards(bytes, "/sys/fs/cgroup/memory", group, "memory.limit_in_bytes",
                                 "memory.usage_in_bytes");
    }
    fclose(file);
}

bool host_memory_available(size_t *bytes, struct error *error)
{
    FILE *file = fopen("/proc/meminfo", "r");
    if (!file)
        return error_runtime(error, "/proc/meminfo: %s; how much memory is free cannot be told", strerror(errno));
    char line[256];
    unsigned long long kib;
    bool found = false;
    while (!found && fgets(line, sizeof line, file))
        found = sscanf(line, "MemAvailable: %llu kB", &kib) == 1;
    fclose(file);
    if (!found)
        return error_runtime(error, "/proc/meminfo: no line MemAvailable; how much memory is free cannot be told");
    *bytes = (size_t)kib * 1024;
    apply_control_groups(bytes);
    return true;
}
