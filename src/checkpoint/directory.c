/* Which checkpoints a directory holds, which of them stay, and which is the best. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/checkpoint/checkpoint.h"
#include "src/files/file_output.h"

static bool parse_step(const char *name, uint64_t *step)
{
    if (strncmp(name, "step_", 5) != 0)
        return false;
    size_t digits = strspn(name + 5, "0123456789");
    *step = strtoull(name + 5, NULL, 10);
    return digits >= 8 && digits <= 19 && strcmp(name + 5 + digits, ".h5") == 0;
}

uint64_t checkpoint_step_of(const char *path)
{
    uint64_t step = 0;
    parse_step(strrchr(path, '/') + 1, &step);
    return step;
}

/* Newest first. */
static int by_step(const void *a, const void *b)
{
    uint64_t step_a = checkpoint_step_of(*(char *const *)a), step_b = checkpoint_step_of(*(char *const *)b);
    return (step_a < step_b) - (step_a > step_b);
}

static bool collect(char ***paths, size_t *count, DIR *entries, const char *directory)
{
    size_t capacity = 0;
    uint64_t step;
    for (struct dirent *entry; (entry = readdir(entries));) {
        if (!parse_step(entry->d_name, &step))
            continue;
        if (*count == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            char **grown = realloc(*paths, capacity * sizeof *grown);
            if (!grown)
                return false;
            *paths = grown;
        }
        (*paths)[*count] = file_path(directory, entry->d_name);
        if (!(*paths)[*count])
            return false;
        ++*count;
    }
    return true;
}

bool checkpoint_list(char ***paths, size_t *count, const char *directory, struct error *error)
{
    *paths = NULL;
    *count = 0;
    DIR *entries = opendir(directory);
    if (!entries)
        return error_input(error, "%s: cannot be read: %s", directory, strerror(errno));
    bool ok = collect(paths, count, entries, directory);
    closedir(entries);
    if (!ok) {
        checkpoint_list_free(*paths, *count);
        *paths = NULL;
        return error_runtime(error, "%s: out of memory", directory);
    }
    if (*count > 1)
        qsort(*paths, *count, sizeof **paths, by_step);
    return true;
}

void checkpoint_list_free(char **paths, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(paths[i]);
    free(paths);
}

/* The name that DIR/best.h5 points at, "" where there is none. */
static void read_best(char *name, size_t name_bytes, const char *directory)
{
    char *link = file_path(directory, "best.h5");
    ssize_t length = link ? readlink(link, name, name_bytes - 1) : -1;
    name[length > 0 ? length : 0] = '\0';
    free(link);
}

bool checkpoint_prune(const char *directory, size_t keep, uint64_t step, struct error *error)
{
    char **paths, best[NAME_MAX + 1];
    size_t count;
    if (!checkpoint_list(&paths, &count, directory, error))
        return false;
    read_best(best, sizeof best, directory);
    bool ok = true;
    size_t newer = 0;
    while (newer < count && checkpoint_step_of(paths[newer]) > step)
        newer++;
    for (size_t i = newer + keep; i < count; i++)
        if (strcmp(strrchr(paths[i], '/') + 1, best) != 0 && unlink(paths[i]) != 0 && errno != ENOENT)
            ok = error_runtime(error, "%s: cannot be removed: %s", paths[i], strerror(errno));
    checkpoint_list_free(paths, count);
    return ok;
}

static bool move_into(const char *path, const char *directory, struct error *error)
{
    char *moved = file_path(directory, strrchr(path, '/') + 1);
    bool ok = moved && rename(path, moved) == 0;
    int problem = errno;
    free(moved);
    return ok || error_runtime(error, "%s: cannot be moved to %s: %s", path, directory, strerror(problem));
}

bool checkpoint_put_aside(const char *directory, uint64_t step, const char *to, bool *best_moved, struct error *error)
{
    char **paths, best[NAME_MAX + 1], *link = file_path(directory, "best.h5");
    size_t count;
    *best_moved = false;
    if (!link || !checkpoint_list(&paths, &count, directory, error)) {
        free(link);
        return link ? false : error_runtime(error, "%s: out of memory", directory);
    }
    read_best(best, sizeof best, directory);
    bool ok = true;
    for (size_t i = 0; ok && i < count && checkpoint_step_of(paths[i]) > step; i++) {
        *best_moved = *best_moved || strcmp(strrchr(paths[i], '/') + 1, best) == 0;
        ok = move_into(paths[i], to, error);
    }
    if (*best_moved)
        unlink(link);
    checkpoint_list_free(paths, count);
    free(link);
    return ok;
}

bool checkpoint_mark_best(const char *directory, uint64_t step, struct error *error)
{
    char target[64], *link = file_path(directory, "best.h5"), *temporary = file_path(directory, "best.h5.new");
    snprintf(target, sizeof target, "step_%08llu.h5", (unsigned long long)step);
    bool ok = link && temporary;
    if (ok)
        unlink(temporary); /* of a crash */
    ok = ok && symlink(target, temporary) == 0 && rename(temporary, link) == 0;
    int problem = errno;
    free(link);
    free(temporary);
    if (!ok)
        return error_runtime(error, "%s/best.h5: cannot be written: %s", directory, strerror(problem));
    return file_sync_directory(directory, error);
}
