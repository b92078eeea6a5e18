/* Reads, writes, flushes, reads back, compares checksums, renames. */
#include "src/files/file_copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zlib.h>

#include "src/base/stop_signal.h"
#include "src/files/file_output.h"

enum { BLOCK = 4 << 20, SPARE = 64 << 20, HOST_BYTES = 64 };

struct copying {
    const char *from, *to;
    int source, target;
    uint8_t *block;
    uint64_t bytes;
};

/* The directory may be seen by several hosts. */
static void host_name(char name[HOST_BYTES])
{
    if (gethostname(name, HOST_BYTES - 1) != 0)
        name[0] = '\0';
    name[HOST_BYTES - 1] = '\0';
}

static bool out_of_room(int reason)
{
    return reason == ENOSPC || reason == EDQUOT || reason == EFBIG;
}

/* A disk that is filled to the brim harms others on the host. */
static bool has_room(const char *directory, uint64_t bytes)
{
    struct statvfs disk;
    if (statvfs(directory, &disk) != 0 || disk.f_blocks == 0)
        return true; /* writing will tell */
    uint64_t free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize,
             spare = (uint64_t)disk.f_blocks * disk.f_frsize / 100;
    if (spare < SPARE)
        spare = SPARE;
    return free_bytes >= spare && free_bytes - spare >= bytes;
}

/* The next block of a file; 0 at its end. */
static bool next_block(int file, const char *path, uint8_t *block, size_t *count, struct error *error)
{
    ssize_t got;
    if (stop_signal_raised())
        return error_runtime(error, "%s: interrupted while it was copied", path);
    do
        got = read(file, block, BLOCK);
    while (got < 0 && errno == EINTR);
    *count = got > 0 ? (size_t)got : 0;
    return got >= 0 || error_runtime(error, "%s: cannot be read: %s", path, strerror(errno));
}

static bool copy_bytes(struct copying *copying, uint32_t *sum, bool *room, struct error *error)
{
    size_t count = 1;
    uint64_t copied = 0;
    *room = true;
    while (count > 0) {
        if (!next_block(copying->source, copying->from, copying->block, &count, error))
            return false;
        *sum = (uint32_t)crc32(*sum, copying->block, (uInt)count);
        copied += count;
        if (count > 0 && !file_write_all(copying->target, copying->block, count)) {
            *room = !out_of_room(errno);
            return error_runtime(error, "%s: cannot be written: %s", copying->to, strerror(errno));
        }
    }
    return copied == copying->bytes || error_runtime(error, "%s: changes while it is copied", copying->from);
}

/* From the disk, not from memory, as far as the system can be asked for that. */
static bool read_back(struct copying *copying, uint32_t expected, struct error *error)
{
    uint32_t sum = 0;
    size_t count = 1;
    posix_fadvise(copying->target, 0, 0, POSIX_FADV_DONTNEED);
    if (lseek(copying->target, 0, SEEK_SET) != 0)
        return error_runtime(error, "%s: cannot be read back: %s", copying->to, strerror(errno));
    while (count > 0) {
        if (!next_block(copying->target, copying->to, copying->block, &count, error))
            return false;
        sum = (uint32_t)crc32(sum, copying->block, (uInt)count);
    }
    return sum == expected ||
           error_runtime(error, "%s: the copy differs from %s; is the disk in order?", copying->to, copying->from);
}

/* Into the temporary file that is open as copying->target. */
static bool fill(struct copying *copying, const struct stat *status, bool *room, struct error *error)
{
    uint32_t sum = 0;
    const struct timespec times[2] = {status->st_atim, status->st_mtim};
    if (!copy_bytes(copying, &sum, room, error))
        return false;
    if (fsync(copying->target) != 0) {
        *room = !out_of_room(errno);
        return error_runtime(error, "%s: cannot be written: %s", copying->to, strerror(errno));
    }
    return read_back(copying, sum, error) &&
           (futimens(copying->target, times) == 0 ||
            error_runtime(error, "%s: its time cannot be set: %s", copying->to, strerror(errno)));
}

static bool copy_open(struct copying *copying, const char *temporary, const char *directory, enum file_copied *copied,
                      struct error *error)
{
    struct stat status;
    if (fstat(copying->source, &status) != 0 || !S_ISREG(status.st_mode))
        return error_runtime(error, "%s: is not a regular file that can be read", copying->from);
    copying->bytes = (uint64_t)status.st_size;
    *copied = FILE_COPY_NO_ROOM;
    if (!has_room(directory, copying->bytes))
        return true;
    copying->target = open(temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (copying->target < 0)
        return error_runtime(error, "%s: cannot be written: %s", copying->to, strerror(errno));
    bool room = true, ok = fill(copying, &status, &room, error);
    if (!ok) {
        close(copying->target);
        unlink(temporary);
        return !room; /* no error then, but no copy either */
    }
    *copied = FILE_COPIED;
    return file_commit(copying->target, temporary, copying->to, directory, error);
}

bool file_copy(const char *from, const char *to, const char *directory, enum file_copied *copied, struct error *error)
{
    struct copying copying = {.from = from, .to = to, .block = malloc(BLOCK)};
    char *temporary = NULL, host[HOST_BYTES];
    host_name(host);
    if (asprintf(&temporary, "%s.tmp-%s-%ld", to, host, (long)getpid()) < 0)
        temporary = NULL;
    bool ok = (temporary && copying.block) || error_runtime(error, "%s: no memory for copying it", from);
    copying.source = ok ? open(from, O_RDONLY | O_CLOEXEC) : -1;
    if (ok && copying.source < 0)
        ok = error_runtime(error, "%s: %s", from, strerror(errno));
    if (ok)
        ok = copy_open(&copying, temporary, directory, copied, error);
    if (copying.source >= 0)
        close(copying.source);
    free(temporary);
    free(copying.block);
    return ok;
}

/* The process in NAME.tmp-HOST-PID; 0: of another host, or another name. */
static long owner_of(const char *name, const char *host)
{
    const char *end = strstr(name, ".tmp-");
    size_t length = strlen(host);
    char *rest = NULL;
    if (!end || strncmp(end + 5, host, length) != 0 || end[5 + length] != '-')
        return 0;
    long process = strtol(end + 6 + length, &rest, 10);
    return *rest == '\0' && process > 0 ? process : 0;
}

void file_copy_clean(const char *directory, const char *prefix)
{
    char host[HOST_BYTES];
    host_name(host);
    DIR *entries = opendir(directory);
    for (struct dirent *entry; entries && (entry = readdir(entries)) != NULL;) {
        long process = strncmp(entry->d_name, prefix, strlen(prefix)) == 0 ? owner_of(entry->d_name, host) : 0;
        if (process == 0 || kill((pid_t)process, 0) == 0 || errno != ESRCH)
            continue;
        char *path = file_path(directory, entry->d_name);
        if (path)
            unlink(path);
        free(path);
    }
    if (entries)
        closedir(entries);
}
