/* Names copies after what they are copies of, makes those that are missing, and turns descriptors to them. */
#include "data_loaders/format/dataset_stage.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data_loaders/format/shard_files.h"
#include "src/files/file_copy.h"
#include "src/files/file_output.h"

static size_t file_count(const struct dataset *dataset)
{
    return dataset->files ? dataset->file_count : 1;
}

static const char *path_of(const struct dataset *dataset, size_t number)
{
    return dataset->files ? dataset->files[number].path : dataset->path;
}

/* FNV-1a of 64 bits. */
static uint64_t hash(uint64_t state, const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        state = (state ^ ((const uint8_t *)bytes)[i]) * UINT64_C(0x100000001b3);
    return state;
}

/* DIRECTORY/quest-HASH-NAME: the hash is of where the file is, its size and its time of change, so that a file that is
 * made anew has another copy. */
static bool name_copy(char **copy, struct stat *status, const char *path, const char *directory, struct error *error)
{
    char whole[PATH_MAX];
    if (!realpath(path, whole) || stat(whole, status) != 0)
        return error_runtime(error, "%s: %s", path, strerror(errno));
    const int64_t facts[] = {status->st_size, status->st_mtim.tv_sec, status->st_mtim.tv_nsec};
    uint64_t state = hash(UINT64_C(0xcbf29ce484222325), whole, strlen(whole));
    state = hash(state, facts, sizeof facts);
    if (asprintf(copy, "%s/quest-%016" PRIx64 "-%s", directory, state, strrchr(whole, '/') + 1) >= 0)
        return true;
    *copy = NULL;
    return error_runtime(error, "%s: no memory for the name of its copy", path);
}

/* Opens the copy of a file; -1 where there is none that is whole. */
static int open_copy(const char *copy, const struct stat *original)
{
    struct stat status;
    int file = open(copy, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return -1;
    /* Some file systems keep times of whole seconds or microseconds. */
    if (fstat(file, &status) == 0 && S_ISREG(status.st_mode) && status.st_size == original->st_size &&
        status.st_mtim.tv_sec == original->st_mtim.tv_sec)
        return file;
    close(file);
    return -1;
}

static bool stage_file(const char *path, const char *directory, struct staged_files *staged, struct error *error)
{
    char *copy = NULL;
    struct stat status;
    enum file_copied copied = FILE_COPIED;
    if (!name_copy(&copy, &status, path, directory, error))
        return false;
    int file = open_copy(copy, &status);
    bool there = file >= 0, ok = true;
    if (there)
        close(file);
    else
        ok = file_copy(path, copy, directory, &copied, error);
    free(copy);
    staged->there += there;
    staged->copied += ok && !there && copied == FILE_COPIED;
    staged->no_room += ok && copied == FILE_COPY_NO_ROOM;
    staged->copied_bytes += ok && !there && copied == FILE_COPIED ? (uint64_t)status.st_size : 0;
    return ok;
}

bool dataset_stage(const struct dataset *dataset, const char *directory, size_t first, size_t step,
                   struct staged_files *staged, struct error *error)
{
    if (!file_make_directories(directory, error))
        return false;
    file_copy_clean(directory, "quest-");
    for (size_t i = first; i < file_count(dataset); i += step)
        if (!stage_file(path_of(dataset, i), directory, staged, error))
            return false;
    return true;
}

static bool use_copy(struct dataset *dataset, size_t number, const char *copy, int file, struct error *error)
{
    if (!dataset->files) {
        close(dataset->file);
        dataset->file = file;
        return true;
    }
    if (shard_files_add(dataset->descriptors, number, copy, file, error))
        return true;
    close(file);
    return false;
}

bool dataset_use_staged(struct dataset *dataset, const char *directory, struct error *error)
{
    bool ok = true;
    for (size_t i = 0; ok && i < file_count(dataset); i++) {
        char *copy = NULL;
        struct stat status;
        ok = name_copy(&copy, &status, path_of(dataset, i), directory, error);
        int file = ok ? open_copy(copy, &status) : -1;
        if (file >= 0)
            ok = use_copy(dataset, i, copy, file, error);
        free(copy);
    }
    return ok;
}
