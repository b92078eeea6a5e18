#include "src/log_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK_BYTES = 1 << 18, LINE_BYTES_MAX = 1 << 26 };

bool log_reader_open(struct log_reader *reader, const char *path, struct error *error)
{
    *reader = (struct log_reader){.file = -1, .path = strdup(path), .capacity = BLOCK_BYTES};
    reader->buffer = malloc(reader->capacity);
    if (reader->path && reader->buffer)
        return true;
    log_reader_close(reader);
    return error_runtime(error, "%s: out of memory", path);
}

void log_reader_close(struct log_reader *reader)
{
    if (reader->file >= 0)
        close(reader->file);
    log_line_free(&reader->line);
    free(reader->buffer);
    free(reader->path);
    *reader = (struct log_reader){.file = -1};
}

static enum log_reader_result fail(const struct log_reader *reader, const char *what, struct error *error)
{
    error_runtime(error, "%s: %s", reader->path, what);
    return LOG_READER_FAILED;
}

/* Opens the file where that is due. END: it does not exist; LINE: go on reading. */
static enum log_reader_result check_file(struct log_reader *reader, struct error *error)
{
    struct stat status;
    if (stat(reader->path, &status) != 0)
        return errno == ENOENT ? LOG_READER_END : fail(reader, strerror(errno), error);
    bool same = reader->file >= 0 && (uint64_t)status.st_ino == reader->inode;
    if (same && (uint64_t)status.st_size >= reader->offset)
        return LOG_READER_LINE;
    bool first = reader->file < 0 && reader->offset == 0;
    if (reader->file >= 0)
        close(reader->file);
    reader->file = open(reader->path, O_RDONLY | O_CLOEXEC);
    if (reader->file < 0)
        return fail(reader, strerror(errno), error);
    reader->inode = (uint64_t)status.st_ino;
    reader->offset = 0;
    reader->begin = reader->end = 0;
    return first ? LOG_READER_LINE : LOG_READER_RESTARTED;
}

static bool make_room(struct log_reader *reader)
{
    memmove(reader->buffer, reader->buffer + reader->begin, reader->end - reader->begin);
    reader->end -= reader->begin;
    reader->begin = 0;
    if (reader->capacity - reader->end >= BLOCK_BYTES / 2)
        return true;
    if (reader->capacity >= LINE_BYTES_MAX)
        return false;
    char *grown = realloc(reader->buffer, 2 * reader->capacity);
    if (!grown)
        return false;
    reader->buffer = grown;
    reader->capacity *= 2;
    return true;
}

/* LINE: more bytes are there. */
static enum log_reader_result fill(struct log_reader *reader, struct error *error)
{
    if (!make_room(reader))
        return fail(reader, "a line of more than 64 MiB, or out of memory; this is not a log of quest-train", error);
    for (;;) {
        ssize_t bytes = reader->file < 0 ? 0
                                         : pread(reader->file, reader->buffer + reader->end,
                                                 reader->capacity - reader->end, (off_t)reader->offset);
        if (bytes < 0 && errno == EINTR)
            continue;
        if (bytes < 0)
            return fail(reader, strerror(errno), error);
        reader->end += (size_t)bytes;
        reader->offset += (uint64_t)bytes;
        return bytes > 0 ? LOG_READER_LINE : LOG_READER_END;
    }
}

enum log_reader_result log_reader_next(struct log_reader *reader, struct error *error)
{
    for (;;) {
        char *from = reader->buffer + reader->begin;
        char *newline = memchr(from, '\n', reader->end - reader->begin);
        if (newline) {
            reader->begin = (size_t)(newline + 1 - reader->buffer);
            reader->lines++;
            if (log_line_read(&reader->line, from, (size_t)(newline - from)))
                return LOG_READER_LINE;
            reader->damaged++;
            continue;
        }
        enum log_reader_result result = fill(reader, error);
        if (result == LOG_READER_END && (result = check_file(reader, error)) == LOG_READER_LINE)
            result = fill(reader, error);
        if (result != LOG_READER_LINE)
            return result;
    }
}
