/* A table of descriptors under one lock; the one that was used longest ago makes room. */
#include "data_loaders/format/shard_files.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LEAST = 8 };

struct entry {
    char *path;
    int descriptor; /* -1: closed */
    size_t users;
    uint64_t used; /* when, in borrowings */
    ino_t inode;
    off_t bytes;
    struct timespec changed;
};

struct shard_files {
    pthread_mutex_t lock;
    struct entry *entries; /* [count] */
    size_t count, most, open;
    uint64_t borrowings;
};

static size_t quarter_of_limit(void)
{
    struct rlimit limit;
    size_t quarter = getrlimit(RLIMIT_NOFILE, &limit) == 0 ? (size_t)(limit.rlim_cur / 4) : 0;
    return quarter > LEAST ? quarter : LEAST;
}

struct shard_files *shard_files_open(size_t count, size_t most)
{
    struct shard_files *files = calloc(1, sizeof *files);
    struct entry *entries = calloc(count, sizeof *entries);
    if (!files || !entries) {
        free(files);
        free(entries);
        return NULL;
    }
    for (size_t i = 0; i < count; i++)
        entries[i].descriptor = -1;
    pthread_mutex_init(&files->lock, NULL);
    files->entries = entries;
    files->count = count;
    files->most = most ? most : quarter_of_limit();
    return files;
}

void shard_files_close(struct shard_files *files)
{
    if (!files)
        return;
    for (size_t i = 0; i < files->count; i++) {
        if (files->entries[i].descriptor >= 0)
            close(files->entries[i].descriptor);
        free(files->entries[i].path);
    }
    pthread_mutex_destroy(&files->lock);
    free(files->entries);
    free(files);
}

/* Closes the one that nobody has used for longest, if there is one. */
static void make_room(struct shard_files *files)
{
    struct entry *oldest = NULL;
    for (size_t i = 0; i < files->count; i++) {
        struct entry *entry = &files->entries[i];
        if (entry->descriptor >= 0 && entry->users == 0 && (!oldest || entry->used < oldest->used))
            oldest = entry;
    }
    if (!oldest)
        return;
    close(oldest->descriptor);
    oldest->descriptor = -1;
    files->open--;
}

bool shard_files_add(struct shard_files *files, size_t number, const char *path, int descriptor, struct error *error)
{
    struct entry *entry = &files->entries[number];
    struct stat status;
    char *own = strdup(path);
    if (!own)
        return error_runtime(error, "%s: no memory for its name", path);
    if (fstat(descriptor, &status) != 0) {
        free(own);
        return error_runtime(error, "%s: %s", path, strerror(errno));
    }
    if (entry->descriptor >= 0) {
        close(entry->descriptor);
        entry->descriptor = -1;
        files->open--;
    }
    if (files->open >= files->most)
        make_room(files);
    free(entry->path);
    *entry = (struct entry){.path = own,
                            .descriptor = descriptor,
                            .inode = status.st_ino,
                            .bytes = status.st_size,
                            .changed = status.st_mtim};
    files->open++;
    return true;
}

static bool open_again(struct shard_files *files, struct entry *entry, struct error *error)
{
    struct stat status;
    if (files->open >= files->most)
        make_room(files);
    int descriptor = open(entry->path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return error_runtime(error, "%s: cannot be opened any more: %s", entry->path, strerror(errno));
    bool same = fstat(descriptor, &status) == 0 && status.st_ino == entry->inode && status.st_size == entry->bytes &&
                status.st_mtim.tv_sec == entry->changed.tv_sec && status.st_mtim.tv_nsec == entry->changed.tv_nsec;
    if (!same) {
        close(descriptor);
        return error_runtime(error, "%s: has been changed since the dataset was opened; start again", entry->path);
    }
    entry->descriptor = descriptor;
    files->open++;
    return true;
}

bool shard_files_borrow(struct shard_files *files, size_t number, int *descriptor, struct error *error)
{
    struct entry *entry = &files->entries[number];
    pthread_mutex_lock(&files->lock);
    bool ok = entry->descriptor >= 0 || open_again(files, entry, error);
    if (ok) {
        entry->users++;
        entry->used = ++files->borrowings;
        *descriptor = entry->descriptor;
    }
    pthread_mutex_unlock(&files->lock);
    return ok;
}

void shard_files_return(struct shard_files *files, size_t number)
{
    pthread_mutex_lock(&files->lock);
    files->entries[number].users--;
    pthread_mutex_unlock(&files->lock);
}
