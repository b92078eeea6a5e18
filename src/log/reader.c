/* Reads a log part by part, compressed or not, and waits at the end of the one that grows. */
#include "src/log/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "src/log/segments.h"

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

static void close_part(struct log_reader *reader)
{
    if (reader->file >= 0)
        close(reader->file);
    if (reader->segment)
        gzclose_r(reader->segment);
    reader->file = -1;
    reader->segment = NULL;
}

void log_reader_close(struct log_reader *reader)
{
    close_part(reader);
    log_line_free(&reader->line);
    free(reader->buffer);
    free(reader->path);
    free(reader->damaged_segments);
    *reader = (struct log_reader){.file = -1};
}

static enum log_reader_result fail(const struct log_reader *reader, const char *what, struct error *error)
{
    error_runtime(error, "%s: %s", reader->path, what);
    return LOG_READER_FAILED;
}

/* ---- from part to part ---- */

static void note_damage(struct log_reader *reader, const char *what)
{
    char *path = log_segment_path(reader->path, reader->part, LOG_SEGMENT_PACKED), *notes = NULL;
    const char *before = reader->damaged_segments ? reader->damaged_segments : "";
    if (path && asprintf(&notes, "%s%s: %s\n", before, path, what) >= 0) {
        free(reader->damaged_segments);
        reader->damaged_segments = notes;
    }
    free(path);
}

/* What stands after the last newline of a segment is no line; the next part begins with a line of its own. */
static void end_segment(struct log_reader *reader)
{
    close_part(reader);
    if (reader->begin < reader->end) {
        reader->lines++;
        reader->damaged++;
    }
    reader->begin = reader->end = 0;
    reader->part++;
}

/* false: neither the plain nor the compressed one exists, or memory is short. */
static bool open_segment(struct log_reader *reader)
{
    static const char *const suffixes[] = {LOG_SEGMENT_PLAIN, LOG_SEGMENT_PACKED};
    for (size_t i = 0; i < 2 && !reader->segment; i++) {
        char *path = log_segment_path(reader->path, reader->part, suffixes[i]);
        reader->segment = path ? gzopen(path, "rbe") : NULL;
        free(path);
    }
    if (reader->segment)
        gzbuffer(reader->segment, BLOCK_BYTES);
    return reader->segment != NULL;
}

/* LINE: open. END: it does not exist. */
static enum log_reader_result open_file(struct log_reader *reader, struct error *error)
{
    struct stat status;
    reader->file = open(reader->path, O_RDONLY | O_CLOEXEC);
    if (reader->file < 0)
        return errno == ENOENT ? LOG_READER_END : fail(reader, strerror(errno), error);
    if (fstat(reader->file, &status) != 0)
        return fail(reader, strerror(errno), error);
    reader->inode = (uint64_t)status.st_ino;
    reader->offset = 0;
    return LOG_READER_LINE;
}

/* Opens the part with the number reader->part. END: nothing is there yet. */
static enum log_reader_result open_part(struct log_reader *reader, struct error *error)
{
    for (;;) {
        uint64_t first, last;
        log_segments_range(reader->path, &first, &last);
        if (reader->part == 0)
            reader->part = first > 0 ? first : 1;
        if (open_segment(reader))
            return LOG_READER_LINE;
        if (last >= reader->part) {
            note_damage(reader, last > reader->part ? "is missing" : "cannot be opened");
            reader->part++;
            continue;
        }
        enum log_reader_result result = open_file(reader, error);
        /* It may have become a segment between the look and the opening; then a newer file may be open here. */
        log_segments_range(reader->path, &first, &last);
        if (result == LOG_READER_FAILED || last < reader->part)
            return result;
        close_part(reader);
    }
}

static enum log_reader_result restart(struct log_reader *reader)
{
    close_part(reader);
    reader->part = 0;
    reader->begin = reader->end = 0;
    return LOG_READER_RESTARTED;
}

/* After the last byte that is there for now. LINE: go on reading. */
static enum log_reader_result next_part(struct log_reader *reader, bool *drained, struct error *error)
{
    struct stat status;
    if (reader->segment) {
        end_segment(reader);
        return open_part(reader, error);
    }
    if (reader->file < 0)
        return open_part(reader, error);
    if (stat(reader->path, &status) == 0 && (uint64_t)status.st_ino == reader->inode)
        return (uint64_t)status.st_size >= reader->offset ? LOG_READER_END : restart(reader);
    if (log_segment_exists(reader->path, reader->part, LOG_SEGMENT_PLAIN) ||
        log_segment_exists(reader->path, reader->part, LOG_SEGMENT_PACKED)) {
        /* The open file has become that segment: its last lines may have come since it was read. */
        bool again = !*drained;
        *drained = true;
        if (again)
            return LOG_READER_LINE;
        end_segment(reader);
        return open_part(reader, error);
    }
    return access(reader->path, F_OK) == 0 ? restart(reader) : LOG_READER_END;
}

/* ---- bytes ---- */

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

/* END: the segment is read, as far as it can be. */
static enum log_reader_result fill_from_segment(struct log_reader *reader)
{
    int problem = Z_OK;
    int bytes = gzread(reader->segment, reader->buffer + reader->end, (unsigned)(reader->capacity - reader->end));
    if (bytes > 0) {
        reader->end += (size_t)bytes;
        return LOG_READER_LINE;
    }
    const char *what = gzerror(reader->segment, &problem);
    if (problem != Z_OK)
        note_damage(reader, problem == Z_BUF_ERROR ? "is cut off" : problem == Z_ERRNO ? strerror(errno) : what);
    return LOG_READER_END;
}

static enum log_reader_result fill_from_file(struct log_reader *reader, struct error *error)
{
    for (;;) {
        ssize_t bytes =
            pread(reader->file, reader->buffer + reader->end, reader->capacity - reader->end, (off_t)reader->offset);
        if (bytes < 0 && errno == EINTR)
            continue;
        if (bytes < 0 && errno == ESTALE) /* over NFS: replaced on the server */
            return restart(reader);
        if (bytes < 0)
            return fail(reader, strerror(errno), error);
        reader->end += (size_t)bytes;
        reader->offset += (uint64_t)bytes;
        return bytes > 0 ? LOG_READER_LINE : LOG_READER_END;
    }
}

/* LINE: more bytes are there. */
static enum log_reader_result fill(struct log_reader *reader, struct error *error)
{
    if (!make_room(reader))
        return fail(reader, "a line of more than 64 MiB, or out of memory; this is not a log of quest-train", error);
    if (reader->segment)
        return fill_from_segment(reader);
    return reader->file >= 0 ? fill_from_file(reader, error) : LOG_READER_END;
}

enum log_reader_result log_reader_next(struct log_reader *reader, struct error *error)
{
    bool drained = false;
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
        if (result == LOG_READER_END)
            result = next_part(reader, &drained, error);
        if (result != LOG_READER_LINE)
            return result;
    }
}
