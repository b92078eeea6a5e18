/* Descriptors of the files of a set: opened when first read from, and no more of them open than a process may well
 * have, however many files the set has. */
#ifndef QUEST_DATA_LOADERS_FORMAT_SHARD_FILES_H
#define QUEST_DATA_LOADERS_FORMAT_SHARD_FILES_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/error.h"

struct shard_files;

/* At most `most` are open, or as many as threads hold; 0: a quarter of the descriptors that this process may have
 * (`ulimit -n`). NULL: no memory. */
struct shard_files *shard_files_open(size_t count, size_t most);
void shard_files_close(struct shard_files *files);
/* Hands over file `number`, open as `descriptor`: from now on closed here, and opened again by its path. Instead of
 * what was handed over before; nobody may have borrowed that. ERROR_RUNTIME: it cannot be looked at; the descriptor is
 * still the caller's. */
bool shard_files_add(struct shard_files *files, size_t number, const char *path, int descriptor, struct error *error);

/* Any thread. ERROR_RUNTIME: the file cannot be opened any more, or is no longer the one that was added. */
bool shard_files_borrow(struct shard_files *files, size_t number, int *descriptor, struct error *error);
void shard_files_return(struct shard_files *files, size_t number);

#endif
