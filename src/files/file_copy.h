/* A file copied to another disk, and looked at there before it counts. */
#ifndef QUEST_FILES_FILE_COPY_H
#define QUEST_FILES_FILE_COPY_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/error.h"

enum file_copied { FILE_COPIED, FILE_COPY_NO_ROOM };

/* `to`, in the same `directory`, appears when all bytes have been written, flushed, read back and found to be those of
 * `from`, whose time of change it takes over. FILE_COPY_NO_ROOM, with nothing left behind: the disk is full, or would
 * be with less than 1 % or 64 MiB free. ERROR_RUNTIME: reading or writing fails, the copy differs, SIGTERM. */
bool file_copy(const char *from, const char *to, const char *directory, enum file_copied *copied, struct error *error);

/* Removes what copies to names that begin with `prefix` left in a directory, if their process, on this host, is gone.
 */
void file_copy_clean(const char *directory, const char *prefix);

#endif
