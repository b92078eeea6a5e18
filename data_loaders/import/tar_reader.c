/* libarchive's tar format on a file of ours, or on a member of another reader. */
#include "data_loaders/import/tar_reader.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data_loaders/import/tar_names.h"

enum { BLOCK = 512, BUFFER = 1 << 20 };

struct tar_reader {
    char *path;
    struct archive *archive;
    struct archive_entry *entry;
    struct tar_reader *outer; /* NULL: a file */
    int file;
    uint64_t bytes, offset; /* of the file; of the member of `outer`, where offset is what has been taken of it */
    uint8_t *buffer;
    uint8_t tail[BLOCK]; /* inside another: the last bytes that were taken */
    size_t members;
    struct error inner_error; /* what a callback met; libarchive only knows that it failed */
};

/* pax names are UTF-8, which the C locale cannot say. */
static const char *name_of(struct archive_entry *entry)
{
    const char *name = archive_entry_pathname(entry);
    return name ? name : archive_entry_pathname_utf8(entry);
}

static bool damaged(const struct tar_reader *reader, struct error *error)
{
    if (reader->inner_error.status != ERROR_NONE) {
        *error = reader->inner_error;
        return false;
    }
    const char *said = archive_error_string(reader->archive);
    return error_input(error, "%s: is damaged or cut short after member %zu (%s); copy it again", reader->path,
                       reader->members, said ? said : "no reason known");
}

/* ---- where the bytes come from ---- */

static la_ssize_t read_file(struct archive *archive, void *owner, const void **bytes)
{
    struct tar_reader *reader = owner;
    ssize_t got;
    (void)archive;
    do
        got = pread(reader->file, reader->buffer, BUFFER, (off_t)reader->offset);
    while (got < 0 && errno == EINTR);
    if (got < 0) {
        error_runtime(&reader->inner_error, "%s: cannot be read: %s", reader->path, strerror(errno));
        return ARCHIVE_FATAL;
    }
    reader->offset += (uint64_t)got;
    *bytes = reader->buffer;
    return got;
}

/* Never past the end: a header that promises more than there is must be noticed. */
static la_int64_t skip_file(struct archive *archive, void *owner, la_int64_t request)
{
    struct tar_reader *reader = owner;
    (void)archive;
    uint64_t left = reader->bytes > reader->offset ? reader->bytes - reader->offset : 0;
    uint64_t skipped = (uint64_t)request < left ? (uint64_t)request : left;
    reader->offset += skipped;
    return (la_int64_t)skipped;
}

static void keep_tail(struct tar_reader *reader, const uint8_t *bytes, size_t count)
{
    if (count >= BLOCK) {
        memcpy(reader->tail, bytes + count - BLOCK, BLOCK);
    } else {
        memmove(reader->tail, reader->tail + count, BLOCK - count);
        memcpy(reader->tail + BLOCK - count, bytes, count);
    }
}

static la_ssize_t read_member(struct archive *archive, void *owner, const void **bytes)
{
    struct tar_reader *reader = owner;
    size_t count = 0;
    la_int64_t offset = 0;
    (void)archive;
    int status = archive_read_data_block(reader->outer->archive, bytes, &count, &offset);
    if (status == ARCHIVE_EOF)
        return 0;
    if (status != ARCHIVE_OK || (uint64_t)offset != reader->offset) {
        damaged(reader->outer, &reader->inner_error);
        return ARCHIVE_FATAL;
    }
    keep_tail(reader, *bytes, count);
    reader->offset += count;
    return (la_ssize_t)count;
}

/* ---- opening ---- */

