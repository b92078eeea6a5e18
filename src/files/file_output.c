/* Paths, directories, and the order of write, fsync and rename that leaves either the old file or the new. */
#include "src/files/file_output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *file_path(const char *directory, const char *name)
{
    char *path = NULL;
    return asprintf(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

static bool make_directory(const char *path, struct error *error)
{
    struct stat status;
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && stat(path, &status) == 0 && S_ISDIR(status.st_mode)))
        return true;
    return error_input(error, "%s: the directory cannot be made: %s; name another one", path, strerror(errno));
}

bool file_make_directories(const char *path, struct error *error)
{
    char *copy = strdup(path);
    if (!copy)
        return error_runtime(error, "%s: out of memory", path);
    bool ok = *path || error_input(error, "the name of the output directory is empty");
    for (char *slash = copy; ok && (slash = strchr(slash + 1, '/'));) {
        *slash = '\0';
        ok = make_directory(copy, error);
        *slash = '/';
    }
    ok = ok && make_directory(copy, error);
    free(copy);
    return ok;
}

bool file_write_all(int file, const void *bytes, size_t byte_count)
{
    for (const char *at = bytes; byte_count > 0;) {
        ssize_t written = write(file, at, byte_count);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0) {
            errno = written == 0 ? ENOSPC : errno;
            return false;
        }
        at += written;
        byte_count -= (size_t)written;
    }
    return true;
}

bool file_sync_directory(const char *directory, struct error *error)
{
    int file = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* Some file systems cannot flush a directory and say EINVAL: nothing more can be done there. */
    bool ok = file >= 0 && (fsync(file) == 0 || errno == EINVAL);
    if (!ok)
        error_runtime(error, "%s: cannot be flushed to the disk: %s", directory, strerror(errno));
    if (file >= 0)
        close(file);
    return ok;
}

bool file_commit(int file, const char *temporary, const char *path, const char *directory, struct error *error)
{
    int problem = fsync(file) == 0 ? 0 : errno;
    if (close(file) != 0 && problem == 0)
        problem = errno;
    if (problem == 0 && rename(temporary, path) != 0)
        problem = errno;
    if (problem != 0) {
        unlink(temporary);
        return error_runtime(error, "%s: cannot be written: %s", path, strerror(problem));
    }
    return file_sync_directory(directory, error);
}

bool file_output_open(struct file_output *output, const char *path, struct error *error)
{
    *output = (struct file_output){.path = path};
    if (asprintf(&output->temporary, "%s.new", path) < 0)
        return error_runtime(error, "%s: out of memory", path);
    output->file = fopen(output->temporary, "we");
    if (output->file)
        return true;
    error_input(error, "%s: %s", output->temporary, strerror(errno));
    free(output->temporary);
    return false;
}

bool file_output_close(struct file_output *output, bool ok, struct error *error)
{
    bool written = !ferror(output->file);
    written = fclose(output->file) == 0 && written;
    if (ok && (!written || rename(output->temporary, output->path) != 0))
        ok = error_runtime(error, "%s: cannot be written: %s", output->path, strerror(errno));
    if (!ok)
        unlink(output->temporary);
    free(output->temporary);
    return ok;
}

void file_last_part(char *name, size_t name_bytes, const char *path)
{
    size_t end = strlen(path), begin;
    while (end > 1 && path[end - 1] == '/')
        end--;
    for (begin = end; begin > 0 && path[begin - 1] != '/'; begin--)
        ;
    snprintf(name, name_bytes, "%.*s", (int)(end - begin), path + begin);
}
