/* A checkpoint onto the disk: image -> temporary file -> fsync -> read back and compare -> rename -> fsync of the
 * directory. At every moment the directory holds the previous checkpoint whole. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/checkpoint/format.h"
#include "src/files/file_output.h"

/* What a crash in the middle of an earlier write left behind; one run writes to a directory (its lock sees to that). */
static void remove_leftovers(const char *directory)
{
    DIR *entries = opendir(directory);
    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        size_t length = strlen(entry->d_name);
        if (length > 7 && strcmp(entry->d_name + length - 7, ".h5.new") == 0)
            unlinkat(dirfd(entries), entry->d_name, 0);
    }
    if (entries)
        closedir(entries);
}

/* The image on the disk; returns the open file, or -1 with errno set. */
static int write_image(const char *temporary, const struct checkpoint_image *image)
{
    int file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0)
        return -1;
    char seal[CHECKPOINT_SEAL_BYTES];
    checkpoint_seal(seal, image->bytes, image->byte_count);
    if (file_write_all(file, image->bytes, image->byte_count) && file_write_all(file, seal, sizeof seal) &&
        fsync(file) == 0) {
        /* What is read back then comes from the disk, as far as the system can tell. */
        posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
        return file;
    }
    int problem = errno;
    close(file);
    errno = problem;
    return -1;
}

static bool write_to(const char *directory, const char *temporary, const char *path,
                     const struct checkpoint *checkpoint, struct error *error)
{
    struct checkpoint_image image;
    if (!checkpoint_image_build(&image, checkpoint, error))
        return error_prefix(error, "%s", path);
    remove_leftovers(directory);
    int file = write_image(temporary, &image);
    int problem = errno;
    free(image.bytes);
    if (file < 0) {
        unlink(temporary);
        return error_runtime(error, "%s: the checkpoint cannot be written: %s", path, strerror(problem));
    }
    if (!checkpoint_compare(temporary, checkpoint, error)) {
        close(file);
        unlink(temporary);
        return error_prefix(error, "%s: what was written does not read back", path);
    }
    return file_commit(file, temporary, path, directory, error);
}

bool checkpoint_write(const char *directory, const struct checkpoint *checkpoint, struct error *error)
{
    char *path = NULL, *temporary = NULL;
    bool ok = asprintf(&path, "%s/step_%08llu.h5", directory, (unsigned long long)checkpoint->step) >= 0 &&
              asprintf(&temporary, "%s.new", path) >= 0;
    if (ok)
        ok = write_to(directory, temporary, path, checkpoint, error);
    else
        error_runtime(error, "%s: out of memory", directory);
    free(path);
    free(temporary);
    return ok;
}