static bool all_zero(const uint8_t *bytes)
{
    for (size_t i = 0; i < BLOCK; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

static bool no_end_mark(const struct tar_reader *reader, struct error *error)
{
    return error_input(error, "%s: has no end mark; it was cut short, copy it again", reader->path);
}

/* A tar ends with blocks of zeros. libarchive would take one that was cut between two members for whole. */
static bool open_file(struct tar_reader *reader, struct error *error)
{
    struct stat status;
    uint8_t tail[BLOCK];
    reader->file = open(reader->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not make us wait */
    if (reader->file < 0 || fstat(reader->file, &status) != 0)
        return error_input(error, "%s: %s", reader->path, strerror(errno));
    if (!S_ISREG(status.st_mode))
        return error_input(error, "%s: is not a regular file; tars are read twice, so a pipe does not do",
                           reader->path);
    reader->bytes = (uint64_t)status.st_size;
    reader->buffer = malloc(BUFFER);
    if (!reader->buffer)
        return error_runtime(error, "%s: no memory for reading it", reader->path);
    ssize_t got = pread(reader->file, reader->buffer, BLOCK, 0);
    if (got < BLOCK || memcmp(reader->buffer + 257, "ustar", 5) != 0)
        return error_input(error, "%s: is not a tar file (a compressed one has to be unpacked first)", reader->path);
    posix_fadvise(reader->file, 0, 0, POSIX_FADV_SEQUENTIAL);
    return (pread(reader->file, tail, BLOCK, status.st_size - BLOCK) == BLOCK && all_zero(tail)) ||
           no_end_mark(reader, error);
}

/* Takes over `path`. */
static struct tar_reader *reader_new(char *path, struct tar_reader *outer)
{
    struct tar_reader *reader = calloc(1, sizeof *reader);
    if (reader)
        *reader = (struct tar_reader){.path = path, .outer = outer, .file = -1, .archive = archive_read_new()};
    if (!reader || !path || !reader->archive || archive_read_support_format_tar(reader->archive) != ARCHIVE_OK) {
        if (reader)
            tar_reader_close(reader);
        else
            free(path);
        return NULL;
    }
    return reader;
}

bool tar_reader_open(struct tar_reader **reader, const char *path, struct error *error)
{
    struct tar_reader *opened = reader_new(strdup(path), NULL);
    if (!opened)
        return error_runtime(error, "%s: no memory for reading it", path);
    bool ok = open_file(opened, error);
    if (ok && archive_read_open2(opened->archive, opened, NULL, read_file, skip_file, NULL) != ARCHIVE_OK)
        ok = damaged(opened, error);
    if (ok)
        *reader = opened;
    else
        tar_reader_close(opened);
    return ok;
}

bool tar_reader_open_inside(struct tar_reader **reader, struct tar_reader *outer, struct error *error)
{
    char *path = NULL;
    if (asprintf(&path, "%s: %s", outer->path, name_of(outer->entry)) < 0)
        path = NULL;
    struct tar_reader *opened = reader_new(path, outer);
    if (!opened)
        return error_runtime(error, "%s: no memory for a tar in it", outer->path);
    opened->bytes = (uint64_t)archive_entry_size(outer->entry);
    bool ok = archive_read_open2(opened->archive, opened, NULL, read_member, NULL, NULL) == ARCHIVE_OK ||
              (opened->inner_error.status != ERROR_NONE ? damaged(opened, error)
                                                        : error_input(error, "%s: is not a tar file", opened->path));
    if (ok)
        *reader = opened;
    else
        tar_reader_close(opened);
    return ok;
}

void tar_reader_close(struct tar_reader *reader)
{
    if (!reader)
        return;
    archive_read_free(reader->archive);
    if (reader->file >= 0)
        close(reader->file);
    free(reader->buffer);
    free(reader->path);
    free(reader);
}

const char *tar_reader_path(const struct tar_reader *reader)
{
    return reader->path;
}

/* ---- members ---- */

static bool leads_upwards(const char *name)
{
    for (;;) {
        if (strncmp(name, "..", 2) == 0 && (name[2] == '/' || name[2] == '\0'))
            return true;
        name += strcspn(name, "/");
        if (*name++ == '\0')
            return false;
    }
}

static bool check_entry(const struct tar_reader *reader, const char *name, struct error *error)
{
    struct archive_entry *entry = reader->entry;
    const char *path = reader->path;
    size_t length = name ? strlen(name) : 0;
    if (length == 0)
        return error_input(error, "%s: member %zu has no name", path, reader->members);
    if (length > TAR_LONGEST_NAME)
        return error_input(error, "%s: member %zu has a name of %zu bytes; at most %d are expected", path,
                           reader->members, length, TAR_LONGEST_NAME);
    if (name[0] == '/' || leads_upwards(name))
        return error_input(error,
                           "%s: the name of member '%.200s' leads out of the folder that one would unpack it in; "
                           "do not trust this file",
                           path, name);
    mode_t type = archive_entry_filetype(entry);
    if (!archive_entry_hardlink(entry) && !archive_entry_symlink(entry) && type != AE_IFREG && type != AE_IFDIR)
        return error_input(error, "%s: member '%.200s' is neither a file nor a folder", path, name);
    if (archive_entry_sparse_count(entry) > 0)
        return error_input(error, "%s: member '%.200s' has holes; pack it without --sparse", path, name);
    return archive_entry_size(entry) >= 0 || error_input(error, "%s: member '%.200s' has a size below 0", path, name);
}

/* What is left of the member that this tar lies in, to its last block. */
static bool check_end(struct tar_reader *reader, struct error *error)
{
    const void *bytes;
    la_ssize_t got = 1;
    if (!reader->outer)
        return true;
    while (got > 0)
        got = read_member(reader->archive, reader, &bytes);
    if (got < 0)
        return damaged(reader, error);
    return (reader->offset == reader->bytes && all_zero(reader->tail)) || no_end_mark(reader, error);
}

bool tar_reader_next(struct tar_reader *reader, struct tar_member *member, bool *end, struct error *error)
{
    *end = false;
    for (;;) {
        int status = archive_read_next_header(reader->archive, &reader->entry);
        if (status == ARCHIVE_EOF) {
            *end = true;
            return check_end(reader, error);
        }
        if (status != ARCHIVE_OK && status != ARCHIVE_WARN)
            return damaged(reader, error);
        reader->members++;
        struct archive_entry *entry = reader->entry;
        const char *name = name_of(entry);
        if (!check_entry(reader, name, error))
            return false;
        bool link = archive_entry_hardlink(entry) || archive_entry_symlink(entry);
        *member = (struct tar_member){name, (uint64_t)archive_entry_size(entry), link};
        if (tar_name_base(name)[0] != '.' && (link || archive_entry_filetype(entry) == AE_IFREG))
            return true;
    }
}

bool tar_reader_read(struct tar_reader *reader, uint8_t **bytes, size_t *count, struct error *error)
{
    const uint64_t size = (uint64_t)archive_entry_size(reader->entry);
    const char *name = name_of(reader->entry);
    if (size > TAR_LARGEST_MEMBER)
        return error_input(error, "%s: member '%.200s' has %llu bytes; at most %d MiB are expected of an image",
                           reader->path, name, (unsigned long long)size, TAR_LARGEST_MEMBER >> 20);
    uint8_t *all = malloc(size + 1);
    if (!all)
        return error_runtime(error, "%s: no memory for member '%.200s'", reader->path, name);
    la_ssize_t got = archive_read_data(reader->archive, all, size);
    if (got < 0 || (uint64_t)got != size) {
        free(all);
        return damaged(reader, error);
    }
    all[size] = '\0';
    *bytes = all;
    *count = size;
    return true;
}
