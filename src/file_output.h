/* Files that are either the old or the new, whole, whatever happens in between. */
#ifndef QUEST_FILE_OUTPUT_H
#define QUEST_FILE_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "src/error.h"

/* "directory/name", to be freed; NULL: out of memory. */
char *file_path(const char *directory, const char *name);
/* mkdir -p. ERROR_INPUT names the directory that cannot be made. */
bool file_make_directories(const char *path, struct error *error);
/* All of `bytes`, over short writes and signals. false: errno says why. */
bool file_write_all(int file, const void *bytes, size_t byte_count);
/* Makes names in a directory last: a rename is on the disk only after this. ERROR_RUNTIME. */
bool file_sync_directory(const char *directory, struct error *error);
/* Flushes `temporary` (open as `file`, closed here) to the disk and renames it to `path` in the same `directory`.
 * ERROR_RUNTIME; where it fails the temporary file is removed and `path` is as before. */
bool file_commit(int file, const char *temporary, const char *path, const char *directory, struct error *error);

#endif
