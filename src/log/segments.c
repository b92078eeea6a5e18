/* Names, finds and compresses the finished parts of norms.jsonl. */
#include "src/log/segments.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "src/files/file_output.h"

enum { BLOCK_BYTES = 1 << 18 };

/* "RUN/norms.jsonl" in its parts; borrowed from the path. */
struct log_name {
    int directory_bytes, stem_bytes; /* "RUN/", "norms" */
    const char *stem, *ending;       /* ending: ".jsonl" */
};

static struct log_name name_of(const char *log_path)
{
    const char *slash = strrchr(log_path, '/'), *stem = slash ? slash + 1 : log_path, *dot = strrchr(stem, '.');
    const char *ending = dot ? dot : stem + strlen(stem);
    return (struct log_name){(int)(stem - log_path), (int)(ending - stem), stem, ending};
}

char *log_segment_path(const char *log_path, uint64_t number, const char *suffix)
{
    struct log_name name = name_of(log_path);
    char *path = NULL;
    int bytes = asprintf(&path, "%.*s%.*s-%06llu%s%s", name.directory_bytes, log_path, name.stem_bytes, name.stem,
                         (unsigned long long)number, name.ending, suffix);
    return bytes < 0 ? NULL : path;
}

/* The number in a file's name; 0: it is no segment of this log. */
static uint64_t number_of(const struct log_name *log, const char *file)
{
    size_t stem = (size_t)log->stem_bytes;
    if (strncmp(file, log->stem, stem) != 0 || file[stem] != '-' || strspn(file + stem + 1, "0123456789") < 6)
        return 0;
    char *end;
    errno = 0;
    unsigned long long number = strtoull(file + stem + 1, &end, 10);
    size_t ending = strlen(log->ending);
    if (errno != 0 || strncmp(end, log->ending, ending) != 0)
        return 0;
    bool whole = strcmp(end + ending, LOG_SEGMENT_PLAIN) == 0 || strcmp(end + ending, LOG_SEGMENT_PACKED) == 0;
    return whole ? number : 0;
}

void log_segments_range(const char *log_path, uint64_t *first, uint64_t *last)
{
    struct log_name name = name_of(log_path);
    char *path = name.directory_bytes > 0 ? strndup(log_path, (size_t)name.directory_bytes) : strdup(".");
    DIR *directory = path ? opendir(path) : NULL;
    *first = *last = 0;
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        uint64_t number = number_of(&name, entry->d_name);
        if (number > 0 && (*first == 0 || number < *first))
            *first = number;
        if (number > *last)
            *last = number;
    }
    if (directory)
        closedir(directory);
    free(path);
}

bool log_segment_exists(const char *log_path, uint64_t number, const char *suffix)
{
    char *path = log_segment_path(log_path, number, suffix);
    bool exists = path && access(path, F_OK) == 0;
    free(path);
    return exists;
}

/* zlib's level 4 makes a log 2.3 times smaller at 35 MiB/s; the usual 6 makes it 2.4 times smaller at 13
 * (docs/logs.md). */
static bool copy_packed(int from, int to)
{
    int own = dup(to); /* gzclose closes what it was given; `to` is still to be flushed to the disk */
    gzFile packed = own >= 0 ? gzdopen(own, "wb4") : NULL;
    char *block = malloc(BLOCK_BYTES);
    bool ok = packed && block;
    for (ssize_t bytes = 1; ok && bytes != 0;) {
        bytes = read(from, block, BLOCK_BYTES);
        if (bytes < 0 && errno == EINTR)
            continue;
        ok = bytes >= 0 && (bytes == 0 || gzwrite(packed, block, (unsigned)bytes) == bytes);
    }
    int problem = errno;
    free(block);
    if (packed && gzclose(packed) != Z_OK && ok) {
        problem = errno;
        ok = false;
    }
    if (!packed && own >= 0)
        close(own);
    errno = problem;
    return ok;
}

static bool pack(const char *plain, const char *temporary, const char *packed, const char *directory,
                 struct error *error)
{
    int from = open(plain, O_RDONLY | O_CLOEXEC);
    int to = from >= 0 ? open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666) : -1;
    bool ok = to >= 0 && copy_packed(from, to);
    if (!ok) {
        error_runtime(error, "%s: cannot be compressed: %s; it stays as it is", plain, strerror(errno));
        unlink(temporary);
        if (to >= 0)
            close(to);
    } else {
        ok = file_commit(to, temporary, packed, directory, error);
    }
    if (from >= 0)
        close(from);
    if (ok && unlink(plain) != 0)
        ok = error_runtime(error, "%s: cannot be removed: %s", plain, strerror(errno));
    return ok;
}

bool log_segment_pack(const char *log_path, uint64_t number, struct error *error)
{
    char *plain = log_segment_path(log_path, number, LOG_SEGMENT_PLAIN);
    char *packed = log_segment_path(log_path, number, LOG_SEGMENT_PACKED);
    char *temporary = log_segment_path(log_path, number, LOG_SEGMENT_PACKED ".new");
    struct log_name name = name_of(log_path);
    char *directory = name.directory_bytes > 0 ? strndup(log_path, (size_t)name.directory_bytes) : strdup(".");
    bool ok = plain && packed && temporary && directory ? pack(plain, temporary, packed, directory, error)
                                                        : error_runtime(error, "%s: out of memory", log_path);
    free(directory);
    free(temporary);
    free(packed);
    free(plain);
    return ok;
}
